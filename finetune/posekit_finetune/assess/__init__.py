"""Comparing networks without labels: indicators, the monitor of training, and the gate."""
