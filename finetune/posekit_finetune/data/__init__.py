"""Images and videos in, person patches out."""
