"""Test-time augmentation: rotated and mirrored views of each crop in one batch, maps averaged.

The maps of each view are sampled where the upright crop's cells lie in it, and averaged with a
weight that grows with the view's mean peak, since a network is more confident in views that it
detects correctly. The teacher of `posekit adapt` is this code.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.geometry import Float64, Warp, compose
from posekit.inference.runtime import Runtime
from posekit.types import Float32, Int64, ModelSpec, Skeleton, UInt8

POWER = 4.0
"""Exponent of the mean peak in a view's weight: with 0, a plain average, the gain on LSPET is half
as large."""
LEAST_PEAK = 1e-3
"""Lower bound of a view's mean peak in its weight: no weight is 0."""
LEAST_SHARE = 1e-12
"""Lower bound of the divisor, the sum of the weights: a cell that no view contains is 0."""


@dataclass(frozen=True)
class View:
    """A crop rotated about its center by `turn_deg` (clockwise on screen), then mirrored."""

    turn_deg: float = 0.0
    mirrored: bool = False


VIEWS = {
    1: (View(),),
    2: (View(), View(0, mirrored=True)),
    4: tuple(View(turn) for turn in (0, 90, 180, 270)),
    8: tuple(View(turn, mirror) for turn in (0, 90, 180, 270) for mirror in (False, True)),
    14: tuple(View(turn, mirror) for turn in range(45, 360, 45) for mirror in (False, True)),
    16: tuple(View(turn, mirror) for turn in range(0, 360, 45) for mirror in (False, True)),
}
"""14 excludes the upright view, so that the views judge the network's upright prediction without
bias."""


COUNTS = {"aligned": 2, "aligned-flip": 4}
"""How many views those are that a person's own prediction chooses."""


def parse_views(text: str | None) -> int | str | None:
    """`--views`: a number where it is one."""
    return int(text) if text and text.isdecimal() else text


def describe_views(views: str) -> str:
    """What they cost, in a sentence."""
    count = COUNTS.get(views, views)
    return f"posekit: {count} views a person, {count} times the network's time"


class TtaOptions(NamedTuple):
    """Test-time augmentation: `flip`, the mirrored crop too, or several `views`: a number of fixed
    ones, or aligned ones (posekit.inference.aligned).
    """

    flip: bool = True
    views: int | str | None = None

    @property
    def each(self) -> tuple[View, ...]:
        """The fixed views; without the flip test, which is part of the decoding."""
        return VIEWS[self.views] if isinstance(self.views, int) else VIEWS[1]

    @property
    def is_aligned(self) -> bool:
        """Whether each person's own prediction chooses the views."""
        return isinstance(self.views, str)

    @property
    def mirrored(self) -> bool:
        """Whether mirrored crops are used."""
        if self.is_aligned:
            return True
        return self.flip if self.views is None else any(view.mirrored for view in self.each)

    def for_skeleton(self, skeleton: Skeleton) -> TtaOptions:
        """These, without the flip test where the skeleton's mirror pairs are not known.

        Raises InputError for views of which some are mirrored.
        """
        if skeleton.mirror or not self.mirrored:
            return self
        if self.views is None:
            return self._replace(flip=False)
        raise InputError(
            f"{self.views} views: some of them are mirrored, and the mirror pairs of skeleton "
            f"{skeleton.name} are not known; take 4 (rotations alone), or convert the checkpoint "
            "again with a skeleton file that states mirror"
        )

    @property
    def graph(self) -> str:
        """The bundle's graph for this, whose calibration is valid for the scores."""
        return "maps" if self.views is not None else "flip" if self.flip else "plain"


def matrix_of(view: View, spec: ModelSpec) -> Float64:
    """(2, 3) from crop pixels to the view's pixels, both of the spec's input size."""
    width, height = spec.input_size
    center = np.array([width - 1, height - 1]) / 2
    angle = np.deg2rad(view.turn_deg)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if view.mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    return np.concatenate([linear, (center - linear @ center)[:, None]], 1)


def cells_of(view: View, spec: ModelSpec) -> Float64:
    """(2, 3) from cells of the upright crop's maps to cells of the view's maps, x then y.

    The coefficients of a quarter turn are exactly 0 and 1, so that it maps cells to cells.
    """
    return cells_between(matrix_of(view, spec), spec)


def cells_between(matrix: Float64, spec: ModelSpec) -> Float64:
    """Affine maps (..., 2, 3) of crop pixels as maps of cells."""
    scale, origin = np.array(spec.map_scale), spec.cells_to_crop(np.zeros(2))
    linear = matrix[..., :2] * scale / scale[:, None]
    moved = spec.crop_to_cells(matrix[..., :2] @ origin + matrix[..., 2])
    cells = np.concatenate([linear, moved[..., None]], -1)
    return np.where(np.abs(cells - np.round(cells)) < 1e-9, np.round(cells), cells)


class Reader:
    """Samples maps of a view at the cells of the upright crop, bilinearly, zero beyond their edge.

    Built once for a view and a spec: cell -> crop px -> view px -> cell of the view.
    matrix: from crop px to the view's px, (2, 3) for all persons or (N, 2, 3), one each.
    defined: (h, w) or (N, 1, h, w), 1 where the view contains a cell of the crop, 0 where not.
    """

    def __init__(self, matrix: Float64, spec: ModelSpec, *, mirrored: bool) -> None:
        width, height = spec.heatmap_size
        self._mirror = np.array(spec.skeleton.mirror) if mirrored else None
        found = _taps(cells_between(matrix, spec), (width, height))
        self._taps = [(index, weight) for index, weight in found if weight.any()]
        sums = np.sum([weight for _, weight in self._taps], 0).astype(np.float32)
        self.defined: Float32 = sums.reshape(*sums.shape[:-1], height, width)

    @classmethod
    def of(cls, view: View, spec: ModelSpec) -> Self:
        """Of a view at the same angle for all persons."""
        return cls(matrix_of(view, spec), spec, mirrored=view.mirrored)

    def __call__(self, maps: Float32) -> Float32:
        """(N, K, h, w) of the view to (N, K, h, w) of the crop, left and right in their order."""
        flat = maps if self._mirror is None else maps[:, self._mirror]
        flat = flat.reshape(*maps.shape[:2], -1)
        sampled = np.zeros(flat.shape, np.float32)  # a view may contain none of the cells
        for index, weight in self._taps:
            taken = flat[:, :, index] if index.ndim == 1 else np.take_along_axis(flat, index, 2)
            sampled += taken * weight
        return sampled.reshape(maps.shape)


def _taps(matrix: Float64, size: tuple[int, int]) -> list[tuple[Int64, Float32]]:
    """The four neighbors of where each cell of a map lies: flat index and weight.

    matrix: (2, 3) or (N, 2, 3), from the cells of a map of this (w, h) to those of one of the same
    size.  Returns arrays (h * w,) or (N, 1, h * w).
    """
    width, height = size
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    matrix = matrix if matrix.ndim == 2 else matrix[:, None]
    cells = np.stack([columns, rows], 1) @ np.swapaxes(matrix[..., :2], -1, -2)
    cells = cells + matrix[..., None, :, 2]
    cells = np.where(np.abs(cells - np.round(cells)) < 1e-6, np.round(cells), cells)
    corner = np.floor(cells).astype(np.int64)
    moves = ((0, 0), (1, 0), (0, 1), (1, 1))
    return [_tap(corner, cells - corner, move, size=size) for move in moves]


def _tap(
    corner: Int64, fraction: Float64, move: tuple[int, int], *, size: tuple[int, int]
) -> tuple[Int64, Float32]:
    x, y = corner[..., 0] + move[0], corner[..., 1] + move[1]
    inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
    weights = np.where(np.array(move) == 1, fraction, 1 - fraction).prod(-1)
    index = np.where(inside, y * size[0] + x, 0)
    return index, np.where(inside, weights, 0).astype(np.float32)


def view_warps(warps: Sequence[Warp], matrices: Float64) -> list[Warp]:
    """From frames to every view of every person, those of a person contiguous.

    warps: of the persons of each frame, N in all.  matrices: (1 or N, V, 2, 3), crop px to view px.
    """
    each = np.broadcast_to(matrices, (sum(map(len, warps)), *matrices.shape[1:]))
    ends = itertools.accumulate(map(len, warps))
    return [
        Warp(compose(each[end - len(warp) : end], warp.matrix[:, None]).reshape(-1, 2, 3))
        for warp, end in zip(warps, ends, strict=True)
    ]


class TtaRuntime(Runtime):
    """A Runtime that averages `views` views: 1, 2 (mirrored), 4 (rotated), 8, 14 or 16 (both).

    Takes `views` times as long as the network. The bundle must contain the `maps` graph.
    Raises BundleError, DeviceError, InputError.
    """

    def __init__(
        self, bundle: Bundle, *, views: int = 8, device: str = "auto", threads: int | None = None
    ) -> None:
        if views not in VIEWS:
            raise InputError(f"views {views}: wanted one of {', '.join(map(str, VIEWS))}")
        tta = TtaOptions(views=views)
        super().__init__(bundle, device=device, threads=threads, flip=tta.mirrored, graph=tta.graph)
        self.views = VIEWS[views]
        self._matrices = np.stack([matrix_of(view, self.spec) for view in self.views])
        self._readers = [Reader.of(view, self.spec) for view in self.views]

    def crops(self, images: Sequence[UInt8], warps: Sequence[Warp]) -> UInt8:
        """Every view of every person, cropped from the frames: uint8 (N * V, h, w, 3)."""
        return super().crops(images, view_warps(warps, self._matrices[None]))

    def infer(self, crops: UInt8) -> tuple[Float32, Float32]:
        """The views of N persons to points (N, K, 2), px of the upright crop, and scores (N, K)."""
        return codecs.decode(self.maps(crops), self.spec)

    def maps(self, crops: UInt8) -> Float32:
        """The views of N persons, as returned by `crop`, to averaged heatmaps (N, K, h, w)."""
        columns, rows = self.spec.heatmap_size
        shape = (-1, len(self.views), len(self.spec.skeleton), rows, columns)
        if len(crops) == 0:
            return np.zeros((0, *shape[2:]), np.float32)
        return fuse(self.run(crops)[0].reshape(shape), self._readers)


def fuse(maps: Float32, readers: Sequence[Reader]) -> Float32:
    """Maps of V views (N, V, K, h, w) to their weighted mean in the upright crop (N, K, h, w).

    A view's weight is its mean peak over the keypoints to the power POWER; a cell is averaged over
    the views that contain it. A map with a NaN counts as one with a peak of 0.
    """
    peaks = maps.max((3, 4))
    means = np.where(np.isnan(peaks), np.float32(0), peaks).mean(2)
    weights: Float32 = (means.clip(LEAST_PEAK) ** POWER).astype(np.float32)
    total: Float32 = np.zeros_like(maps[:, 0])
    weight_sum: Float32 = np.zeros((len(maps), 1, *maps.shape[3:]), np.float32)
    for n, reader in enumerate(readers):
        weight = weights[:, n, None, None, None]
        total += weight * reader(maps[:, n])
        weight_sum += weight * reader.defined
    return np.asarray(total / np.maximum(weight_sum, LEAST_SHARE), np.float32)
