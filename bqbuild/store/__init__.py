"""Where tables, traces, calls and environments live."""
