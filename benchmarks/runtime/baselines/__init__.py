"""Scripts that other libraries' own environments run (`scripts/baselines` makes them)."""
