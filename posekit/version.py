"""The version of posekit, below everything else."""

from __future__ import annotations

__version__ = "0.1.0"
