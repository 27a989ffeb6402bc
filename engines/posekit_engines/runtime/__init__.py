"""posekit's own runtime on an NVIDIA GPU."""
