"""Videos decoded on a GPU: the interface of a decoder there, and the frames that it gives.

Containers, times, seeking and rotation stay PyAV's; only packets go to the GPU. The decoder
is passed in (a runtime's `decoders`), since this package has no GPU code.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import av
import av.error
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posekit.errors import DeviceError
from posekit.types import Frame, UInt8
from posekit.video.decoding.container import open_input, video_stream
from posekit.video.decoding.streams import pixel_aspect
from posekit.video.options import ReadOptions
from posekit.video.sources import Source

# MP4 keeps lengths and parameter sets apart; a decoder chip wants start codes, sets in between.
_ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_CODECS = ("h264", "hevc", "vp9", "av1")
_EIGHT_BIT = ("yuv420p", "yuvj420p")
# AVColorSpace: 1 is BT.709, 5 and 6 are BT.601; 2, unspecified, FFmpeg takes for BT.601 too.
_BT709, _BT601 = 1, (2, 5, 6)
_FULL = 2  # AVColorRange


@dataclass(frozen=True)
class Coded:
    """A video as it is stored: 8-bit 4:2:0, upright, progressive, with time stamps.

    codec: FFmpeg's name.  size: (W, H), even.  bt709: RGB by BT.709, else BT.601.
    full_range: bytes from 0 to 255, else luma from 16 to 235.
    """

    codec: str
    size: tuple[int, int]
    bt709: bool = False
    full_range: bool = False


class Surface(Protocol):
    """A frame on a GPU as NV12, for as long as this is held."""

    @property
    def coded(self) -> Coded:
        """The video that it is of."""
        ...

    @property
    def pts(self) -> int:
        """The time stamp of its packet."""
        ...

    def nv12(self) -> UInt8:
        """A copy on the host, (H 3 / 2, W): luma, then U and V in turn. Raises DeviceError."""
        ...


class SurfaceDecoder(Protocol):
    """Decodes one video. Raises DeviceError where it cannot go on."""

    def decode(self, data: bytes, pts: int) -> list[Surface]:
        """A packet in, in the file's order; frames that are ready, in display order."""
        ...

    def flush(self) -> list[Surface]:
        """What is left, at the end of the packets."""
        ...

    def close(self) -> None:
        """Nothing more comes; surfaces that are held stay. Safe to call twice."""
        ...


class SurfaceDecoders(Protocol):
    """Opens decoders on a GPU.  name: for summaries."""

    name: str

    def open(self, coded: Coded) -> SurfaceDecoder:
        """A decoder of such a video. Raises DeviceError: this GPU has none."""
        ...


class SurfaceFrame(Frame):
    """A Frame whose image lies on a GPU: `image` is copied to the host when it is first read."""

    def __init__(self, surface: Surface, index: int, time_s: float) -> None:
        vars(self).update(index=index, time_s=time_s, name="")
        self._surface, self._lock = surface, threading.Lock()
        self._image: UInt8 | None = None

    @property
    def image(self) -> UInt8:
        """uint8 (H, W, 3) RGB, as FFmpeg makes it of these bytes. Raises DeviceError."""
        with self._lock:
            if self._image is None:
                self._image = rgb_of(self._surface.nv12(), self._surface.coded)
            return self._image

    @property
    def size(self) -> tuple[int, int]:
        """(W, H), px; makes no copy."""
        return self._surface.coded.size

    @property
    def pixels(self) -> Surface:
        """What the GPU's runtime cuts persons out of."""
        return self._surface

    def __repr__(self) -> str:
        return f"SurfaceFrame(size={self.size}, index={self.index}, time_s={self.time_s:.3f})"


def rgb_of(nv12: UInt8, coded: Coded) -> UInt8:
    """(H 3 / 2, W), luma, then U and V in turn, to uint8 (H, W, 3) RGB by FFmpeg."""
    width, height = coded.size
    planar = np.empty_like(nv12)
    planar[:height] = nv12[:height]
    # yuv420p, as a decoder on the CPU gives it: FFmpeg rounds NV12 a little differently.
    chroma = nv12[height:].reshape(-1, 2)
    planar[height:] = chroma.T.reshape(-1, width)
    frame = VideoFrame.from_ndarray(planar, format="yuv420p")
    frame.colorspace = _BT709 if coded.bt709 else _BT601[0]
    frame.color_range = _FULL if coded.full_range else 0
    return frame.to_ndarray(format="rgb24").view(np.uint8)


def coded_as(source: Source, options: ReadOptions) -> Coded:
    """How a file is stored, by its first frame, which the CPU decodes for that.

    Raises DeviceError: only the CPU decodes such a video here. SourceError: it cannot be read.
    """
    with open_input(source, options) as container:
        stream = video_stream(container, source)
        try:
            frame = next(iter(container.decode(stream)), None)
        except av.FFmpegError as error:
            raise DeviceError("its first frame is damaged") from error
        if frame is None:
            raise DeviceError("no frame in it could be decoded")
        codec = stream.codec_context.name
        if why := _unfit(codec, frame):
            raise DeviceError(why)
        if pixel_aspect(stream) != 1:
            raise DeviceError("its pixels are not square")
        full = frame.format.name == "yuvj420p" or frame.color_range == _FULL
        size = (frame.width, frame.height)
        return Coded(codec, size, bt709=frame.colorspace == _BT709, full_range=full)


def _unfit(codec: str, frame: VideoFrame) -> str:
    """Why a video is decoded on the CPU, in half a sentence; "" where a GPU may do it."""
    reasons = {
        f"its codec is {codec}, not one of {', '.join(_CODECS)}": codec not in _CODECS,
        f"its frames are {frame.format.name}, not 8-bit 4:2:0": frame.format.name not in _EIGHT_BIT,
        f"{frame.width} x {frame.height} px: an odd side": frame.width % 2 or frame.height % 2,
        "it is shown turned or mirrored": frame.side_data.get("DISPLAYMATRIX") is not None,
        "it is interlaced": frame.interlaced_frame,
        "its colors are of another kind than BT.601 or BT.709": frame.colorspace
        not in (_BT709, *_BT601),
        "it has no time stamps": frame.pts is None,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class OnGpu:
    """Stands where PyAV's decoder stands: packets of a stream in, surfaces out in order of time.

    What comes out is checked against what went in, by time stamps. Raises DeviceError.
    """

    def __init__(self, decoders: SurfaceDecoders, coded: Coded, stream: VideoStream) -> None:
        self._decoders, self._coded, self._stream = decoders, coded, stream
        self._begin()

    def _begin(self) -> None:
        self._decoder = self._decoders.open(self._coded)
        name = _ANNEX_B.get(self._coded.codec)
        self._filter = None if name is None else BitStreamFilterContext(name, self._stream)
        self._waiting: dict[int, bool] = {}  # time stamps of packets; whether they are shown
        self._newest: int | None = None

    def restart(self) -> None:
        """Packets from another place of the file come next. Raises DeviceError."""
        self.close()
        self._begin()

    def decode(self, packet: Packet[VideoStream] | None) -> list[Surface]:
        """What is ready after a packet; after an empty one or None, all that is left.

        Raises DeviceError.
        """
        if packet is None or packet.size == 0:
            rest = [] if self._filter is None else self._filter.filter(None)
            self._filter = None
            found = [each for part in rest for each in self._fed(part)]
            return self._checked([*found, *self._decoder.flush()])
        if packet.pts is None:
            raise DeviceError("a packet has no time stamp")
        self._waiting[packet.pts] = not packet.is_discard
        parts = [packet] if self._filter is None else self._filter.filter(packet)
        return self._checked([each for part in parts for each in self._fed(part)])

    def close(self) -> None:
        """Nothing more comes. Safe to call twice."""
        self._decoder.close()

    def _fed(self, packet: Packet[VideoStream]) -> list[Surface]:
        return self._decoder.decode(bytes(packet), packet.pts or 0)

    def _checked(self, found: list[Surface]) -> list[Surface]:
        """Those that are to be shown. Raises DeviceError: time stamps that are no packet's."""
        shown = []
        for surface in found:
            late = self._newest is not None and surface.pts <= self._newest
            if late or surface.pts not in self._waiting:
                raise DeviceError(f"a frame came with the time stamp {surface.pts}, out of order")
            self._newest = surface.pts
            if self._waiting.pop(surface.pts):
                shown.append(surface)
        return shown
