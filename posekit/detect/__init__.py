"""Where the persons are: found by a network, read from a file, or simply the whole frame."""

from posekit.detect.box_file import BoxFile
from posekit.detect.detector import Detector, full_frame
from posekit.detect.formats import Graph

__all__ = ["BoxFile", "Detector", "Graph", "full_frame"]
