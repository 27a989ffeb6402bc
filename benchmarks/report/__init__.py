"""README's tables, docs/measured.md and docs/benchmarks.html, made of the results."""
