"""Bundles made of checkpoints, of new weights, and of other bundles."""
