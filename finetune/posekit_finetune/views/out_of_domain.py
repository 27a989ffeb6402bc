"""Views far from the person that is learned, on which the student should go on as the source does.

What a network learns from one domain it pays for elsewhere: bodies cut off, small, blurred or
beside others, of which the domain's own pictures show little. They can be made from these pictures
all the same, and the source says what it would have answered (learning without forgetting, Li and
Hoiem, ECCV 2016, on made-up inputs).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from posekit.types import ModelSpec, UInt8
from posekit_finetune.views import warps
from posekit_finetune.views.warps import Random, Strength, Views

_SHARE = 0.5
"""Of the views that show a piece of another person, and of those that are blurred."""

_PIECE = (0.25, 0.6)
"""Sides of the piece, in shares of the crop's."""

_SMALLER = (1.5, 5.0)
"""By how much a blurred view was shrunk: a person of 40 to 130 px on a crop of 192."""


def out_of_domain_views(
    randoms: Sequence[Random],
    patches: UInt8,
    offset: tuple[float, float],
    *,
    strength: Strength,
    spec: ModelSpec,
) -> Views:
    """Views of patches uint8 (B, PH, PW, 3), one generator a person.

    The strength's warp and operations, then for half of them a piece of the batch's neighbour, and
    for half of them the detail of a small picture.  offset: as in `views.cut`.
    """
    matrix = warps.draw_warps(randoms, strength, spec)
    seen = warps.cut_view(patches, offset, matrix, spec=spec)
    nowhere = np.zeros((len(randoms), len(spec.skeleton), 2), np.float32)
    crops = warps.augment(randoms, seen, nowhere, strength=strength, spec=spec).crops
    others = np.roll(crops, 1, 0)
    for random, crop, other in zip(randoms, crops, others, strict=True):
        if random.random() < _SHARE:
            _paste(random, crop, other)
        if random.random() < _SHARE:
            _blur(random, crop)
    return Views(crops, matrix)


def _paste(random: Random, crop: UInt8, other: UInt8) -> None:
    """A rectangle of another crop in the same place."""
    height, width = crop.shape[:2]
    w, h = (random.uniform(*_PIECE, 2) * (width, height)).astype(int)
    x, y = random.integers(0, width - w), random.integers(0, height - h)
    crop[y : y + h, x : x + w] = other[y : y + h, x : x + w]


def _blur(random: Random, crop: UInt8) -> None:
    """Shrunk and enlarged again."""
    height, width = crop.shape[:2]
    factor = random.uniform(*_SMALLER)
    small = (int(width / factor), int(height / factor))
    shrunk = cv2.resize(crop, small, interpolation=cv2.INTER_AREA)
    crop[:] = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
