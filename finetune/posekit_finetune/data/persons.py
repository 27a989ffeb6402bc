"""The noun that adaptation learns from: persons cut out of pictures, without labels.

A patch is a person's canonical crop with a margin on every side at the crop's own density, so
that turned and moved views have content; the crop itself is the patch's middle.
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

_HELD_LEAST = 100
"""Persons held out where there are enough: a share over 100 has a standard error of 5 points."""

_HELD_MOST = 0.3
"""Share of the persons that may be held out."""

SAME_CROPS = (
    *("input_size", "heatmap_size", "map_scale", "map_offset", "padding", "crop_shrink"),
    *("crop_center", "skeleton"),
)
"""Of two specs, what must be equal for one's crops, cells and keypoints to be the other's."""


class Patches:
    """Rows of a store of pictures (a memmap, mostly), read only when they are asked for.

    store: uint8 (M, H, W, 3).  rows: int (N,), which of the store, None for all.
    Behaves like an array (N, H, W, 3) under indexing; `patches[index]` is a copy in memory.
    """

    def __init__(self, store: UInt8, rows: Int64 | None = None) -> None:
        self.store = store
        self.rows = np.arange(len(store)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> UInt8:
        picked = np.asarray(self.store[self.rows[index]])
        return picked if picked.base is None else picked.copy()

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self.rows), *self.store.shape[1:])

    def select(self, index: ArrayLike) -> Patches:
        """The same store, fewer rows; nothing is read."""
        return Patches(self.store, self.rows[np.asarray(index)])


@dataclass(frozen=True)
class Found:
    """How many persons were found, and what became of the others.

    pictures: images and frames looked at.  unreadable: image files left out.
    persons: boxes.  small, blank, duplicates: dropped for that reason.  surplus: over the limit.
    whole: pictures in which nobody was found, taken as one person each.
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
    """N persons in their pictures, and nothing about their poses.

    patches: uint8 (N, PH, PW, 3) RGB.  offset: (x, y), whole px; crop px + offset = patch px.
    boxes: float32 (N, 4), frame px.  sources: N names, "img.jpg" or "clip.mp4#120".
    groups: int (N,), the image or stretch of video; what is held out never parts one.
    times_s: float (N,), NaN for stills.  tracks: int (N,), one person in one clip, or -1.
    spec: whose canonical crop it is.  fingerprint: sha256 over sources and pixels.
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
    found: Found = Found()

    def __post_init__(self) -> None:
        parts = (self.boxes, self.sources, self.groups, self.times_s, self.tracks)
        if any(len(part) != len(self.patches) for part in parts):
            lengths = [len(part) for part in parts]
            raise InputError(f"persons: {len(self.patches)} patches, but {lengths} of the rest")
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
        """The canonical crops (n, H, W, 3) of the persons that `index` names; a copy."""
        width, height = self.spec.input_size
        x, y = (int(value) for value in self.offset)
        rows = np.arange(len(self))[index if isinstance(index, slice) else _rows(index)]
        patches: UInt8 = self.patches[np.atleast_1d(rows)]
        return np.ascontiguousarray(patches[:, y : y + height, x : x + width])

    def select(self, index: ArrayLike) -> Persons:
        """The persons that `index` (integers or booleans) names; pixels stay where they are.

        `fingerprint` and `found` remain those of the whole set.
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
    return rows if rows.size else rows.astype(np.int64)  # NumPy takes [] for floats


def offset_of(spec: ModelSpec) -> tuple[float, float]:
    """Where the crop's first pixel lies in its patch, (x, y), whole px."""
    width, height = spec.input_size
    return float(round(width * _MARGIN)), float(round(height * _MARGIN))


def patch_size(spec: ModelSpec) -> tuple[int, int]:
    """(PW, PH) of a network's patches."""
    width, height = spec.input_size
    x, y = offset_of(spec)
    return width + 2 * int(x), height + 2 * int(y)


def cut_patches(image: UInt8, warp: Warp, spec: ModelSpec) -> UInt8:
    """The patches (N, PH, PW, 3) of a picture's canonical crops, interpolated once.

    Black beyond the picture, as `Runtime.crop` has it.
    """
    width, height = patch_size(spec)
    patches = np.empty((len(warp), height, width, 3), np.uint8)
    matrices = warp.matrix.copy()
    matrices[:, :, 2] += offset_of(spec)
    for matrix, patch in zip(matrices, patches, strict=True):
        cv2.warpAffine(image, matrix, (width, height), dst=patch, flags=cv2.INTER_LINEAR)
    return patches


def split(persons: Persons, *, held_out: float = 0.1, seed: int = 0) -> tuple[Int64, Int64]:
    """Rows to learn from and rows to judge by, both ascending; whole groups, same seed same rows.

    held_out: share; raised so that 100 are held out, but never more than 30 %.
    Raises InputError, and DataError where the groups are too large to hold one out.
    """
    if not 0 < held_out <= _HELD_MOST:
        raise InputError(f"held_out: wanted a share above 0, at most {_HELD_MOST}; got {held_out}")
    groups, sizes = np.unique(persons.groups, return_counts=True)
    most = math.floor(_HELD_MOST * len(persons))
    wanted = min(max(round(held_out * len(persons)), _HELD_LEAST), most)
    chosen: list[int] = []
    count = 0
    for n in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if count < wanted and count + sizes[n] <= most:
            chosen.append(n)
            count += int(sizes[n])
    if not chosen:
        raise DataError(
            f"{len(persons)} persons in {len(groups)} stretches of pictures, the smallest of "
            f"{sizes.min(initial=len(persons))}: none can be held out without taking more than "
            "30 %; add pictures or clips from other moments"
        )
    held = np.isin(persons.groups, groups[chosen])
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)
