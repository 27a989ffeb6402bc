"""The launches around the network, on buffers of the GPU: one each for a whole batch.

They only queue work and allocate nothing, so that a CUDA graph can record them. What they answer
stands in `posekit_engines.twin`; what they read and write, in the head of `kernels/<name>.cu`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.multiview import View, cells_of
from posekit.types import ModelSpec
from posekit_engines.cuda import Buffer, Device, Launch, Stream
from posekit_engines.kernels import THREADS

Format = Literal["rgb", "nv12"]

# The kernels' structs; a test compares their sizes and meaning with the sources.
DECODE_FLIP = np.dtype(
    [
        ("maps", np.uint64),
        ("mirrored", np.uint64),
        ("mirror", np.uint64),
        ("blur", np.uint64),
        ("to_frame", np.uint64),
        ("out", np.uint64),
        ("strides", np.int64, 3),
        ("size", np.int32, 2),  # height, width
        ("refine", np.int32),
        ("blur_side", np.int32),
        ("whole", np.int32),
        ("toward", np.int32),
        ("share", np.float32),
        ("scale", np.float32, 2),
        ("offset", np.float32, 2),
    ],
    align=True,
)
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
FUSE_VIEWS = np.dtype(
    [
        ("maps", np.uint64),
        ("found", np.uint64),
        ("to_view", np.uint64),
        ("holder", np.uint64),
        ("out", np.uint64),
        ("views", np.int32),
        ("size", np.int32, 2),  # height, width
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
"""One picture on the GPU: addresses, size in px, bytes from row to row; chroma of NV12 only."""

_QUAD = 4  # pixels of a row that a thread of crop_normalize makes
_REFINE = {"argmax": 0, "quarter": 1, "quarter-axis": 2, "dark": 3, "udp": 4}
_SUFFIX = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32"}
_MOST_PERSONS = 65535  # blocks along a grid's second or third axis
_MOST_SHARED = 48 << 10  # bytes that any GPU gives a block without being asked


@dataclass(frozen=True)
class Maps:
    """Heatmaps on the GPU.  shape: (N, K, h, w).  dtype: float16 or float32.

    address, mirrored: of the maps of the crops and of the mirrored crops, 0 where there are none.
    strides: in cells from person to person, keypoint to keypoint, row to row; None: dense.
    """

    address: int
    mirrored: int
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    strides: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, maps: Buffer, count: int, *, flip: bool) -> Maps:
        """Of an engine's output: (count, K, h, w) or, with `flip`, as many mirrored behind them.

        Raises InputError.
        """
        if len(maps.shape) != 4 or maps.shape[0] < count * (1 + flip):
            raise InputError(
                f"heatmaps: wanted (N, K, h, w) with N >= {count * (1 + flip)}, got {maps.shape}"
            )
        _, keypoints, height, width = maps.shape
        size = count * keypoints * height * width * maps.dtype.itemsize
        mirrored = maps.address + size if flip else 0
        return cls(maps.address, mirrored, (count, keypoints, height, width), maps.dtype)

    @property
    def dense(self) -> tuple[int, int, int]:
        """The strides in cells."""
        _, keypoints, height, width = self.shape
        return self.strides or (keypoints * height * width, height * width, width)


@dataclass(frozen=True)
class DecodeTables:
    """What `decode_flip` needs of a spec, on the GPU: the mirror indices and the blur's line."""

    spec: ModelSpec
    mirror: Buffer
    blur: Buffer

    @classmethod
    def of(cls, device: Device, spec: ModelSpec) -> DecodeTables:
        """Made once for a model; uploads. Raises DeviceError."""
        mirror = np.array(spec.skeleton.mirror, np.int32)
        return cls(spec, device.uploaded(mirror), device.uploaded(blur_line(spec.blur)))


def blur_line(blur: int) -> NDArray[np.float32]:
    """The Gaussian that `codecs.blur_matrix` shifts, (blur,) float32, sum 1."""
    sigma = 0.3 * ((blur - 1) / 2 - 1) + 0.8
    line = np.exp(-((np.arange(blur) - blur // 2) ** 2) / (2 * sigma**2))
    return np.asarray(line / line.sum(), np.float32)


def decode_flip(
    device: Device,
    maps: Maps,
    tables: DecodeTables,
    *,
    out: Buffer,
    to_frame: Buffer | None = None,
    stream: Stream | None = None,
) -> None:
    """Queue one launch: heatmaps to `out` float32 (N, K, 3), x, y and score.

    x, y are crop px or, with `to_frame` float32 (N, 2, 3) (crop px to frame px), frame px.
    Raises InputError, KernelError.
    """
    spec, (persons, keypoints, height, width) = tables.spec, maps.shape
    wanted = (len(spec.skeleton), spec.heatmap_size[1], spec.heatmap_size[0])
    if maps.shape[1:] != wanted or maps.dtype not in _SUFFIX:
        raise InputError(
            f"heatmaps: wanted float16 or float32 (N, {', '.join(map(str, wanted))}), got "
            f"{maps.dtype} {maps.shape}"
        )
    _check_rows("out", out, (persons, keypoints, 3))
    if to_frame is not None:
        _check_rows("to_frame", to_frame, (persons, 2, 3))
    if persons == 0:
        return
    argument = np.zeros((), DECODE_FLIP)
    argument["maps"], argument["mirrored"] = maps.address, maps.mirrored
    argument["mirror"], argument["blur"] = tables.mirror.address, tables.blur.address
    argument["to_frame"] = 0 if to_frame is None else to_frame.address
    argument["out"] = out.address
    argument["strides"], argument["size"] = maps.dense, (height, width)
    argument["refine"], argument["blur_side"] = _REFINE[spec.decode], spec.blur
    whole = math.trunc(spec.flip_shift)
    part = spec.flip_shift - whole
    argument["whole"] = max(1 - width, min(width - 1, whole))
    argument["toward"], argument["share"] = (part > 0) - (part < 0), abs(part)
    argument["scale"], argument["offset"] = spec.map_scale, spec.map_offset
    grid = (keypoints, _persons(persons), 1)
    launch = Launch(grid, THREADS, _decode_shared(spec), argument.tobytes())
    name = f"decode_flip_{_SUFFIX[maps.dtype]}"
    device.launch("decode_flip", name, launch=launch, stream=stream)


def _decode_shared(spec: ModelSpec) -> int:
    """Bytes for a block: a key a warp; for DARK and UDP the patch, its rows and two squares."""
    size = 8 * (THREADS // 32)
    if spec.decode in ("dark", "udp"):
        reach = 2 if spec.decode == "dark" else 1
        side, kept = 2 * (reach + spec.blur // 2) + 1, 2 * reach + 1
        size += 4 * (side * side + side * kept + 2 * kept * kept)
    if size > _MOST_SHARED:
        raise InputError(
            f"spec: blurring over {spec.blur} cells needs {size} bytes of shared memory, a GPU "
            f"gives {_MOST_SHARED}; choose a smaller blur"
        )
    return size


@dataclass(frozen=True)
class ViewTables:
    """What `fuse_views` needs of V views and a spec, on the GPU.

    to_view: float32 (V, 2, 3), cells of the crop to cells of the view.  holder: int32 (V, K),
    which of the view's maps holds a keypoint.
    """

    to_view: Buffer
    holder: Buffer

    @classmethod
    def of(cls, device: Device, spec: ModelSpec, views: Sequence[View]) -> ViewTables:
        """Made once for a model; uploads. Raises DeviceError."""
        cells = np.stack([cells_of(view, spec) for view in views]).astype(np.float32)
        own = np.arange(len(spec.skeleton))
        holder = [spec.skeleton.mirror if view.mirrored else own for view in views]
        return cls(device.uploaded(cells), device.uploaded(np.array(holder, np.int32)))


def fuse_views(
    device: Device,
    maps: Maps,
    tables: ViewTables,
    *,
    found: Buffer,
    out: Buffer,
    stream: Stream | None = None,
) -> None:
    """Queue one launch: dense maps of N V views to `out` float32 (N, K, h, w), their mean.

    found: float32 (N V, K, 3), what `decode_flip` says of those maps: their peaks weigh them.
    Raises InputError, KernelError.
    """
    images, keypoints, height, width = maps.shape
    views = tables.holder.shape[0]
    if images % views or maps.strides is not None or maps.mirrored or maps.dtype not in _SUFFIX:
        raise InputError(
            f"views: wanted dense float16 or float32 maps of {views} views a person, got "
            f"{maps.dtype} {maps.shape}"
        )
    _check_rows("found", found, (images, keypoints, 3))
    _check_rows("out", out, (images // views, keypoints, height, width))
    if images == 0:
        return
    argument = np.zeros((), FUSE_VIEWS)
    argument["maps"], argument["found"] = maps.address, found.address
    argument["to_view"], argument["holder"] = tables.to_view.address, tables.holder.address
    argument["out"], argument["views"], argument["size"] = out.address, views, (height, width)
    grid = (-(-height * width // THREADS), keypoints, _persons(images // views))
    launch = Launch(grid, THREADS, 4 * views, argument.tobytes())
    name = f"fuse_views_{_SUFFIX[maps.dtype]}"
    device.launch("fuse_views", name, launch=launch, stream=stream)


@dataclass(frozen=True)
class ColorMatrix:
    """From the bytes of Y, U, V to red, green, blue (0..255), as numbers.

    grey = luma[1] (Y - luma[0]); red = grey + chroma[0] V; green = grey - chroma[1] U -
    chroma[2] V; blue = grey + chroma[3] U; U and V less 128.
    """

    luma: tuple[float, float]
    chroma: tuple[float, float, float, float]

    @classmethod
    def of(cls, red: float, blue: float, *, full_range: bool = False) -> ColorMatrix:
        """By the weights of red and blue in the luma (BT.601 0.299, 0.114; BT.709 0.2126, 0.0722).

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
    """Pictures on the GPU, and which of them each person is cut from.

    table: FRAME (F,).  frame_of: int32 (N,).  format: of all.  color: how NV12 becomes RGB.
    """

    table: Buffer
    frame_of: Buffer
    format: Format = "rgb"
    color: ColorMatrix = BT709


def frame_table(pictures: list[tuple[int, int, int, int]], format: Format) -> NDArray[Any]:  # noqa: A002
    """FRAME (F,) of (address, width, height, pitch) each, all of one buffer a picture.

    NV12's chroma begins where the luma's rows end and has its pitch. Raises InputError.
    """
    table = np.zeros(len(pictures), FRAME)
    for row, (address, width, height, pitch) in zip(table, pictures, strict=True):
        if pitch < width * (3 if format == "rgb" else 1):
            raise InputError(f"frame: a pitch of {pitch} bytes is below {width} {format} pixels")
        if format == "nv12" and (width % 2 or height % 2):
            raise InputError(f"frame: NV12 needs even sides, got {width} x {height}")
        chroma = address + pitch * height if format == "nv12" else 0
        row["pixels"], row["chroma"] = address, chroma
        row["width"], row["height"], row["pitch"] = width, height, pitch
        row["chroma_pitch"] = pitch if format == "nv12" else 0
    return table


@dataclass(frozen=True)
class Crops:
    """Where `crop_normalize` writes (count, 3, h, w) cells; mirrored: 0 for none."""

    address: int
    mirrored: int
    count: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, crops: Buffer, count: int, *, flip: bool) -> Crops:
        """An engine's input (N, 3, h, w): the first `count`, with `flip` as many mirrored behind.

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
    """Queue one launch: persons cut out, normalised, and mirrored, as the network takes them.

    to_frame: float32 (N, 2, 3), crop px to frame px (`Warp.inverse`).
    Raises InputError, KernelError.
    """
    if crops.dtype not in _SUFFIX:
        raise InputError(f"crops: wanted float16 or float32, got {crops.dtype}")
    _check_rows("to_frame", to_frame, (crops.count, 2, 3))
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
    launch = Launch((blocks, _persons(crops.count), 1), THREADS, 0, argument.tobytes())
    name = f"crop_normalize_{frames.format}_{_SUFFIX[crops.dtype]}"
    device.launch("crop_normalize", name, launch=launch, stream=stream)


def _persons(count: int) -> int:
    if count > _MOST_PERSONS:
        raise InputError(f"persons: {count} in one batch, at most {_MOST_PERSONS}; split it")
    return count


def _check_rows(name: str, buffer: Buffer, wanted: tuple[int, ...]) -> None:
    """The buffer is float32 of the shape `wanted`, or has more rows."""
    fits = buffer.shape[1:] == wanted[1:] and buffer.shape[0] >= wanted[0]
    if buffer.dtype != np.float32 or not fits:
        raise InputError(f"{name}: wanted float32 {wanted}, got {buffer.dtype} {buffer.shape}")
