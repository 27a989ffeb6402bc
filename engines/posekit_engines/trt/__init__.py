"""TensorRT engines: built, cached, loaded and run."""
