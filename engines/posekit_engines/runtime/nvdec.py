"""NVDEC, the GPU's own video decoder, through NVIDIA's package PyNvVideoCodec where installed.

Its input are packets with start codes and time stamps, its output NV12 frames in PyNvVideoCodec's
memory, which the next packet overwrites: each is copied once, on the GPU, into a `FramePool` slot.
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
from posekit_engines.runtime.buffers import DecodedFrame, FramePool

PACKAGE = "PyNvVideoCodec"
_CODECS = {"h264": "H264", "hevc": "HEVC", "vp9": "VP9", "av1": "AV1"}
_MAX_CHARACTERS = 200  # characters of PyNvVideoCodec's errors, in a summary


def open_nvdec(device: Device, frames: FramePool) -> tuple[Nvdec | None, list[str]]:
    """NVDEC on this GPU, or None where its package is absent or fails to load; and notes."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None, []
    try:
        return Nvdec(importlib.import_module(PACKAGE), device, frames), []
    # it raises RuntimeError where libnvidia-encode is missing or the driver is too old
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, [f"video is decoded on the CPU: {PACKAGE} does not load ({_line(error)})"]


class Nvdec:
    """Opens decoders on `device`: a `posekit.video.SurfaceDecoders`.  nvc: PyNvVideoCodec."""

    def __init__(self, nvc: Any, device: Device, frames: FramePool) -> None:
        self.name = f"NVDEC, {PACKAGE} {nvc.__version__}"
        self._nvc, self._device, self._frames = nvc, device, frames
        self._failures = (nvc.PyNvVCException, nvc.PyNvVCExceptionUnsupported)
        self._capabilities: dict[str, dict[str, int]] = {}

    def open(self, coded: Coded) -> NvdecDecoder:
        """A decoder for such a video. Raises DeviceError: none on this GPU, or not of that size."""
        self._check(coded)
        stream = self._device.stream()
        with self.calling("CreateDecoder"):
            decoder = self._nvc.CreateDecoder(
                gpuid=self._device.info.index,
                codec=self._codec(coded),
                cudacontext=0,  # the primary context, which our drivers use too
                cudastream=stream.handle,
                usedevicememory=True,
            )
        return NvdecDecoder(self, decoder, stream, coded=coded)

    def packet(self, data: Any, pts: int) -> Any:
        """PacketData of uint8 (N,), which must outlive it; of None: the end of the stream."""
        packet = self._nvc.PacketData()
        packet.pts = pts
        if data is not None:
            packet.bsl_data, packet.bsl = data.ctypes.data, data.size
        return packet

    def copied(self, frame: Any, coded: Coded, stream: Stream) -> DecodedFrame:
        """A copy of PyNvVideoCodec's frame, queued on the stream that decoded it.

        Raises DeviceError.
        """
        planes = [view.__cuda_array_interface__ for view in frame.cuda()]
        width, height = coded.size
        wanted = [(height, width, 1), (height // 2, width // 2, 2)]
        found = [tuple(plane["shape"]) for plane in planes]
        pitches = {plane["strides"][0] for plane in planes if plane["strides"]}
        if found != wanted or pitches - {width}:
            raise DeviceError(
                f"{self.name}: planes {found} with rows {sorted(pitches)} bytes apart; wanted "
                f"{wanted}, {width} apart"
            )
        sources = [(int(plane["data"][0]), int(np.prod(plane["shape"]))) for plane in planes]
        slot = self._frames.copy_planes(sources, coded, stream)
        return DecodedFrame(self._frames, slot, coded, pts=int(frame.getPTS()))

    @contextlib.contextmanager
    def calling(self, function: str) -> Iterator[None]:
        """Make our context current and translate PyNvVideoCodec's errors to DeviceError."""
        builtin = (RuntimeError, ValueError, TypeError, AttributeError, KeyError)
        try:
            with self._device.driver.current():
                yield
        except (*self._failures, *builtin) as error:
            raise DeviceError(f"{self.name}: {function}: {_line(error)}") from error

    def _codec(self, coded: Coded) -> Any:
        if coded.codec not in _CODECS:
            raise DeviceError(f"{self.name}: has no decoder for {coded.codec}")
        return getattr(self._nvc.cudaVideoCodec, _CODECS[coded.codec])

    def _check(self, coded: Coded) -> None:
        """Such videos are within the decoder's limits, read once per codec. Raises DeviceError."""
        codec = self._codec(coded)
        with self.calling("GetDecoderCaps"):
            if coded.codec not in self._capabilities:
                chroma = getattr(self._nvc.cudaVideoChromaFormat, "420")
                self._capabilities[coded.codec] = self._nvc.GetDecoderCaps(
                    gpuid=self._device.info.index, codec=codec, chromaformat=chroma, bitdepth=8
                )
            caps = self._capabilities[coded.codec]
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
    """Decodes one video on one stream: a `posekit.video.SurfaceDecoder`."""

    def __init__(self, owner: Nvdec, decoder: Any, stream: Stream, *, coded: Coded) -> None:
        self._owner, self._decoder = owner, decoder
        self._stream, self._coded = stream, coded

    def decode(self, data: bytes, pts: int) -> list[Surface]:
        """The frames that are ready after this packet. Raises DeviceError."""
        return self._decoded(np.frombuffer(data, np.uint8), pts)

    def flush(self) -> list[Surface]:
        """The remaining frames. Raises DeviceError."""
        return self._decoded(None, 0)

    def close(self) -> None:
        """Free the decoder once the copies are done. Safe to call twice."""
        if self._decoder is not None:
            self._stream.synchronize()
            self._decoder = None

    def _decoded(self, data: Any, pts: int) -> list[Surface]:
        with self._owner.calling("Decode"):
            frames = self._decoder.Decode(self._owner.packet(data, pts))
            return [self._owner.copied(frame, self._coded, self._stream) for frame in frames]


def _line(error: Exception) -> str:
    """The start of an error's message, on one line."""
    return " ".join(str(error).split())[:_MAX_CHARACTERS]
