"""Images and videos to persons to learn from."""
