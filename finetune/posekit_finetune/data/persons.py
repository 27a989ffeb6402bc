"""Persons, what adaptation learns from: patches of images, without labels.

A patch is a person's canonical crop with a margin on every side at the crop's resolution, so that
rotated and shifted views have content; the crop itself is the center of the patch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import DataError, InputError
from posekit.geometry import Warp
from posekit.types import Float32, Int64, ModelSpec, UInt8

_MARGIN = 0.25
"""Share of the input's side that a patch adds on each side: patches are 1.5 times as wide."""

_MIN_HELD_OUT = 100
"""Persons held out where there are enough: a share of 100 has a standard error of 5 points."""

_MAX_HELD_OUT = 0.3
"""Maximum share of the persons that is held out."""

SAME_CROPS = (
    *("input_size", "heatmap_size", "map_scale", "map_offset", "padding", "crop_shrink"),
    *("crop_center", "skeleton"),
)
"""Fields of two specs that must be equal for them to share crops, cells and keypoints."""


class Patches:
    """Rows of an array of images, mostly a memmap, read only when they are indexed.

    store: uint8 (M, H, W, 3).  rows: int (N,), indices into the store, None for all.
    Indexes like an array (N, H, W, 3); `patches[index]` is a copy in memory.
    """

    def __init__(self, store: UInt8, rows: Int64 | None = None) -> None:
        self.store = store
        self.rows = np.arange(len(store)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> UInt8:
        selected = np.asarray(self.store[self.rows[index]])
        return selected if selected.base is None else selected.copy()

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self.rows), *self.store.shape[1:])

    def select(self, index: ArrayLike) -> Patches:
        """The same store with fewer rows; nothing is read."""
        return Patches(self.store, self.rows[np.asarray(index)])


@dataclass(frozen=True)
class FindCounts:
    """How many persons were found and why others were excluded; the keys of "found" in a report.

    pictures: images and frames searched.  unreadable: image files that cannot be read.
    persons: boxes.  small, blank, duplicates: excluded for that reason.  surplus: over the limit.
    whole: images without a detection, each used as one person.
    """

    pictures: int = 0
    unreadable: int = 0
    persons: int = 0
    small: int = 0
    blank: int = 0
    duplicates: int = 0
    surplus: int = 0
    whole: int = 0


@dataclass(frozen=True, eq=False)
class Persons:
    """N persons as image patches, without their poses.

    patches: uint8 (N, PH, PW, 3) RGB.  offset: (x, y), whole px; crop px + offset = patch px.
    boxes: float32 (N, 4), frame px.  sources: N names, "img.jpg" or "clip.mp4#120".
    groups: int (N,), the image or video segment; held out as a whole or not at all.
    times_s: float (N,), NaN for images.  tracks: int (N,), one person in one clip, or -1.
    spec: defines the canonical crop.  fingerprint: sha256 over sources and pixels.
    notes: what was assumed, repaired or left out of the files.
    """

    patches: Patches | UInt8
    offset: tuple[float, float]
    boxes: Float32
    sources: tuple[str, ...]
    groups: Int64
    times_s: NDArray[np.float64]
    tracks: Int64
    spec: ModelSpec
    fingerprint: str
    counts: FindCounts = FindCounts()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = (self.boxes, self.sources, self.groups, self.times_s, self.tracks)
        if any(len(column) != len(self.patches) for column in columns):
            lengths = [len(column) for column in columns]
            raise InputError(
                f"persons: {len(self.patches)} patches, but {lengths} boxes, sources, groups, "
                "times and tracks; wanted as many of each"
            )
        wanted = patch_size(self.spec)[::-1]
        if self.patches.shape[1:] != (*wanted, 3) or self.offset != offset_of(self.spec):
            raise InputError(
                f"persons: patches {self.patches.shape} at {self.offset}; wanted (N, {wanted[0]}, "
                f"{wanted[1]}, 3) at {offset_of(self.spec)} for this network's input"
            )

    def __len__(self) -> int:
        return len(self.patches)

    def __repr__(self) -> str:
        return f"Persons({len(self)} of {len(set(self.groups.tolist()))} groups)"

    def crops(self, index: ArrayLike | slice) -> UInt8:
        """The canonical crops (n, H, W, 3) of the persons at `index`, copied."""
        width, height = self.spec.input_size
        x, y = (int(value) for value in self.offset)
        rows = np.arange(len(self))[index if isinstance(index, slice) else _rows(index)]
        patches: UInt8 = self.patches[np.atleast_1d(rows)]
        return np.ascontiguousarray(patches[:, y : y + height, x : x + width])

    def select(self, index: ArrayLike) -> Persons:
        """The persons at `index` (integers or booleans); pixels are not copied.

        `fingerprint` and `counts` remain those of the whole set.
        """
        rows = np.arange(len(self))[_rows(index)]
        patches = self.patches
        return dataclasses.replace(
            self,
            patches=patches.select(rows) if isinstance(patches, Patches) else patches[rows],
            boxes=self.boxes[rows],
            sources=tuple(self.sources[row] for row in rows),
            groups=self.groups[rows],
            times_s=self.times_s[rows],
            tracks=self.tracks[rows],
        )


def _rows(index: ArrayLike) -> NDArray[Any]:
    rows = np.asarray(index)
    return rows if rows.size else rows.astype(np.int64)  # an empty list is float64 to NumPy


def offset_of(spec: ModelSpec) -> tuple[float, float]:
    """Position of the crop's first pixel in its patch, (x, y), whole px."""
    width, height = spec.input_size
    return float(round(width * _MARGIN)), float(round(height * _MARGIN))


def patch_size(spec: ModelSpec) -> tuple[int, int]:
    """(PW, PH) of a network's patches."""
    width, height = spec.input_size
    x, y = offset_of(spec)
    return width + 2 * int(x), height + 2 * int(y)


def cut_patches(image: UInt8, warp: Warp, spec: ModelSpec) -> UInt8:
    """The patches (N, PH, PW, 3) around an image's canonical crops, interpolated once.

    Black beyond the image, as in `Runtime.crop`.
    """
    width, height = patch_size(spec)
    patches = np.empty((len(warp), height, width, 3), np.uint8)
    matrices = warp.matrix.copy()
    matrices[:, :, 2] += offset_of(spec)
    for matrix, patch in zip(matrices, patches, strict=True):
        cv2.warpAffine(image, matrix, (width, height), dst=patch, flags=cv2.INTER_LINEAR)
    return patches


def split(persons: Persons, *, held_out: float = 0.1, seed: int = 0) -> tuple[Int64, Int64]:
    """Rows to train on and rows held out, both ascending; whole groups, the same for a seed.

    held_out: share; raised so that 100 are held out, but at most 30 %.
    Raises InputError, and DataError where the groups are too large to hold one out.
    """
    if not 0 < held_out <= _MAX_HELD_OUT:
        raise InputError(
            f"held_out: wanted a share above 0, at most {_MAX_HELD_OUT}; got {held_out}"
        )
    groups, sizes = np.unique(persons.groups, return_counts=True)
    maximum = math.floor(_MAX_HELD_OUT * len(persons))
    wanted = min(max(round(held_out * len(persons)), _MIN_HELD_OUT), maximum)
    chosen: list[int] = []
    count = 0
    for n in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if count < wanted and count + sizes[n] <= maximum:
            chosen.append(n)
            count += int(sizes[n])
    if not chosen:
        raise DataError(
            f"{len(persons)} persons in {len(groups)} groups of images, the smallest of "
            f"{sizes.min(initial=len(persons))}: none can be held out without exceeding 30 %; add "
            "images or clips from other moments"
        )
    is_held = np.isin(persons.groups, groups[chosen])
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)
