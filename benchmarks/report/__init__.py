"""README's figures and docs/benchmarks.html, made of the results."""
