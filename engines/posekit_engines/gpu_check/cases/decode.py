"""Cases of `decode_flip`: sizes, refinements, layouts, ties, NaN, infinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from posekit.geometry import Warp
from posekit.types import Decode, Float32, ModelSpec, Skeleton
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.ops import reference
from posekit_engines.ops.decode_flip import DecodeTables, decode_flip
from posekit_engines.ops.launch import Maps

FIVE = Skeleton("five", tuple("abcde"), (), (0, 2, 1, 4, 3), (0.1,) * 5)
SIZES = [(1, 1), (5, 7), (31, 31), (32, 32), (33, 33), (47, 13), (16, 20)]  # w, h
REAL = [(48, 64), (48, 48), (72, 96)]
SHIFTS = (0.0, 0.75, 1.0, -0.25, 2.5, -1.0)
DECODES: tuple[Decode, ...] = ("argmax", "quarter", "quarter-axis", "dark", "udp")
# Cells. DARK's and UDP's sums of 121 products round by 1e-6 of the logarithm, whose curvature at a
# peak of these maps is above 0.01: 1e-4. Without a Newton step the output is exact.
BOUND = {"argmax": 0.0, "quarter": 0.0, "quarter-axis": 0.0, "dark": 1e-3, "udp": 1e-3}

Size = tuple[int, int]
CellType = type[np.floating]


def spec_of(size: Size, decode: Decode, shift: float = 0.75) -> ModelSpec:
    """A model of five keypoints whose heatmaps have `size` (w, h)."""
    width, height = size
    return ModelSpec(
        "movenet", (4 * width, 4 * height), size, FIVE, decode=decode, flip_shift=shift
    )


def hard_maps(size: Size, seed: int) -> NDArray[np.float64]:
    """One difficulty per person, (9, 5, h, w)."""
    width, height = size
    random = np.random.default_rng(seed)
    noise = random.standard_normal((9, 5, height, width))
    peaks, edges, broken, infinite = noise[1], noise[2], noise[3], noise[4]
    y, x = np.mgrid[:height, :width]
    for k in range(5):
        at = random.uniform(0, 1, 2) * (height, width)
        peaks[k] = 0.01 * peaks[k] + np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8)
        corner = [(0, 0), (0, -1), (-1, 0), (-1, -1), (height // 2, 0)][k]
        edges[k][corner] = 200  # above UDP_CEILING
        broken[k].flat[random.integers(0, height * width, 1 + k)] = np.nan
        infinite[k].flat[random.integers(0, height * width, 2)] = np.inf, -np.inf
    noise[5] = np.round(noise[5])  # ties
    noise[6] = -np.abs(noise[6]) - 1
    noise[7], noise[7, :, -1, -1] = -0.0, 0.0  # equal: the first one wins
    noise[8] = 0.5
    return noise


def hard_pair(size: Size, seeds: tuple[int, int], kind: CellType) -> list[NDArray[np.floating]]:
    """`hard_maps` and others for the mirrored crops; one person's peaks coincide."""
    maps, mirrored = (hard_maps(size, seed).astype(kind) for seed in seeds)
    mirrored[1] = maps[1, FIVE.mirror, :, ::-1]
    return [maps, mirrored]


def run(
    device: Device,
    maps: NDArray[np.floating],
    spec: ModelSpec,
    *,
    mirrored: NDArray[np.floating] | None = None,
    to_frame: Warp | None = None,
) -> Float32:
    """The kernel's output (N, K, 3) for maps (N, K, h, w)."""
    both = maps if mirrored is None else np.concatenate([maps, mirrored])
    buffer = device.upload(both)
    flip = mirrored is not None
    matrix = None if to_frame is None else device.upload(to_frame.matrix.astype(np.float32))
    out = device.buffer((len(maps), maps.shape[1], 3), np.float32)
    decode_flip(
        device,
        Maps.of(buffer, len(maps), flip=flip),
        DecodeTables.of(device, spec),
        out=out,
        to_frame=matrix,
    )
    output: Float32 = out.download()
    return output


def expected(
    maps: NDArray[np.floating],
    spec: ModelSpec,
    mirrored: NDArray[np.floating] | None = None,
) -> Float32:
    """The reference's output."""
    return reference.decode_flip(maps, spec, mirrored=mirrored)


def deviation(output: Float32, wanted: Float32, spec: ModelSpec) -> float:
    """The largest distance of a point, cells; inf where a score differs in a single bit."""
    if not np.array_equal(output[..., 2], wanted[..., 2]):
        return float(np.inf)
    cells = np.abs(output[..., :2] - wanted[..., :2]) / spec.map_scale
    return float(np.nan_to_num(cells, nan=np.inf).max(initial=0))


def cases() -> list[Case]:
    """Every size and refinement with and without flip, blurs, layouts, and output in frame px."""
    found = [_sized(size, decode) for size in SIZES + REAL for decode in DECODES]
    for decode in DECODES:
        found += [_case(f"{decode} without flip", decode, partial(_alone, decode))]
        for kind in (np.float16, np.float32):
            for pad, skipped in ((1, 1), (8, 8), (8, 1)):
                name = f"{decode}, {kind.__name__}, gaps of {pad}, {skipped} cells before"
                found.append(
                    _case(name, decode, partial(_strided, decode, kind, gaps=(pad, skipped)))
                )
    for decode in ("dark", "udp"):
        for blur in (1, 3, 17):
            found.append(_case(f"{decode}, blur {blur}", decode, partial(_blurred, decode, blur)))
    found += [
        _case(f"{decode}, every cell", decode, partial(_every_cell, decode)) for decode in DECODES
    ]
    return [*found, *_repeated(), _to_frame_case()]


def brief() -> list[Case]:
    """Both ways to read, every refinement, and output in frame px."""
    sizes: list[Size] = [(33, 33), (16, 20)]
    return [*(_sized(size, decode) for size in sizes for decode in DECODES), _to_frame_case()]


def _case(name: str, decode: Decode, run: partial[float]) -> Case:
    return Case("decode_flip", name, run, BOUND[decode], "cells")


def _sized(size: Size, decode: Decode) -> Case:
    return _case(f"{size[0]} x {size[1]}, {decode}", decode, partial(_shifted, size, decode))


def _shifted(size: Size, decode: Decode, device: Device) -> float:
    worst = 0.0
    for number, shift in enumerate(SHIFTS if size in SIZES else SHIFTS[:3]):
        spec = spec_of(size, decode, shift)
        maps, mirrored = hard_pair(
            size, (number, 50 + number), np.float16 if number % 2 else np.float32
        )
        output = run(device, maps, spec, mirrored=mirrored)
        worst = max(worst, deviation(output, expected(maps, spec, mirrored), spec))
    return worst


def _alone(decode: Decode, device: Device) -> float:
    worst = 0.0
    sizes: Sequence[Size] = ((33, 17), (48, 64))
    for size in sizes:
        kinds: tuple[CellType, ...] = (np.float16, np.float32)
        for kind in kinds:
            spec, maps = spec_of(size, decode), hard_maps(size, 3).astype(kind)
            worst = max(worst, deviation(run(device, maps, spec), expected(maps, spec), spec))
    return worst


def _blurred(decode: Decode, blur: int, device: Device) -> float:
    spec = replace(spec_of((24, 24), decode), blur=blur)
    maps, mirrored = hard_pair((24, 24), (5, 6), np.float32)
    output, wanted = run(device, maps, spec, mirrored=mirrored), expected(maps, spec, mirrored)
    persons = [1, 2, 3, 7, 8]  # with peaks: the bound assumes their curvature
    return deviation(output[persons], wanted[persons], spec)


def _every_cell(decode: Decode, device: Device) -> float:
    """A peak on every cell in turn, borders and corners too, among different neighbors."""
    size = width, height = 7, 6
    maps = np.random.default_rng(4).integers(0, 9, (width * height, 5, height, width))
    for cell, person in enumerate(maps):
        person[:, cell // width, cell % width] = 10
    spec, cells = replace(spec_of(size, decode), blur=1), maps.astype(np.float32)
    return deviation(run(device, cells, spec), expected(cells, spec), spec)


def _strided(decode: Decode, kind: CellType, device: Device, *, gaps: tuple[int, int]) -> float:
    """Gaps between rows, maps and persons, from an address aligned to a cell, not to a vector."""
    size, (pad, skipped) = (16, 20), gaps
    maps, mirrored = (hard_maps(size, each).astype(kind) for each in (9, 10))
    wide = np.full((2, 9, 6, 20 + pad, 16 + pad), 99, kind)  # 99: the maximum, if it were read
    wide[0, :, :5, :20, :16], wide[1, :, :5, :20, :16] = maps, mirrored
    flat = np.concatenate([np.full(skipped, 99, kind), wide.reshape(-1)])
    buffer, item = device.upload(flat), wide.dtype.itemsize
    person, keypoint, row = (stride // item for stride in wide.strides[1:4])
    start = buffer.address + skipped * item
    shape = (9, 5, 20, 16)
    layout = Maps(start, start + wide.strides[0], shape, wide.dtype, (person, keypoint, row))
    out, spec = device.buffer((9, 5, 3), np.float32), spec_of(size, decode)
    decode_flip(device, layout, DecodeTables.of(device, spec), out=out)
    return deviation(out.download(), expected(maps, spec, mirrored), spec)


def _repeated() -> list[Case]:
    """The order in which threads run does not change a bit."""

    def again(device: Device) -> float:
        spec = spec_of((48, 64), "dark")
        maps, mirrored = hard_pair((48, 64), (1, 2), np.float16)
        first, *others = (run(device, maps, spec, mirrored=mirrored) for _ in range(4))
        return 0.0 if all(np.array_equal(first, each) for each in others) else np.inf

    return [Case("decode_flip", "the same bits four times", again, 0.0, "cells")]


def _to_frame_case() -> Case:
    # four float32 roundings (the matrix, two sums, the reference's own) of numbers below 6000
    return Case("decode_flip", "in frame px", _to_frame, 4 * 6000 * 2**-24, "frame px")


def _to_frame(device: Device) -> float:
    spec, random = spec_of((48, 64), "dark"), np.random.default_rng(0)
    maps, mirrored = (hard_maps((48, 64), each).astype(np.float16) for each in (7, 8))
    matrix = random.uniform(-3, 3, (9, 2, 3))
    matrix[:, :, 2] = random.uniform(-4000, 4000, (9, 2))
    crop = run(device, maps, spec, mirrored=mirrored)
    output = run(device, maps, spec, mirrored=mirrored, to_frame=Warp(matrix))
    if not np.array_equal(output[..., 2], crop[..., 2]):
        return float(np.inf)
    wanted = Warp(matrix).to_crop(crop[..., :2])
    return float(np.nan_to_num(np.abs(output[..., :2] - wanted), nan=np.inf).max())
