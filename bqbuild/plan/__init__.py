"""Pure: which nodes must be built, and why."""
