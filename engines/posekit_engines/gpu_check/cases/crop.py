"""Cases of `crop_normalize`: sizes, edges, frame formats, invalid positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posekit.geometry import Warp
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Float32, ModelSpec, UInt8
from posekit_engines.cuda.device import Buffer, Device
from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.ops import reference
from posekit_engines.ops.crop_normalize import (
    BT601,
    BT709,
    ColorMatrix,
    Crops,
    Frames,
    crop_normalize,
    frame_table,
)

# Gray levels. Positions in float32: 3 roundings of numbers up to 4096, 7e-4 px, on a slope of 255
# in x and in y; weights and sums add 1e-4.
EXACT = 0.4
# Normalized values are below 4, where float16 rounds by 2^-10: times std 58.4 in gray levels.
HALF = EXACT + 58.4 * 2**-10
BLACK = 1e-4
SPEC = ModelSpec("movenet", (24, 32), (6, 8), COCO_17)
SIZES = [(1, 1), (31, 33), (32, 31), (4, 64), (7, 5), (24, 32)]  # w, h
HARD = Boxes(
    np.array(
        [
            (10.3, 5.7, 40.1, 60.9),
            (-30, -20, 25, 30),  # across the corner
            (300, 300, 330, 380),  # outside the frame
            (30, 20, 30.5, 20.5),  # less than a pixel
            (-200, -300, 400, 500),  # all of the frame, scaled down
        ],
        np.float32,
    )
)
_OUTSIDE = 2  # index in HARD


def noise_image(height: int, width: int, seed: int = 0) -> UInt8:
    """Noise, uint8 (H, W, 3): the steepest possible slopes."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pitched(device: Device, rows: UInt8, gap: int) -> tuple[Buffer, int]:
    """Rows of bytes (H, W) uploaded with `gap` bytes of 255 after each, and the pitch."""
    wide = np.pad(rows, ((0, 0), (0, gap)), constant_values=255)
    return device.upload(wide), wide.shape[1]


def run(
    device: Device,
    images: Sequence[UInt8],
    spec: ModelSpec,
    *,
    to_frame: Warp,
    kind: type[np.floating] = np.float32,
    flip: bool = True,
) -> Float32:
    """Crops, followed by mirrored ones, of RGB images in turn, as gray levels."""
    rows, buffers = [], []
    for image in images:
        buffer, pitch = pitched(device, image.reshape(len(image), -1), 13)
        rows.append((buffer.address, image.shape[1], image.shape[0], pitch))
        buffers.append(buffer)
    frames = Frames(
        device.upload(frame_table(rows, "rgb")),
        device.upload(np.arange(len(to_frame), dtype=np.int32) % len(images)),
    )
    return launch(device, frames, spec, to_frame=to_frame, kind=kind, flip=flip)


def launch(
    device: Device,
    frames: Frames,
    spec: ModelSpec,
    *,
    to_frame: Warp,
    kind: type[np.floating] = np.float32,
    flip: bool = True,
) -> Float32:
    """`run` for frames that are on the GPU already."""
    count, (width, height) = len(to_frame), spec.input_size
    matrices = device.upload(to_frame.matrix.astype(np.float32))
    crops = device.buffer(((1 + flip) * count, 3, height, width), kind)
    target = Crops.of(crops, count, flip=flip)
    crop_normalize(device, frames, spec, crops=target, to_frame=matrices)
    return gray_levels(crops.download(), spec)


def gray_levels(crops: NDArray[np.floating], spec: ModelSpec) -> Float32:
    """Normalized crops (N, 3, h, w) as gray levels (N, h, w, 3) in the network's color order."""
    back = crops.astype(np.float64).transpose(0, 2, 3, 1) * spec.std + spec.mean
    return back.astype(np.float32)


def cases() -> list[Case]:
    """Sizes, both color orders, both cell types, both frame formats, invalid positions."""
    found = [_case(f"{w} x {h}", _sized((w, h)), EXACT) for w, h in SIZES]
    found += [
        _case(f"{color}, float16", _halved(replace(SPEC, color=color)), HALF)
        for color in ("rgb", "bgr")
    ]
    found += [
        _case(f"NV12, {name}, {kind.__name__}", _nv12(color, kind), 2 * HALF)
        for name, color in (("BT.601", BT601), ("BT.709", BT709))
        for kind in (np.float16, np.float32)
    ]
    return [
        *found,
        _case("mirrored exactly, black outside the frame", _mirrored, BLACK),
        _case("non-finite positions are black", _non_finite, BLACK),
        _case("outputs from any address", _unaligned, 0.0),
    ]


def brief() -> list[Case]:
    """Both frame formats, both cell types, with and without quad stores."""
    odd, even = (7, 5), (24, 32)
    return [
        *(_case(f"{w} x {h}", _sized((w, h)), EXACT) for w, h in (odd, even)),
        _case("rgb, float16", _halved(SPEC), HALF),
        _case("NV12, BT.709, float16", _nv12(BT709, np.float16), 2 * HALF),
        _case("NV12, BT.709, float32", _nv12(BT709, np.float32), 2 * HALF),
        _case("outputs from any address", _unaligned, 0.0),
    ]


def _case(name: str, check: Callable[[Device], float], bound: float) -> Case:
    return Case("crop_normalize", name, check, bound, "gray levels")


def _deviation(output: Float32, wanted: Float32 | float) -> float:
    return float(np.nan_to_num(np.abs(output - wanted), nan=np.inf).max())


def _sized(size: tuple[int, int]) -> Callable[[Device], float]:
    def check(device: Device) -> float:
        spec = replace(SPEC, input_size=size)
        images = [noise_image(61, 47), noise_image(40, 64, 1)]
        to_frame = Warp.from_boxes(HARD, spec).inverse()
        output = run(device, images, spec, to_frame=to_frame)
        wanted, mirrored = reference.crop_normalize(
            images, spec, to_frame=to_frame, frame_of=[0, 1, 0, 1, 0]
        )
        both = (
            _deviation(output[:5], gray_levels(wanted, spec)),
            _deviation(output[5:], gray_levels(mirrored, spec)),
        )
        return max(both)

    return check


def _halved(spec: ModelSpec) -> Callable[[Device], float]:
    def check(device: Device) -> float:
        to_frame, image = Warp.from_boxes(HARD, spec).inverse(), noise_image(61, 47)
        half = run(device, [image], spec, to_frame=to_frame, kind=np.float16, flip=False)
        wanted, _ = reference.crop_normalize([image], spec, to_frame=to_frame, frame_of=[0] * 5)
        return _deviation(half, gray_levels(wanted, spec))

    return check


def _nv12(color: ColorMatrix, kind: type[np.floating]) -> Callable[[Device], float]:
    def check(device: Device) -> float:
        planes = np.random.default_rng(4).integers(16, 236, (60 + 30, 44), np.uint8)
        rgb = reference.rgb_of_nv12(planes[:60], planes[60:], color)
        buffer, pitch = pitched(device, planes, 20)
        table = frame_table([(buffer.address, 44, 60, pitch)], "nv12")
        of = device.upload(np.zeros(5, np.int32))
        frames = Frames(device.upload(table), of, "nv12", color)
        to_frame = Warp.from_boxes(HARD, SPEC).inverse()
        output = launch(device, frames, SPEC, to_frame=to_frame, kind=kind)
        wanted, mirrored = reference.crop_normalize(
            [rgb], SPEC, to_frame=to_frame, frame_of=[0] * 5
        )
        both = (
            _deviation(output[:5], gray_levels(wanted, SPEC)),
            _deviation(output[5:], gray_levels(mirrored, SPEC)),
        )
        return max(both)

    return check


def _mirrored(device: Device) -> float:
    to_frame = Warp.from_boxes(HARD, SPEC).inverse()
    output = run(device, [noise_image(61, 47)], SPEC, to_frame=to_frame)
    if not np.array_equal(output[5:], output[:5, :, ::-1]):
        return float(np.inf)
    return _deviation(output[_OUTSIDE], 0.0)


def _non_finite(device: Device) -> float:
    matrices = np.full((3, 2, 3), np.nan)
    matrices[1], matrices[2] = np.inf, 1e30
    return _deviation(run(device, [noise_image(20, 20)], SPEC, to_frame=Warp(matrices)), 0.0)


def _unaligned(device: Device) -> float:
    """Outputs not aligned to four cells: no quad store, the same bits, no writes outside."""
    image, to_frame = noise_image(61, 47), Warp.from_boxes(HARD, SPEC).inverse()
    wanted = run(device, [image], SPEC, to_frame=to_frame, kind=np.float16)
    cells = 3 * 32 * 24
    space = device.upload(np.full(10 * cells + 3, np.nan, np.float16))
    buffer, pitch = pitched(device, image.reshape(61, -1), 0)
    frames = Frames(
        device.upload(frame_table([(buffer.address, 47, 61, pitch)], "rgb")),
        device.upload(np.zeros(5, np.int32)),
    )
    start = space.address + 2
    target = Crops(start, start + 2 * (5 * cells + 1), 5, np.dtype(np.float16))
    matrices = device.upload(to_frame.matrix.astype(np.float32))
    crop_normalize(device, frames, SPEC, crops=target, to_frame=matrices)
    flat = space.download()
    both = np.concatenate([flat[1 : 5 * cells + 1], flat[5 * cells + 2 : 10 * cells + 2]])
    untouched = np.isnan(flat[[0, 5 * cells + 1, 10 * cells + 2]]).all()
    same = np.array_equal(gray_levels(both.reshape(10, 3, 32, 24), SPEC), wanted)
    return 0.0 if same and untouched else float(np.inf)
