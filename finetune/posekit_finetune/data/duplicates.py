"""Which pictures show nearly the same, and which show nothing."""

from __future__ import annotations

import cv2
import numpy as np

from posekit.types import Float32, UInt8

_SIDE = 16
"""Cells of a thumbnail, each way: the limb of a person who fills the crop is one or two wide."""

_NEAR = 0.92
"""Persons whose thumbnails correlate this much are near-duplicates.

Of 1,011 persons in 250 LSPET photos it drops 2; of a walker filmed at 10 frames a second a third;
of somebody standing nearly all. See the module's tests.
"""

_FLAT = 4.0
"""A picture whose grey levels (0..255) spread less than this shows nothing."""


def thumbnail(image: UInt8) -> Float32:
    """A picture (H, W, 3) as 256 grey cells with mean 0 and length 1; zeros where it is blank."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    cells: Float32 = small.reshape(-1).astype(np.float32)
    spread = float(grey.std())
    cells -= cells.mean()
    length = float(np.linalg.norm(cells))
    if spread < _FLAT or length < 1e-3:
        return np.zeros_like(cells)
    return cells / np.float32(length)


def likeness(a: Float32, b: Float32) -> float:
    """Correlation of two thumbnails, -1 to 1; 0 where one is blank."""
    return float(a @ b)


class DuplicateFilter:
    """Thumbnails of the persons that were kept: tells whether one more shows something new."""

    def __init__(self, limit: int) -> None:
        self._kept = np.zeros((limit, _SIDE * _SIDE), np.float32)
        self._count = 0

    def is_near(self, look: Float32) -> bool:
        """Whether a kept one is nearly the same."""
        return bool((self._kept[: self._count] @ look).max(initial=-1.0) >= _NEAR)

    def put(self, row: int, look: Float32) -> None:
        """Remember a thumbnail as that of `row`, in place of any before."""
        self._kept[row] = look
        self._count = max(self._count, row + 1)
