"""Weights in, engine out: graphs, exports and parity reports."""
