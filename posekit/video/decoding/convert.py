"""Decoded frames to RGB frames with square pixels: by the stream's matrix and range, upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from posekit.types import Frame, UInt8
from posekit.video.decoding.pool import Pool
from posekit.video.decoding.streams import square_size
from posekit.video.decoding.surface import Surface, SurfaceFrame
from posekit.video.options import Info

Matrix = NDArray[np.int32]  # nine integers


@dataclass(frozen=True)
class Decoded:
    """A decoded frame in the codec's own format; `Converter` makes a Frame of it."""

    frame: VideoFrame | Surface
    index: int
    time_s: float


class Converter:
    """Decoded frames to RGB frames: pixels made square by `info.pixel_aspect`, then upright."""

    def __init__(self, pool: Pool, info: Info) -> None:
        self._pool, self._info = pool, info
        # by rotation, since reading a frame's side data keeps its memory from the decoder
        self._matrices: dict[int, Matrix | None] = {}

    def __call__(self, decoded: Decoded) -> Frame:
        """A Frame whose image is contiguous and of its own, or stays on the GPU."""
        if not isinstance(decoded.frame, VideoFrame):
            return SurfaceFrame(decoded.frame, decoded.index, decoded.time_s)
        image = self._rgb(decoded.frame)
        matrix = self._matrix(decoded.frame)
        if matrix is not None:
            image = upright(image, matrix)
        return Frame(self._pool.copy(image), decoded.index, decoded.time_s)

    def _rgb(self, frame: VideoFrame) -> UInt8:
        aspect = self._info.pixel_aspect
        if aspect == 1:
            return frame.to_ndarray(format="rgb24").view(np.uint8)
        width, height = square_size((frame.width, frame.height), aspect)
        square = frame.to_ndarray(
            format="rgb24", width=width, height=height, interpolation="BICUBIC"
        )
        return square.view(np.uint8)

    def _matrix(self, frame: VideoFrame) -> Matrix | None:
        if frame.rotation not in self._matrices:
            data = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[frame.rotation] = (
                None if data is None else np.frombuffer(bytes(cast("SideData", data)), np.int32)
            )
        return self._matrices[frame.rotation]


def upright(image: UInt8, matrix: Matrix) -> UInt8:
    """`image` (H, W, 3) turned by a display matrix (9 integers): quarter turns and mirrors.

    The matrix takes a stored (p, q) to a shown (a p + c q, b p + d q); other angles are ignored.
    """
    a, b, c, d = (int(matrix[k]) for k in (0, 1, 3, 4))
    shown: cv2.typing.MatLike = image
    if abs(b) > abs(a):
        shown, a, d = cv2.transpose(image), c, b
    if a < 0 or d < 0:
        shown = cv2.flip(shown, -1 if a < 0 and d < 0 else (1 if a < 0 else 0))
    return np.asarray(shown, np.uint8)
