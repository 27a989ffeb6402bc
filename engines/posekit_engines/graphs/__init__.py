"""ONNX graphs: the network, the points graph around it, and edits of both."""
