"""Cases of `fuse_views`: sizes, map conventions, numbers of views, NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.inference.tta import VIEWS, View, matrix_of
from posekit.types import Float32, ModelSpec
from posekit_engines.cuda.device import Buffer, Device
from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.gpu_check.cases.decode import REAL, SIZES, spec_of
from posekit_engines.ops import reference
from posekit_engines.ops.decode_flip import DecodeTables, decode_flip
from posekit_engines.ops.fuse_views import ViewTables, fuse_views
from posekit_engines.ops.launch import Maps

# Of the maps' range. The mean of K peaks, its power and the sum over 16 views round by 2^-24 about
# 40 times: below 5e-6. A position is a sum of numbers below 96 with 5 roundings of 2^-24: 3e-5
# cells along each axis, on a slope of the range per cell.
EXACT, INTERPOLATED = 5e-6, 1e-4
# Crop px: such a change of a map of Gaussians (sigma 2, curvature of the logarithm 1/4, slopes over
# two cells) moves the Newton step by 4 INTERPOLATED cells of 4 px.
POINTS = 16 * INTERPOLATED

Array = NDArray[np.floating]
Size = tuple[int, int]


def conventions(size: Size) -> dict[str, ModelSpec]:
    """Specs by how cells are placed in the crop: with half a pixel offset, as MSRA, as UDP."""
    spec = spec_of(size, "dark")
    udp = tuple((4 * n - 1) / max(n - 1, 1) for n in size)
    return {
        "half-pixel": replace(spec, map_offset=(1.5, 1.5)),
        "msra": spec,
        "udp": replace(spec, map_scale=(udp[0], udp[1])),
    }


def hard_views(size: Size, views: int, seed: int) -> NDArray[np.float64]:
    """One difficulty per person, (5, V, 5, h, w)."""
    width, height = size
    random = np.random.default_rng(seed)
    maps = random.random((5, views, 5, height, width))
    y, x = np.mgrid[:height, :width]
    maps[1] *= 0.01
    for each in maps[1].reshape(-1, height, width):
        at = random.uniform(0, 1, 2) * (height, width)
        each[:] += random.uniform(0.2, 1) * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8)
    maps[2] -= 0.5
    maps[3] = 0  # every view has the lowest weight
    maps[4] = -maps[4] - 1  # here too, and nothing is above 0
    return maps


def run(device: Device, maps: Array, spec: ModelSpec, *, views: Sequence[View]) -> Float32:
    """The kernel's output (N, K, h, w) for maps (N, V, K, h, w)."""
    output: Float32 = fused(device, maps, spec, views=views).download()
    return output


def fused(device: Device, maps: Array, spec: ModelSpec, *, views: Sequence[View]) -> Buffer:
    """`run`, left on the GPU: decode_flip finds the peaks, which are fuse_views's weights."""
    persons, count, keypoints, height, width = maps.shape
    uploaded = device.upload(maps.reshape(persons * count, keypoints, height, width))
    layout = Maps.of(uploaded, persons * count, flip=False)
    found = device.buffer((persons * count, keypoints, 3), np.float32)
    peaks = DecodeTables.of(device, replace(spec, decode="argmax"))
    decode_flip(device, layout, peaks, out=found)
    out = device.buffer((persons, keypoints, height, width), np.float32)
    tables = ViewTables.of(device, spec, views)
    fuse_views(device, layout, tables, found=found, out=out)
    device.driver.synchronize_stream(0)  # before the buffers are freed
    return out


def cases() -> list[Case]:
    """Every size, convention and number of views; quarter turns; NaN; and decoded points."""
    every = tuple(VIEWS)
    return [
        *(_case(_name(size), partial(_sized, size, every)) for size in SIZES),
        *(_case(_name(size), partial(_sized, size, (2, 8))) for size in REAL),
        _case("all 16 views of 48 x 64", partial(_sized, (48, 64), (16,))),
        *_special(),
    ]


def brief() -> list[Case]:
    """Both cell types, turns onto cells and between them, NaN, and decoded points."""
    return [_case(_name((33, 33)), partial(_sized, (33, 33), tuple(VIEWS))), *_special()]


def _special() -> list[Case]:
    return [
        Case("fuse_views", "quarter turns are exact", _quarter_turns, EXACT, "of the range"),
        Case("fuse_views", "NaN stays where it is", _with_nan, EXACT, "of the range"),
        Case("fuse_views", "decoded points", _points, POINTS, "crop px"),
        Case("fuse_views", "the same bits four times", _repeated, 0.0, "of the range"),
    ]


def _name(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _case(name: str, check: partial[float]) -> Case:
    return Case("fuse_views", name, check, INTERPOLATED, "of the range")


def _deviation(output: Float32, wanted: Float32, maps: Array) -> float:
    """The largest difference over the range of a person's maps; NaN must be in the same cells."""
    if not np.array_equal(np.isnan(output), np.isnan(wanted)):
        return float(np.inf)
    spans = np.nanmax(maps, (1, 2, 3, 4)) - np.nanmin(maps, (1, 2, 3, 4))
    spans = np.maximum(np.abs(spans), 1e-3)[:, None, None, None]
    return float(np.nanmax(np.abs(output - wanted) / spans, initial=0))


def _sized(size: Size, counts: Sequence[int], device: Device) -> float:
    worst = 0.0
    for number, spec in enumerate(conventions(size).values()):
        for count in counts:
            kind: type[np.floating] = np.float32 if number % 2 else np.float16
            maps: Array = hard_views(size, count, number).astype(kind)
            output = run(device, maps, spec, views=VIEWS[count])
            worst = max(
                worst, _deviation(output, reference.fuse_views(maps, spec, VIEWS[count]), maps)
            )
    return worst


def _quarter_turns(device: Device) -> float:
    """Square maps with half a pixel offset: a quarter turn moves every cell onto a cell."""
    spec, worst = conventions((24, 24))["half-pixel"], 0.0
    for count in (2, 4, 8):
        maps = hard_views((24, 24), count, count).astype(np.float32)
        output = run(device, maps, spec, views=VIEWS[count])
        worst = max(worst, _deviation(output, reference.fuse_views(maps, spec, VIEWS[count]), maps))
    return worst


def _with_nan(device: Device) -> float:
    """A map with a NaN has no peak; the NaN goes to the one cell that reads it."""
    spec, views = conventions((24, 24))["half-pixel"], VIEWS[8]
    maps = hard_views((24, 24), 8, 5).astype(np.float32)
    random = np.random.default_rng(6)
    for view in range(8):
        maps[0, view, view % 5].flat[random.integers(1, 24 * 24)] = np.nan
    maps[1, :, 2, 3, 4] = np.nan  # in every view
    return _deviation(
        run(device, maps, spec, views=views), reference.fuse_views(maps, spec, views), maps
    )


def _points(device: Device) -> float:
    """Ideal maps of each view, fused and decoded on the GPU and in numpy."""
    spec = conventions((48, 64))["half-pixel"]
    random, worst = np.random.default_rng(3), 0.0
    joints = random.uniform(40, 150, (3, 5, 2))
    for count in (4, 8, 16):
        maps = np.stack([_ideal_maps(joints, view, spec) for view in VIEWS[count]], 1)
        maps = (maps * random.uniform(0.5, 1, (3, count, 1, 1, 1))).astype(np.float16)
        buffer = fused(device, maps, spec, views=VIEWS[count])
        out = device.buffer((3, 5, 3), np.float32)
        layout = Maps.of(buffer, 3, flip=False)
        decode_flip(device, layout, DecodeTables.of(device, spec), out=out)
        wanted = reference.decode_flip(reference.fuse_views(maps, spec, VIEWS[count]), spec)
        largest = np.abs(out.download() - wanted).max()
        worst = max(worst, float(np.nan_to_num(largest, nan=np.inf)))
    return worst


def _ideal_maps(joints: NDArray[np.float64], view: View, spec: ModelSpec) -> Float32:
    """Ideal maps (N, K, h, w) of a view for joints (N, K, 2), crop px."""
    matrix = matrix_of(view, spec)
    maps = codecs.encode(joints @ matrix[:, :2].T + matrix[:, 2], spec)
    return maps[:, list(spec.skeleton.mirror)] if view.mirrored else maps


def _repeated(device: Device) -> float:
    spec = conventions((48, 64))["msra"]
    maps = hard_views((48, 64), 8, 1).astype(np.float16)
    first, *others = (run(device, maps, spec, views=VIEWS[8]) for _ in range(4))
    return 0.0 if all(np.array_equal(first, each) for each in others) else np.inf
