"""The CUDA driver: devices, buffers, streams, and kernels compiled by NVRTC."""
