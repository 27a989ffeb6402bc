"""TensorRT engines: built, kept, loaded and run."""
