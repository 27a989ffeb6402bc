"""Where the persons are: found by a network, read from a file, or simply the whole frame."""

from posekit.detect.box_file import BoxFile
from posekit.detect.detector import Detector, full_frame

__all__ = ["BoxFile", "Detector", "full_frame"]
