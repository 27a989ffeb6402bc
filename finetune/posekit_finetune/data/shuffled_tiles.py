"""Whether pictures are tiles in a wrong order: persons in them are no persons to learn from.

Noise and single colours are told by what is found in them; a picture that was cut into coarse
tiles still holds heads and limbs, and a detector still finds them.
"""

from __future__ import annotations

import cv2
import numpy as np

from posekit.types import Float32, UInt8

GRIDS = tuple(range(3, 13))
"""Tiles each way. Two each way is how four cameras are shown at once."""

_SIDE = 240
"""Pictures are looked at so small, px."""

_SEAM = 2.0
"""How much steeper than a usual place the faintest seam of a grid must be, both ways.

Of 290 pictures of LSPET and COCO none has such, the steepest 1.5; cut into 3 to 12 tiles each way
and put together in a random order 93 to 98 % of them have, mostly above 4.
"""

_SHARE = 0.5
"""Of the pictures with such seams at the same places."""


class TileDetector:
    """Looks at pictures as they come, and says at the end how they were cut."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(GRIDS), np.int64)
        self._pictures = 0

    def look(self, image: UInt8) -> None:
        """One picture (H, W, 3)."""
        self._counts += seams(image) >= _SEAM
        self._pictures += 1

    @property
    def cut(self) -> int | None:
        """Tiles each way, None where most pictures are whole."""
        if not self._pictures or self._counts.max() <= _SHARE * self._pictures:
            return None
        return GRIDS[int(self._counts.argmax())]


def seams(image: UInt8) -> Float32:
    """For each of GRIDS how steep its faintest seam is against a usual place, (10,)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    each = [_steep(np.abs(np.diff(small, axis=axis)).mean(1 - axis)) for axis in (0, 1)]
    return np.asarray(np.minimum(*each), np.float32)


def _steep(steps: Float32) -> Float32:
    """The same along one axis; `steps` (239,) are mean differences of neighbours."""
    near = np.maximum(np.maximum(steps[:-2], steps[1:-1]), steps[2:])  # near[i] is about step i + 1
    usual = max(float(np.median(near)), 1e-3)
    faintest = []
    for count in GRIDS:
        places = np.rint(np.arange(1, count) * _SIDE / count).astype(np.int64)
        faintest.append(near[places - 2].min() / usual)
    return np.array(faintest, np.float32)
