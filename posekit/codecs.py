"""Keypoints to heatmaps and back, in plain numpy: the truth for the graphs and the kernels.

A point's place on a map is in cells, x then y; the centre of the first cell is (0, 0). In the crop
it lies at x_crop = a * x_map + b per axis, numbers of the spec.

What holds for every decoder, here and in the points graph:
- The peak is the map's largest value; of equal ones that with the smaller flat index.
- A map without a value above 0 gives its peak's cell, not refined; the score is the peak's value.
- A NaN counts as the largest value and gives score 0; points are finite for whatever maps.
- A peak moves only where its surroundings are a peak (the Hessian is negative definite and not
  nearly singular), and by at most one cell along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Float32, Int64, ModelSpec

# A surface counts as a peak if its curvature is above the first number (a Gaussian with sigma
# below 30 cells) and its flattest direction curves at least about the second times as much as
# its steepest. What is below is rounding, and would send the point anywhere.
FLATTEST, THINNEST = -1e-3, 1e-3
# Where logarithms start and end. Sources: DARK's code (1e-10), mmpose's UDP (1e-3 to 50).
LOG_RANGE = {"dark": (1e-10, np.inf), "udp": (1e-3, 50.0)}
# Cells to each side whose blurred values the derivatives need.
REACH = {"dark": 2, "udp": 1}


def encode(points: ArrayLike, spec: ModelSpec) -> Float32:
    """Gaussian heatmaps of crop points, exact to a fraction of a cell; NaN gives an empty map.

    points: (N, K, 2), crop px, in the crop or not.  Returns float32 (N, K, h, w), peak 1 where
    the point is on a cell's centre; sigma is `spec.sigma` cells.  Raises InputError.
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 3 or array.shape[1:] != (len(spec.skeleton), 2):
        raise InputError(f"points: wanted (N, {len(spec.skeleton)}, 2), got {array.shape}")
    cells = (array - spec.map_offset) / spec.map_scale
    columns, rows = (
        np.exp(-((np.arange(size) - cells[:, :, axis, None]) ** 2) / (2 * spec.sigma**2))
        for axis, size in enumerate(spec.heatmap_size)
    )
    maps = rows[:, :, :, None] * columns[:, :, None, :]
    return np.nan_to_num(maps.astype(np.float32), copy=False)


def merge_flip(
    heatmaps: Float32, mirrored: Float32, *, mirror: Sequence[int], shift: float
) -> Float32:
    """The mean of the maps of a crop and of its mirror image, both float32 (N, K, h, w).

    The mirrored maps change channels (`Skeleton.mirror`), are mirrored back and move right by
    `shift` cells (negative: left). Fractions are interpolated between two columns; beyond the
    map its edge column stands.  Raises InputError.
    """
    heatmaps, mirrored = np.asarray(heatmaps, np.float32), np.asarray(mirrored, np.float32)
    if heatmaps.ndim != 4 or heatmaps.shape != mirrored.shape:
        raise InputError(
            f"heatmaps: wanted two of one shape (N, K, h, w), got {heatmaps.shape} and "
            f"{mirrored.shape}"
        )
    if sorted(mirror) != list(range(heatmaps.shape[1])) or not np.isfinite(shift):
        raise InputError(
            f"mirror and shift: wanted a permutation of {heatmaps.shape[1]} channels and a finite "
            f"number, got {tuple(mirror)} and {shift}"
        )
    merged = np.empty(heatmaps.shape, np.float32)
    order = np.asarray(mirror)
    swapped = np.empty(heatmaps.shape[1:], np.float32)
    # One person after the other: their maps stay in the cache from the first pass to the last.
    for own, other, out in zip(heatmaps, mirrored, merged, strict=True):
        np.take(other, order, axis=0, out=swapped, mode="clip")
        np.add(own, _moved(swapped[:, :, ::-1], shift), out=out)
        out *= np.float32(0.5)
    return merged


def _moved(maps: Float32, shift: float) -> Float32:
    """`maps` (K, h, w) moved right by `shift` cells; itself where that is 0."""
    if shift == 0:
        return maps
    columns = np.arange(maps.shape[2])
    whole = int(np.floor(shift))
    part = np.float32(shift - whole)
    near = maps[:, :, np.clip(columns - whole, 0, columns[-1])]
    if part == 0:
        return near
    return (1 - part) * near + part * maps[:, :, np.clip(columns - whole - 1, 0, columns[-1])]


def decode(heatmaps: Float32, spec: ModelSpec) -> tuple[Float32, Float32]:
    """Heatmaps (N, K, h, w) to points float32 (N, K, 2), crop px, and scores (N, K), their peaks.

    `spec.decode` refines the peak's cell: argmax not at all, quarter by a quarter cell towards
    the larger neighbour, dark and udp by the top of a parabola through the log of the blurred
    map.  Ties, edges and NaN: see the module.  Raises InputError.
    """
    columns, rows = spec.heatmap_size
    wanted = (len(spec.skeleton), rows, columns)
    heatmaps = np.asarray(heatmaps, np.float32)
    if heatmaps.ndim != 4 or heatmaps.shape[1:] != wanted:
        raise InputError(f"heatmaps: wanted (N, *{wanted}), got {heatmaps.shape}")
    maps = np.ascontiguousarray(heatmaps).reshape(heatmaps.shape[0] * wanted[0], rows, columns)
    flat = maps.reshape(len(maps), rows * columns)
    peaks = flat.argmax(1)
    scores = flat[np.arange(len(maps)), peaks]
    cells = np.stack([peaks % columns, peaks // columns], 1)
    steps = _steps(maps, cells, scores, spec=spec)
    steps = np.where(scores[:, None] > 0, steps, np.float32(0))
    points = (cells + steps) * np.float32(spec.map_scale) + np.float32(spec.map_offset)
    scores = np.where(np.isnan(scores), np.float32(0), scores)
    shape = heatmaps.shape[:2]
    return points.astype(np.float32).reshape(*shape, 2), scores.reshape(shape)


def _steps(maps: Float32, cells: Int64, scores: Float32, *, spec: ModelSpec) -> Float32:
    """How far each point lies from its cell (M, 2), in cells."""
    if spec.decode == "argmax":
        return np.zeros(cells.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if spec.decode == "quarter":
            return _quarter(maps, cells)
        around = _log_blurred(maps, cells, scores, spec=spec)
        return _dark(around, cells, maps.shape) if spec.decode == "dark" else _udp(around, cells, maps.shape)
