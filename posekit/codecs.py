"""Keypoints to heatmaps and back, in plain numpy: the reference for the graphs and the kernels.

Heatmaps are float32 (N, K, h, w). A place on a map is in cells, x then y, the center of the first
cell (0, 0); in the crop it lies at the spec's own `x_crop = a * x_map + b`.

What holds for each way to decode, here and in the points graph:

- The peak is the largest cell; of equal ones that with the smaller flat index.
- A map without a positive cell gives that cell's place, not refined, and its value as score.
- Where a map holds a NaN, its score is 0 and its point some cell's: finite, whatever comes in.
- A step is taken only to the top of a peak, not from a plateau, ridge or saddle, and by at most
  one cell along each axis: no point flies off.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Float32, ModelSpec

Ints = NDArray[np.int64]

# Cells: a peak's top lies near its cell. HRNet, DARK and mmpose have no bound.
MAX_STEP = 1.0
# A Hessian whose determinant is below FLAT (a Gaussian wider than 56 cells) or below THIN times its
# squared trace (one axis 30 times as wide as the other) is rounding: no peak to climb.
FLAT, THIN = 1e-7, 1e-3
# DARK takes the logarithm of nothing smaller; UDP clips to its range first. Source: mmpose.
TINY = 1e-10
UDP_FLOOR, UDP_CEILING = 1e-3, 50.0


def encode(points: ArrayLike, spec: ModelSpec) -> Float32:
    """Ideal heatmaps of crop points (N, K, 2): a Gaussian at the exact place, peak 1.

    `spec.sigma` is its width in cells. Of a point outside, what reaches into the map stays; a NaN
    gives an empty map. Returns float32 (N, K, h, w). Raises InputError.
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 3 or array.shape[1:] != (len(spec.skeleton), 2):
        raise InputError(f"points: wanted shape (N, {len(spec.skeleton)}, 2), got {array.shape}")
    cells: NDArray[np.float64] = spec.crop_to_cells(array)
    width, height = spec.heatmap_size
    x = np.exp(-((np.arange(width) - cells[..., :1]) ** 2) / (2 * spec.sigma**2))
    y = np.exp(-((np.arange(height) - cells[..., 1:]) ** 2) / (2 * spec.sigma**2))
    maps = (y[..., :, None] * x[..., None, :]).astype(np.float32)
    return np.nan_to_num(maps, copy=False)


def merge_flip(
    heatmaps: Float32, mirrored: Float32, *, mirror: Sequence[int], shift: float
) -> Float32:
    """Mean of the maps and of those of the mirrored crops, mirrored back, float32 (N, K, h, w).

    mirror: keypoint k of a mirrored image is mirror[k].  shift: cells by which the mirrored
    maps move right (negative: left), in fractions too (linear between two columns); beyond a map
    its edge column stands. MSRA code shifts by 1 where 0.75 is exact.  Raises InputError.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is a NaN, as it should be
        total = _sum_flip(heatmaps, mirrored, mirror=mirror, shift=shift)
    total *= np.float32(0.5)
    return total


def _sum_flip(
    heatmaps: Float32, mirrored: Float32, *, mirror: Sequence[int], shift: float
) -> Float32:
    """Twice the merge: reading half of a few cells is cheaper than halving all."""
    if heatmaps.ndim != 4 or heatmaps.shape != mirrored.shape:
        shapes = f"{heatmaps.shape} and {mirrored.shape}"
        raise InputError(f"heatmaps: wanted two of one shape (N, K, h, w), got {shapes}")
    count = heatmaps.shape[1]
    if sorted(mirror) != list(range(count)) or not np.isfinite(shift):
        raise InputError(
            f"mirror, shift: wanted the {count} channels once each and a finite number, got "
            f"{tuple(mirror)} and {shift}"
        )
    heatmaps, mirrored = (np.ascontiguousarray(each, np.float32) for each in (heatmaps, mirrored))
    persons, _, height, width = heatmaps.shape
    # Channels and rows from last to first: then reading a person's maps backwards, one long pass,
    # mirrors them. A person at a time stays in the cache from the first pass to the last.
    order = (np.asarray(mirror)[::-1, None] * height + np.arange(height)[::-1]).reshape(-1)
    shape = (persons, count * height, width)
    total, reverse = np.empty(shape, np.float32), np.empty(shape[1:], np.float32)
    own, other = heatmaps.reshape(shape), mirrored.reshape(shape)
    for n in range(persons):
        np.take(other[n], order, axis=0, out=reverse, mode="clip")
        if shift == 0:
            np.add(own[n].reshape(-1), reverse.reshape(-1)[::-1], out=total[n].reshape(-1))
        else:
            _add_backwards(own[n], reverse, shift, out=total[n])
    return total.reshape(heatmaps.shape)


def _add_backwards(own: Float32, reverse: Float32, shift: float, *, out: Float32) -> None:
    """out = own + `reverse` read backwards and then moved right by `shift`; all (R, w)."""
    width = out.shape[1]
    whole = int(np.trunc(shift))
    if shift != whole:
        reverse = _blend(reverse, shift - whole)
    whole = max(1 - width, min(width - 1, whole))
    back = reverse[::-1, ::-1]
    flat, flat_back, flat_out = own.reshape(-1), reverse.reshape(-1)[::-1], out.reshape(-1)
    ahead, behind = max(whole, 0), max(-whole, 0)
    end = flat.size
    np.add(
        flat[ahead : end - behind],
        flat_back[behind : end - ahead],
        out=flat_out[ahead : end - behind],
    )
    if ahead:
        out[:, :ahead] = own[:, :ahead] + back[:, :1]
    if behind:
        out[:, -behind:] = own[:, -behind:] + back[:, -1:]


def _blend(maps: Float32, part: float) -> Float32:
    """Rows `maps` (R, w) moved left by `part` (-1 to 1) of a column, edges repeated.

    The neighbor's share is added along the flat array; edge cells, which would read the next row,
    are restored.
    """
    share = np.float32(abs(part))
    blended: Float32 = maps * (1 - share)
    flat, near = blended.reshape(-1), maps.reshape(-1) * share
    if part > 0:
        flat[:-1] += near[1:]
    else:
        flat[1:] += near[:-1]
    edge = -1 if part > 0 else 0
    blended[:, edge] = maps[:, edge]
    return blended


def mirror_matrix(width: int, shift: float) -> Float32:
    """Rows of a map times this (w, w) matrix are mirrored and moved right by `shift`.

    The same arithmetic as `merge_flip` in the form that a graph is fast at.
    """
    reverse = np.ascontiguousarray(np.eye(width, dtype=np.float32)[::-1])
    moved = np.empty_like(reverse)
    _add_backwards(np.zeros_like(reverse), reverse, shift, out=moved)
    return moved


def decode(
    heatmaps: Float32, spec: ModelSpec, mirrored: Float32 | None = None
) -> tuple[Float32, Float32]:
    """Points float32 (N, K, 2) in crop px and scores (N, K), the peaks' heights.

    heatmaps: (N, K, h, w).  mirrored: the maps of the mirrored crops; their merge is decoded.
    `spec.decode` refines the peak's cell: argmax not at all, quarter and quarter-axis by a quarter
    cell towards the higher neighbor, dark and udp by a Newton step.  Ties, edges, NaN: see the
    module.
    Raises InputError.
    """
    heatmaps = np.ascontiguousarray(heatmaps, np.float32)
    width, height = spec.heatmap_size
    wanted = (len(spec.skeleton), height, width)
    if heatmaps.shape[1:] != wanted:
        sizes = ", ".join(map(str, wanted))
        raise InputError(f"heatmaps: wanted shape (N, {sizes}), got {heatmaps.shape}")
    scale = np.float32(1.0 if mirrored is None else 0.5)
    if mirrored is not None:
        mirror, shift = spec.skeleton.mirror, spec.flip_shift
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is a NaN: scored 0
            heatmaps = _sum_flip(heatmaps, mirrored, mirror=mirror, shift=shift)
    maps = heatmaps.reshape(len(heatmaps) * wanted[0], height, width)
    flat = maps.reshape(len(maps), height * width)
    index = flat.argmax(1)
    scores = flat[np.arange(len(maps)), index] * scale
    rows, columns = np.divmod(index, width)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        step = _step(spec, maps, rows, columns=columns, scale=scale)
    cells = np.stack([columns, rows], 1).astype(np.float32)
    cells += np.where((scores > 0)[:, None], step, np.float32(0))
    points = spec.cells_to_crop(cells)
    scores = np.where(np.isnan(scores), np.float32(0), scores)
    shape = heatmaps.shape[:2]
    return points.reshape(*shape, 2), scores.reshape(shape)


def _step(
    spec: ModelSpec, maps: Float32, rows: Ints, *, columns: Ints, scale: np.float32
) -> Float32:
    """From the peaks' cells to the points, (M, 2) cells; the maps are 1 / `scale` times as high."""
    match spec.decode:
        case "argmax":
            return np.zeros((len(maps), 2), np.float32)
        case "quarter" | "quarter-axis":
            return _quarter_step(maps, rows, columns, apart=spec.decode == "quarter-axis")
        case "dark":
            blurred = _blurred(maps, rows, columns, reach=2, blur=spec.blur)
            return _dark_step(blurred * scale, rows, columns, size=spec.heatmap_size)
        case "udp":
            blurred = _blurred(maps, rows, columns, reach=1, blur=spec.blur) * scale
            peaks = maps[np.arange(len(maps)), rows, columns] * scale
            blurred *= (peaks / np.maximum(blurred[:, 4], np.float32(TINY)))[:, None]
            return _udp_step(blurred, rows, columns, size=spec.heatmap_size)


def _quarter_step(maps: Float32, rows: Ints, columns: Ints, *, apart: bool) -> Float32:
    """A quarter of a cell towards the higher neighbor, away from the borders.

    Along both axes where 1 < x < w - 1 and 1 < y < h - 1; `apart`: along x where the first of
    these and 0 < y hold, along y where the second and 0 < x.
    Source: Newell et al., ECCV 2016; the joint rule is that of HRNet's get_final_preds and
    mmpose 0.x, the other that of mmpose 1.x's refine_keypoints.
    """
    height, width = maps.shape[1:]
    step = np.zeros((len(maps), 2), np.float32)
    across, down = (columns > 1) & (columns < width - 1), (rows > 1) & (rows < height - 1)
    along_x, along_y = (rows > 0, columns > 0) if apart else (down, across)
    at = np.flatnonzero(across & along_x)
    y, x = rows[at], columns[at]
    step[at, 0] = np.sign(maps[at, y, x + 1] - maps[at, y, x - 1])
    at = np.flatnonzero(down & along_y)
    y, x = rows[at], columns[at]
    step[at, 1] = np.sign(maps[at, y + 1, x] - maps[at, y - 1, x])
    quarter: Float32 = np.nan_to_num(step * np.float32(0.25))
    return quarter


def _dark_step(blurred: Float32, rows: Ints, columns: Ints, *, size: tuple[int, int]) -> Float32:
    """Newton's step on the logarithm of the blurred map (M, 5 x 5), away from the borders.

    Source: Zhang et al., CVPR 2020 (DARK); second differences span two cells, as in its code.
    """
    width, height = size
    step = _newton(np.log(np.maximum(blurred, np.float32(TINY))) @ DARK)
    inside = (columns > 1) & (columns < width - 2) & (rows > 1) & (rows < height - 2)
    step[~inside] = 0
    return step


def _udp_step(blurred: Float32, rows: Ints, columns: Ints, *, size: tuple[int, int]) -> Float32:
    """Newton's step on the log of the blurred, clipped map (M, 3 x 3); borders are repeated.

    Source: Huang et al., CVPR 2020 (UDP), as in mmpose's refine_keypoints_dark_udp. That brings
    the blurred map back to the map's height by its largest cell, `decode` by the peak's own.
    """
    width, height = size
    logs = np.log(np.minimum(np.maximum(blurred, np.float32(UDP_FLOOR)), np.float32(UDP_CEILING)))
    around = logs.reshape(-1, 3, 3)
    for border, outside, inside in (
        (columns == 0, np.s_[:, :, 0], np.s_[:, :, 1]),
        (columns == width - 1, np.s_[:, :, 2], np.s_[:, :, 1]),
        (rows == 0, np.s_[:, 0], np.s_[:, 1]),
        (rows == height - 1, np.s_[:, 2], np.s_[:, 1]),
    ):
        np.copyto(around[outside], around[inside], where=border[:, None])
    return _newton(logs @ UDP)


def _newton(differences: Float32) -> Float32:
    """-H⁻¹ g per peak, (M, 2), clipped to MAX_STEP; none where H is not that of a sound peak.

    differences: (M, 5), slopes x and y, second differences xx, yy and xy.
    """
    x, y, xx, yy, xy = np.ascontiguousarray(differences.T)
    determinant, trace = xx * yy - xy * xy, xx + yy
    peaked = (determinant > np.float32(FLAT) + np.float32(THIN) * (trace * trace)) & (trace < 0)
    step = np.zeros((len(differences), 2), np.float32)
    np.divide(xy * y - yy * x, determinant, out=step[:, 0], where=peaked)
    np.divide(xy * x - xx * y, determinant, out=step[:, 1], where=peaked)
    limit = np.float32(MAX_STEP)
    clipped: Float32 = np.minimum(np.maximum(step, -limit), limit)
    return clipped


def _stencils(side: int, *columns: dict[tuple[int, int], float]) -> Float32:
    """(side², columns): weights by (dy, dx) of the differences of a flat square."""
    matrix = np.zeros((side, side, len(columns)), np.float32)
    for k, weights in enumerate(columns):
        for (dy, dx), weight in weights.items():
            matrix[side // 2 + dy, side // 2 + dx, k] = weight
    return matrix.reshape(side * side, len(columns))


# What `_newton` takes, as a product with a flat square: slopes x, y, second differences xx, yy, xy.
DARK = _stencils(
    5,
    {(0, 1): 0.5, (0, -1): -0.5},
    {(1, 0): 0.5, (-1, 0): -0.5},
    {(0, 2): 0.25, (0, 0): -0.5, (0, -2): 0.25},
    {(2, 0): 0.25, (0, 0): -0.5, (-2, 0): 0.25},
    {(1, 1): 0.25, (-1, 1): -0.25, (1, -1): -0.25, (-1, -1): 0.25},
)
UDP = _stencils(
    3,
    {(0, 1): 0.5, (0, -1): -0.5},
    {(1, 0): 0.5, (-1, 0): -0.5},
    {(0, 1): 1, (0, 0): -2, (0, -1): 1},
    {(1, 0): 1, (0, 0): -2, (-1, 0): 1},
    # mmpose's mixed difference: along the main diagonal only.
    {(1, 1): 0.5, (-1, -1): 0.5, (0, 0): 1}
    | {(0, 1): -0.5, (1, 0): -0.5, (0, -1): -0.5, (-1, 0): -0.5},
)


def _blurred(maps: Float32, rows: Ints, columns: Ints, *, reach: int, blur: int) -> Float32:
    """The blurred map around each peak only, (M, (2 reach + 1)²); zero beyond the borders.

    One product of the patch with a matrix of shifted Gaussians, instead of blurring the map.
    """
    radius = reach + blur // 2
    patches = _patches(maps, rows, columns, radius=radius)
    product: Float32 = patches.reshape(len(maps), (2 * radius + 1) ** 2) @ blur_matrix(reach, blur)
    return product


def _patches(maps: Float32, rows: Ints, columns: Ints, *, radius: int) -> Float32:
    """The square around each cell, (M, P, P), P = 2 radius + 1; zero beyond the borders.

    Each is copied from where it fits into the map; those across a border are then moved.
    """
    count, height, width = maps.shape
    side = 2 * radius + 1
    tall, wide = min(side, height), min(side, width)
    top = np.minimum(np.maximum(rows - radius, 0), height - tall)
    left = np.minimum(np.maximum(columns - radius, 0), width - wide)
    near: Float32 = _squares(maps, tall, wide)[np.arange(count), top, left]
    rows, columns = rows - top, columns - left
    fits = (rows == radius) & (columns == radius) & (tall == wide == side)
    across = np.flatnonzero(~fits)
    if not len(across):
        return near
    wider = np.zeros((len(across), tall + 2 * radius, wide + 2 * radius), np.float32)
    wider[:, radius : radius + tall, radius : radius + wide] = near[across]
    moved: Float32 = _squares(wider, side, side)[
        np.arange(len(across)), rows[across], columns[across]
    ]
    if len(across) == count:
        return moved
    near[across] = moved
    return near


def _squares(maps: Float32, tall: int, wide: int) -> Float32:
    """A view of all squares of the maps (M, h, w) by their first cells, (M, y, x, tall, wide)."""
    count, height, width = maps.shape
    shape = (count, height - tall + 1, width - wide + 1, tall, wide)
    return as_strided(maps, shape, (*maps.strides, *maps.strides[1:]), writeable=False)


@functools.cache
def blur_matrix(reach: int, blur: int) -> Float32:
    """Takes a flat patch of side 2 (reach + blur // 2) + 1 to its blurred middle, (P², S²) float32.

    The Gaussian is OpenCV's for an odd side: sigma = 0.3 ((blur - 1) / 2 - 1) + 0.8. (For sides up
    to 9 OpenCV rounds its weights to 256ths; these are exact.)  A side of 1 does not blur.
    """
    sigma = 0.3 * ((blur - 1) / 2 - 1) + 0.8
    line = np.exp(-((np.arange(blur) - blur // 2) ** 2) / (2 * sigma**2))
    line /= line.sum()
    side, patch = 2 * reach + 1, 2 * (reach + blur // 2) + 1
    shifted = np.zeros((patch, side))
    for column in range(side):
        shifted[column : column + blur, column] = line
    matrix: Float32 = np.kron(shifted, shifted).astype(np.float32)
    return matrix
