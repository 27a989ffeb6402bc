"""What tells a better network from a worse one without labels: monitor, gate and their figures."""
