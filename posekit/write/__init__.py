"""Poses to files: JSON Lines, COCO, CSV, Parquet, OpenPose, Label Studio, DeepLabCut, HTML."""

from posekit.write.header import Header
from posekit.write.writers import SUFFIXES, Writers, open_writers, output_paths

__all__ = ["SUFFIXES", "Header", "Writers", "open_writers", "output_paths"]
