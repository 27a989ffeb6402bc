"""Inputs on which each CUDA kernel is compared with its numpy reference."""
