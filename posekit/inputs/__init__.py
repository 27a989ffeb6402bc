"""What comes from outside, checked before it is used: numbers, JSON, COCO, ONNX graphs."""
