"""A stand-in for the module PyNvVideoCodec: its core decoder, on the stand-in libcuda's memory.

Names, arguments and their types are those of PyNvVideoCodec 2.2.4, and its memory is used as in
its sources: the frames of a call are in a pool that the next call overwrites, luma followed by
chroma, copied in the order of the given stream. FFmpeg decodes. The stand-in is stricter: it takes
only addresses and device memory, and for H.264 and HEVC only packets with start codes.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.chip import Chip

__version__ = "0.0.1"
OPENED: list[dict[str, Any]] = []
"""Arguments of CreateDecoder, in order."""
LIMITS = {"supported": 1, "width_min": 48, "width_max": 4096, "height_min": 16, "height_max": 4096}
LIMITS |= {"mb_num_max": 65536}


class PyNvVCException(Exception):
    pass


class PyNvVCExceptionUnsupported(Exception):
    pass


cudaVideoCodec = enum.Enum("cudaVideoCodec", ["H264", "HEVC", "VP8", "VP9", "AV1"])
cudaVideoChromaFormat = enum.Enum("cudaVideoChromaFormat", ["Monochrome", "420", "422", "444"])


class PacketData:
    """Fields are 64-bit integers: an address, a size, a time."""

    __slots__ = ("bsl", "bsl_data", "pts")

    def __init__(self) -> None:
        self.bsl = self.bsl_data = self.pts = 0

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is not int:
            raise TypeError(f"{name}: incompatible function arguments: {value!r}")
        object.__setattr__(self, name, value)


class CAIMemoryView:
    def __init__(self, data: int, shape: tuple[int, int, int], strides: tuple[int, int, int]):
        self.shape, self.stride, self.dataptr = list(shape), list(strides), data

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "strides": self.stride,
            "typestr": "|u1",
            "stream": 2,
            "data": (self.dataptr, False),
            "gpuIdx": 0,
        }


class DecodedFrame:
    def __init__(self, address: int, size: tuple[int, int], pts: int) -> None:
        self._address, self._size, self.timestamp = address, size, pts

    def getPTS(self) -> int:  # PyNvVideoCodec's name
        return self.timestamp

    def cuda(self) -> list[CAIMemoryView]:
        width, height = self._size
        luma = CAIMemoryView(self._address, (height, width, 1), (width, 1, 1))
        shape = (height // 2, width // 2, 2)
        return [luma, CAIMemoryView(self._address + width * height, shape, (width, 2, 1))]


class PyNvDecoder:
    def __init__(self, codec: Any, stream: int) -> None:
        self._codec, self._stream = codec, stream
        self._chip = Chip(codec.name.lower())
        self._pool: list[tuple[int, int]] = []  # addresses and bytes

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:
        data = ctypes.string_at(packet.bsl_data, packet.bsl) if packet.bsl else b""
        start = data[:4] in (b"\0\0\0\1",) or data[:3] == b"\0\0\1"
        if data and self._codec.name in ("H264", "HEVC") and not start:
            raise PyNvVCException("no start code")
        found = self._chip.decode(data, packet.pts)
        return [self._kept(n, nv12, pts) for n, (pts, nv12) in enumerate(found)]

    def _kept(self, number: int, nv12: NDArray[np.uint8], pts: int) -> DecodedFrame:
        if number == len(self._pool):
            address = ctypes.c_ulonglong()
            _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nv12.nbytes))
            self._pool.append((address.value, nv12.nbytes))
        place, size = self._pool[number]
        assert size == nv12.nbytes
        source = np.ascontiguousarray(nv12)
        _call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_ulonglong(place),
            ctypes.c_void_p(source.ctypes.data),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self._stream),
        )
        rows, width = nv12.shape
        return DecodedFrame(place, (width, rows * 2 // 3), pts)

    def __del__(self) -> None:
        for address, _ in self._pool:
            _call("cuMemFree_v2", ctypes.c_ulonglong(address))


def GetDecoderCaps(*, gpuid: int, codec: Any, chromaformat: Any, bitdepth: int) -> dict[str, int]:
    assert isinstance(codec, cudaVideoCodec)
    assert (gpuid, chromaformat.name, bitdepth) == (0, "420", 8)
    return dict(LIMITS)


def CreateDecoder(
    *, gpuid: int, codec: Any, cudacontext: int, cudastream: int, usedevicememory: bool
) -> PyNvDecoder:
    assert isinstance(codec, cudaVideoCodec)
    assert usedevicememory
    assert cudastream
    OPENED.append({"gpuid": gpuid, "codec": codec.name, "cudacontext": cudacontext})
    return PyNvDecoder(codec, cudastream)


def _call(function: str, *arguments: Any) -> None:
    status = getattr(ctypes.CDLL("libcuda.so.1"), function)(*arguments)
    if status:
        raise PyNvVCException(f"{function} : \nError code : {status}")
