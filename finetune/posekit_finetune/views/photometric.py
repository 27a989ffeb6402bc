"""RandAugment without geometry: eleven photometric operations, a gray square among them.

Source: Cubuk et al., 2020; the list, the ranges and the magnitude of 20 of 30 are those of Xie et
al., ICCV 2021 (posterize to 4 bits, solarize at 85, +73, contrast of 1 ± 0.6, a square of 53 px
on a crop of 192). Not Pillow's operations: its equalize and sharpness differ by up to 15 and 4 gray
levels from these, which the measured recipes were trained with.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from posekit.types import UInt8

Random = np.random.Generator
_MAX_MAGNITUDE = 30.0


def augment(random: Random, crop: UInt8, operations: int, *, magnitude: float) -> UInt8:
    """Apply `operations` of OPERATIONS, drawn with replacement, to uint8 (H, W, 3)."""
    for index in random.integers(0, len(OPERATIONS), operations):
        crop = OPERATIONS[index](random, crop, magnitude / _MAX_MAGNITUDE)
    return crop


def _to_uint8(values: object) -> UInt8:
    return np.clip(np.rint(np.asarray(values, np.float32)), 0, 255).astype(np.uint8)


def _sign(random: Random) -> float:
    return float(random.choice((-1.0, 1.0)))


def _blend(crop: UInt8, other: object, factor: float) -> UInt8:
    """Extrapolate from `other` at factor 0 through the crop at 1."""
    base = np.asarray(other, np.float32)
    return _to_uint8(base + (crop.astype(np.float32) - base) * factor)


def _gray(crop: UInt8) -> UInt8:
    gray: UInt8 = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.repeat(gray[:, :, None], 3, 2)


def autocontrast(random: Random, crop: UInt8, level: float) -> UInt8:
    """Each channel's darkest value to 0 and its brightest to 255."""
    del random, level
    low, high = crop.min((0, 1)).astype(np.float32), crop.max((0, 1)).astype(np.float32)
    return _to_uint8((crop - low) * (255 / np.maximum(high - low, 1)))


def equalize(random: Random, crop: UInt8, level: float) -> UInt8:
    """Each channel's histogram flat."""
    del random, level
    channels = [cv2.equalizeHist(np.ascontiguousarray(crop[:, :, c])) for c in range(3)]
    return np.stack(channels, 2).astype(np.uint8)


def invert(random: Random, crop: UInt8, level: float) -> UInt8:
    """255 minus each value."""
    del random, level
    return 255 - crop


def posterize(random: Random, crop: UInt8, level: float) -> UInt8:
    """Fewer bits per channel: 8 at 0, 4 at 20 of 30, 2 at 30."""
    del random
    bits = round(6 * level)
    return ((crop >> bits) << bits).astype(np.uint8)


def solarize(random: Random, crop: UInt8, level: float) -> UInt8:
    """Values above a threshold inverted: 256 at 0, 85 at 20 of 30."""
    del random
    return np.where(crop < 256 * (1 - level), crop, 255 - crop).astype(np.uint8)


def solarize_add(random: Random, crop: UInt8, level: float) -> UInt8:
    """Values below 128 raised: +73 at 20 of 30."""
    del random
    return np.where(crop < 128, _to_uint8(crop + 110.0 * level), crop).astype(np.uint8)


def color(random: Random, crop: UInt8, level: float) -> UInt8:
    """Saturation 1 ± 0.6 at 20 of 30."""
    return _blend(crop, _gray(crop), 1 + _sign(random) * 0.9 * level)


def contrast(random: Random, crop: UInt8, level: float) -> UInt8:
    """Contrast 1 ± 0.6 at 20 of 30, around the mean gray."""
    return _blend(
        crop, np.full_like(crop, round(float(_gray(crop).mean()))), _factor(random, level)
    )


def brightness(random: Random, crop: UInt8, level: float) -> UInt8:
    """Brightness 1 ± 0.6 at 20 of 30."""
    return _blend(crop, np.zeros_like(crop), _factor(random, level))


def sharpness(random: Random, crop: UInt8, level: float) -> UInt8:
    """Sharpness 1 ± 0.6 at 20 of 30."""
    return _blend(crop, cv2.blur(crop, (3, 3)), _factor(random, level))


def _factor(random: Random, level: float) -> float:
    return 1 + _sign(random) * 0.9 * level


def cutout(random: Random, crop: UInt8, level: float) -> UInt8:
    """A gray square, 53 of 192 px wide at 20 of 30, at a random place."""
    height, width = crop.shape[:2]
    half = max(1, round(0.208 * level * width))
    x, y = random.integers(0, width), random.integers(0, height)
    crop = crop.copy()
    crop[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    return crop


OPERATIONS: tuple[Callable[[Random, UInt8, float], UInt8], ...] = (
    autocontrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
    color,
    contrast,
    brightness,
    sharpness,
    cutout,
)
