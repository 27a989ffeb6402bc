"""`posekit gpu-check`: check and time posekit's kernels and engines on an NVIDIA GPU."""
