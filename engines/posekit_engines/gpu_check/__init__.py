"""`posekit gpu-check`: what an NVIDIA GPU really does with posekit's kernels and engines."""
