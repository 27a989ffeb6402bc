"""Frames in, frames out. RGB from here on.

`read` turns any source into an iterator of Frame; `VideoWriter` makes a video of images.
"""

from posekit.video.channel import QUEUE_BYTES
from posekit.video.decoding.surface import Coded, Surface, SurfaceDecoder, SurfaceDecoders, rgb_of
from posekit.video.encode import Codec, WriteOptions, suffix_of
from posekit.video.options import ReadOptions
from posekit.video.read import Reader, read
from posekit.video.sources import OUTPUT_FOLDER, Source, expand, is_live
from posekit.video.still import Still, still_frame
from posekit.video.write import VideoWriter

__all__ = [
    "OUTPUT_FOLDER",
    "QUEUE_BYTES",
    "Codec",
    "Coded",
    "ReadOptions",
    "Reader",
    "Source",
    "Still",
    "Surface",
    "SurfaceDecoder",
    "SurfaceDecoders",
    "VideoWriter",
    "WriteOptions",
    "expand",
    "is_live",
    "read",
    "rgb_of",
    "still_frame",
    "suffix_of",
]
