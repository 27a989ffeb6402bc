"""A decoder chip's part, played by FFmpeg: bare packets with start codes in, NV12 bytes out."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


class Chip:
    """Knows of a video only what its packets say: no container, no extradata."""

    def __init__(self, codec: str) -> None:
        context: Any = av.CodecContext.create(codec, "r")
        context.thread_count = 1
        self._context = context

    def decode(self, data: bytes, pts: int) -> list[tuple[int, UInt8]]:
        """Time stamps and (H 3 / 2, W) of the images that are ready; no data: of all."""
        packet = None
        if data:
            packet = Packet(data)
            packet.pts = packet.dts = pts
        try:
            frames = self._context.decode(packet)
        except av.error.EOFError:  # flushed twice
            return []
        return [(frame.pts, nv12_of(frame)) for frame in frames]


def nv12_of(frame: Any) -> UInt8:
    """The bytes of a yuv420p frame, its chroma interleaved."""
    planar = frame.to_ndarray()
    height = frame.height
    pairs = planar[height:].reshape(2, -1).T.reshape(-1, frame.width)
    return np.concatenate([planar[:height], pairs])
