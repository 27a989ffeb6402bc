"""Where the persons are: detected by a network, read from a file, or the whole frame."""

from posekit.detect.box_file import MAX_BOXES, BoxFile
from posekit.detect.detector import Detector, full_frame
from posekit.detect.formats import Graph

__all__ = ["MAX_BOXES", "BoxFile", "Detector", "Graph", "full_frame"]
