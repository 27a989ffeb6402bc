"""Make bundles: from checkpoints, with new weights, and from other bundles."""
