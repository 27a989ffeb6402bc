"""Poses on images, from arrays and a skeleton.

Below `posekit.types`, whose `Poses.draw` calls it.
"""
