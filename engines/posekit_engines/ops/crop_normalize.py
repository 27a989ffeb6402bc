"""Launch of `crop_normalize`: frames to normalized crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.types import ModelSpec
from posekit_engines.cuda.device import Buffer, Device, Stream
from posekit_engines.cuda.driver import Launch
from posekit_engines.kernels import THREADS
from posekit_engines.ops.launch import DTYPE_SUFFIX, check_person_count, check_rows

Format = Literal["rgb", "nv12"]
CROP_NORMALIZE = np.dtype(
    [
        ("frames", np.uint64),
        ("frame_of", np.uint64),
        ("to_frame", np.uint64),
        ("crops", np.uint64),
        ("mirrored", np.uint64),
        ("size", np.int32, 2),  # width, height
        ("bgr", np.int32),
        ("scale", np.float32, 3),
        ("bias", np.float32, 3),
        ("luma", np.float32, 2),
        ("chroma", np.float32, 4),
    ],
    align=True,
)
FRAME = np.dtype(
    [
        ("pixels", np.uint64),
        ("chroma", np.uint64),
        ("width", np.int32),
        ("height", np.int32),
        ("pitch", np.int32),
        ("chroma_pitch", np.int32),
    ],
    align=True,
)
"""One frame on the GPU: addresses, size in px, bytes between rows; chroma of NV12 only."""

_QUAD = 4  # pixels of a row per thread of crop_normalize


@dataclass(frozen=True)
class ColorMatrix:
    """Conversion of Y, U, V bytes to red, green, blue in [0, 255].

    gray = luma[1] (Y - luma[0]); red = gray + chroma[0] V; green = gray - chroma[1] U -
    chroma[2] V; blue = gray + chroma[3] U; U and V less 128.
    """

    luma: tuple[float, float]
    chroma: tuple[float, float, float, float]

    @classmethod
    def of(cls, red: float, blue: float, *, full_range: bool = False) -> ColorMatrix:
        """From the weights of red and blue in luma (BT.601 0.299, 0.114; BT.709 0.2126, 0.0722).

        Source: ITU-R BT.601-7 and BT.709-6, 8 bit.
        """
        green = 1 - red - blue
        high, wide = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
        v, u = 2 * (1 - red) * wide, 2 * (1 - blue) * wide
        offset = 0.0 if full_range else 16.0
        return cls((offset, high), (v, u * blue / green, v * red / green, u))


BT601 = ColorMatrix.of(0.299, 0.114)
BT709 = ColorMatrix.of(0.2126, 0.0722)


@dataclass(frozen=True)
class Frames:
    """F frames on the GPU, and which of them each person is cropped from.

    table: FRAME (F,).  frame_of: int32 (N,).  format: of all.  color: converts NV12 to RGB.
    """

    table: Buffer
    frame_of: Buffer
    format: Format = "rgb"
    color: ColorMatrix = BT709


def frame_table(rows: list[tuple[int, int, int, int]], format: Format) -> NDArray[Any]:  # noqa: A002
    """FRAME (F,) of (address, width, height, pitch) each; a frame is one buffer.

    NV12's chroma follows the luma's rows and has the same pitch. Raises InputError.
    """
    table = np.zeros(len(rows), FRAME)
    for row, (address, width, height, pitch) in zip(table, rows, strict=True):
        if pitch < width * (3 if format == "rgb" else 1):
            raise InputError(f"frame: a pitch of {pitch} bytes is below {width} {format} pixels")
        if format == "nv12" and (width % 2 or height % 2):
            raise InputError(f"frame: NV12 needs an even width and height, got {width} x {height}")
        chroma = address + pitch * height if format == "nv12" else 0
        row["pixels"], row["chroma"] = address, chroma
        row["width"], row["height"], row["pitch"] = width, height, pitch
        row["chroma_pitch"] = pitch if format == "nv12" else 0
    return table


@dataclass(frozen=True)
class Crops:
    """Output addresses of `crop_normalize`, (count, 3, h, w) each; mirrored: 0 for none."""

    address: int
    mirrored: int
    count: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, crops: Buffer, count: int, *, flip: bool) -> Crops:
        """An engine's input (N, 3, h, w): `count` crops, with `flip` followed by the mirrored ones.

        Raises InputError.
        """
        if len(crops.shape) != 4 or crops.shape[0] < count * (1 + flip):
            raise InputError(f"crops: wanted {count * (1 + flip)} or more, got {crops.shape}")
        size = count * int(np.prod(crops.shape[1:])) * crops.dtype.itemsize
        return cls(crops.address, crops.address + size if flip else 0, count, crops.dtype)


def crop_normalize(
    device: Device,
    frames: Frames,
    spec: ModelSpec,
    *,
    crops: Crops,
    to_frame: Buffer,
    stream: Stream | None = None,
) -> None:
    """Queue one launch: persons cropped, normalized, and mirrored, as the network takes them.

    to_frame: float32 (N, 2, 3), crop px to frame px (`Warp.inverse`).
    Raises InputError, KernelError.
    """
    if crops.dtype not in DTYPE_SUFFIX:
        raise InputError(f"crops: wanted float16 or float32, got {crops.dtype}")
    check_rows("to_frame", to_frame, (crops.count, 2, 3))
    if frames.frame_of.dtype != np.int32 or frames.frame_of.nbytes < 4 * crops.count:
        raise InputError(f"frame_of: wanted int32 ({crops.count},), got {frames.frame_of}")
    if crops.count == 0:
        return
    width, height = spec.input_size
    argument = np.zeros((), CROP_NORMALIZE)
    argument["frames"], argument["frame_of"] = frames.table.address, frames.frame_of.address
    argument["to_frame"] = to_frame.address
    argument["crops"], argument["mirrored"] = crops.address, crops.mirrored
    argument["size"], argument["bgr"] = (width, height), spec.color == "bgr"
    mean, std = np.array(spec.mean), np.array(spec.std)
    argument["scale"], argument["bias"] = 1 / std, -mean / std
    argument["luma"], argument["chroma"] = frames.color.luma, frames.color.chroma
    blocks = -(-(-(-width // _QUAD) * height) // THREADS)
    launch = Launch((blocks, check_person_count(crops.count), 1), THREADS, 0, argument.tobytes())
    name = f"crop_normalize_{frames.format}_{DTYPE_SUFFIX[crops.dtype]}"
    device.launch("crop_normalize", name, launch=launch, stream=stream)
