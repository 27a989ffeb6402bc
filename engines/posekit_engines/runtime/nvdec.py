"""NVDEC, the GPU's own video decoder, through NVIDIA's package PyNvVideoCodec where installed.

Packets go in with start codes and time stamps; NV12 pictures come out in PyNvVideoCodec's memory,
which it uses again at the next packet: each is copied once, on the GPU, into a slot of `FramePool`.
Source: the class PyNvDecoder of PyNvVideoCodec 2.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from posekit.errors import DeviceError
from posekit.video import Coded, Surface
from posekit_engines.cuda.device import Device, Stream
from posekit_engines.runtime.buffers import Decoded, FramePool

PACKAGE = "PyNvVideoCodec"
_CODECS = {"h264": "H264", "hevc": "HEVC", "vp9": "VP9", "av1": "AV1"}
_ONE_LINE = 200  # characters of what PyNvVideoCodec says, in a summary


def decoders(device: Device, pictures: FramePool) -> tuple[Nvdec | None, list[str]]:
    """NVDEC on this GPU or, where the package is not there or does not load, None; and notes."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None, []
    try:
        return Nvdec(importlib.import_module(PACKAGE), device, pictures), []
    # It raises RuntimeError where libnvidia-encode is missing or the driver is old.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, [f"video is decoded on the CPU: {PACKAGE} does not load ({_line(error)})"]


class Nvdec:
    """Decoders on `device`: a `posekit.video.SurfaceDecoders`.  nvc: the module PyNvVideoCodec."""

    def __init__(self, nvc: Any, device: Device, pictures: FramePool) -> None:
        self.name = f"NVDEC, {PACKAGE} {nvc.__version__}"
        self._nvc, self._device, self._pictures = nvc, device, pictures
        self._failures = (nvc.PyNvVCException, nvc.PyNvVCExceptionUnsupported)
        self._able: dict[str, dict[str, int]] = {}

    def open(self, coded: Coded) -> NvdecDecoder:
        """A decoder of such a video. Raises DeviceError: this GPU has none, or not of that size."""
        self._check(coded)
        stream = self._device.stream()
        with self.asking("CreateDecoder"):
            decoder = self._nvc.CreateDecoder(
                gpuid=self._device.info.index,
                codec=self._codec(coded),
                cudacontext=0,  # the primary one, which our drivers use too
                cudastream=stream.handle,
                usedevicememory=True,
            )
        return NvdecDecoder(self, decoder, stream, coded=coded)

    def packet(self, data: Any, pts: int) -> Any:
        """PacketData of uint8 (N,), which must outlive it; of none: the end of the stream."""
        packet = self._nvc.PacketData()
        packet.pts = pts
        if data is not None:
            packet.bsl_data, packet.bsl = data.ctypes.data, data.size
        return packet

    def taken(self, frame: Any, coded: Coded, stream: Stream) -> Decoded:
        """A copy of a DecodedFrame, queued on the stream that made it. Raises DeviceError."""
        planes = [view.__cuda_array_interface__ for view in frame.cuda()]
        width, height = coded.size
        wanted = [(height, width, 1), (height // 2, width // 2, 2)]
        found = [tuple(plane["shape"]) for plane in planes]
        pitches = {plane["strides"][0] for plane in planes if plane["strides"]}
        if found != wanted or pitches - {width}:
            raise DeviceError(
                f"{self.name}: gives planes {found}, rows {sorted(pitches)} bytes apart; wanted "
                f"{wanted}, {width} apart"
            )
        places = [(int(plane["data"][0]), int(np.prod(plane["shape"]))) for plane in planes]
        slot = self._pictures.copied(places, coded, stream)
        return Decoded(self._pictures, slot, coded, pts=int(frame.getPTS()))

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Our context is current, and PyNvVideoCodec's errors become DeviceError."""
        usual = (RuntimeError, ValueError, TypeError, AttributeError, KeyError)
        try:
            with self._device.driver.current():
                yield
        except (*self._failures, *usual) as error:
            raise DeviceError(f"{self.name}: {what}: {_line(error)}") from error

    def _codec(self, coded: Coded) -> Any:
        if coded.codec not in _CODECS:
            raise DeviceError(f"{self.name}: has no decoder of {coded.codec}")
        return getattr(self._nvc.cudaVideoCodec, _CODECS[coded.codec])

    def _check(self, coded: Coded) -> None:
        """What the chip says of such videos, asked once for each codec. Raises DeviceError."""
        codec = self._codec(coded)
        with self.asking("GetDecoderCaps"):
            if coded.codec not in self._able:
                chroma = getattr(self._nvc.cudaVideoChromaFormat, "420")
                self._able[coded.codec] = self._nvc.GetDecoderCaps(
                    gpuid=self._device.info.index, codec=codec, chromaformat=chroma, bitdepth=8
                )
            caps = self._able[coded.codec]
            (width, height), blocks = coded.size, caps["mb_num_max"]
            fits = caps["width_min"] <= width <= caps["width_max"]
            fits &= caps["height_min"] <= height <= caps["height_max"]
            fits &= -(-width // 16) * -(-height // 16) <= blocks
        if not caps["supported"]:
            raise DeviceError(f"{self.name}: this GPU does not decode {coded.codec}")
        if not fits:
            raise DeviceError(
                f"{self.name}: this GPU decodes {coded.codec} of up to {caps['width_max']} x "
                f"{caps['height_max']} px, not {width} x {height}"
            )


class NvdecDecoder:
    """Decodes one video: a `posekit.video.SurfaceDecoder`. All its work is on one stream."""

    def __init__(self, owner: Nvdec, decoder: Any, stream: Stream, *, coded: Coded) -> None:
        self._owner, self._decoder = owner, decoder
        self._stream, self._coded = stream, coded

    def decode(self, data: bytes, pts: int) -> list[Surface]:
        """A packet in; pictures that are ready. Raises DeviceError."""
        return self._decoded(np.frombuffer(data, np.uint8), pts)

    def flush(self) -> list[Surface]:
        """What is left. Raises DeviceError."""
        return self._decoded(None, 0)

    def close(self) -> None:
        """Give the chip back once the copies are done. Safe to call twice."""
        if self._decoder is not None:
            self._stream.finish()
            self._decoder = None

    def _decoded(self, data: Any, pts: int) -> list[Surface]:
        with self._owner.asking("Decode"):
            frames = self._decoder.Decode(self._owner.packet(data, pts))
            return [self._owner.taken(frame, self._coded, self._stream) for frame in frames]


def _line(error: Exception) -> str:
    """What an error says, in one line and not at length."""
    return " ".join(str(error).split())[:_ONE_LINE]
