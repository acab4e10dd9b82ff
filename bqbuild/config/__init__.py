"""From files to typed specs: the only reader of project files."""
