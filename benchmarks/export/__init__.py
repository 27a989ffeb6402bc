"""Cost, size and precision of exports."""
