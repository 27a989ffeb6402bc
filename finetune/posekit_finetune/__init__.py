"""Label-free adaptation: unlabelled images in, weights out."""
