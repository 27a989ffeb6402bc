"""Programs that measure posekit, one a question: `python -m benchmarks` lists them."""
