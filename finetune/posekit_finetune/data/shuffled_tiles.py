"""Detects images that were cut into tiles and reassembled in a wrong order.

Noise and single colors contain no persons and are rejected for that. An image in coarse tiles
still contains heads and limbs, and a detector still finds them.
"""

from __future__ import annotations

import cv2
import numpy as np

from posekit.types import Float32, UInt8

GRIDS = tuple(range(3, 13))
"""Tiles per side. Two per side are excluded: that is how four cameras are shown at once."""

_SIDE = 240
"""Images are resized to this side before the search, px."""

_SEAM_RATIO = 2.0
"""How much steeper than a typical place the faintest seam of a grid must be, in both directions.

Of 290 images of LSPET and COCO none reaches it, the steepest has 1.5; of images cut into 3 to 12
tiles per side and reassembled in random order 93 to 98 % do, mostly above 4.
"""

_SHARE = 0.5
"""Share of the images that must have such seams at the same places."""


class TileDetector:
    """Counts over all images which tile grids show."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(GRIDS), np.int64)
        self._images = 0

    def add(self, image: UInt8) -> None:
        """Count one image (H, W, 3)."""
        self._counts += seam_ratios(image) >= _SEAM_RATIO
        self._images += 1

    @property
    def grid(self) -> int | None:
        """Tiles per side, None where most images are intact."""
        if not self._images or self._counts.max() <= _SHARE * self._images:
            return None
        return GRIDS[int(self._counts.argmax())]


def seam_ratios(image: UInt8) -> Float32:
    """Steepness of each grid's faintest seam relative to a typical place, (10,), as in GRIDS."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    steps = [np.abs(np.diff(small, axis=axis)).mean(1 - axis) for axis in (0, 1)]
    return np.asarray(np.minimum(*map(_axis_ratios, steps)), np.float32)


def _axis_ratios(steps: Float32) -> Float32:
    """Seam ratios along one axis; steps: (239,), mean absolute differences of neighbors."""
    near = np.maximum(np.maximum(steps[:-2], steps[1:-1]), steps[2:])  # near[i] is about step i + 1
    typical = max(float(np.median(near)), 1e-3)
    faintest = []
    for count in GRIDS:
        places = np.rint(np.arange(1, count) * _SIDE / count).astype(np.int64)
        faintest.append(near[places - 2].min() / typical)
    return np.array(faintest, np.float32)
