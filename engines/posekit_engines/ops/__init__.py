"""One launch a kernel: argument struct, checks and grid; `reference` is the same in numpy."""
