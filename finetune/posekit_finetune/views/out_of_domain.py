"""Out-of-domain views, on which the student should keep the outputs of its source.

Adaptation to one domain costs accuracy on others: truncated, small, blurred or crowded persons, of
which the domain's own images show few. Such views can be synthesized from these images, and the
source network provides the targets (learning without forgetting, Li and Hoiem, ECCV 2016, on
synthetic inputs), to limit catastrophic forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from posekit.types import ModelSpec, UInt8
from posekit_finetune.views import warps
from posekit_finetune.views.warps import Random, Strength, Views

_SHARE = 0.5
"""Share of the views with a piece of another person, and of those that are blurred."""

_PIECE = (0.25, 0.6)
"""Range of the piece's sides, as shares of the crop's."""

_DOWNSCALE = (1.5, 5.0)
"""Range of the factor by which a blurred view is shrunk: a person of 40 to 130 px on a crop of 192
px."""


def out_of_domain_views(
    randoms: Sequence[Random],
    patches: UInt8,
    offset: tuple[float, float],
    *,
    strength: Strength,
    spec: ModelSpec,
) -> Views:
    """Views of patches uint8 (B, PH, PW, 3), one generator per person.

    The warp and operations of `strength`, then for half of them a piece of the next person in the
    batch, and for half of them the detail of a small image.  offset: as in `warps.cut_view`.
    """
    views = warps.draw_view(randoms, patches, offset, strength=strength, spec=spec)
    no_joints = np.zeros((len(randoms), len(spec.skeleton), 2), np.float32)
    crops = warps.augment(randoms, views, no_joints, strength=strength, spec=spec).crops
    others = np.roll(crops, 1, 0)
    for random, crop, other in zip(randoms, crops, others, strict=True):
        if random.random() < _SHARE:
            _paste(random, crop, other)
        if random.random() < _SHARE:
            _blur(random, crop)
    return Views(crops, views.matrix)


def _paste(random: Random, crop: UInt8, other: UInt8) -> None:
    """Copy a rectangle of another crop to the same place."""
    height, width = crop.shape[:2]
    w, h = (random.uniform(*_PIECE, 2) * (width, height)).astype(int)
    x, y = random.integers(0, width - w), random.integers(0, height - h)
    crop[y : y + h, x : x + w] = other[y : y + h, x : x + w]


def _blur(random: Random, crop: UInt8) -> None:
    """Shrink and enlarge again."""
    height, width = crop.shape[:2]
    factor = random.uniform(*_DOWNSCALE)
    small = (int(width / factor), int(height / factor))
    shrunk = cv2.resize(crop, small, interpolation=cv2.INTER_AREA)
    crop[:] = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
