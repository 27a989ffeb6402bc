"""Label-free adaptation: unlabeled images and videos in, better weights out."""
