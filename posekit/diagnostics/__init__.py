"""What a model and this machine can do, measured."""
