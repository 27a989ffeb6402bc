"""Accuracy of the embedded models, and of what follows them."""
