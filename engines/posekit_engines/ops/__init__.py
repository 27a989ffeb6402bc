"""One launch function per kernel: argument struct, checks and grid; and their numpy reference."""
