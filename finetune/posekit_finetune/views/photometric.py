"""RandAugment without geometry: eleven photometric operations and a grey square.

Source: Cubuk et al., 2020; the list, the ranges and the magnitude of 20 of 30 are those of Xie et
al., ICCV 2021 (posterise to 4 bits, solarise at 85, +73, contrasts of 1 ± 0.6, a square of 53 px
on a crop of 192).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from posekit.types import UInt8

Random = np.random.Generator
_FULL = 30.0


def augment(random: Random, crop: UInt8, operations: int, *, magnitude: float) -> UInt8:
    """`operations` of the list in a row, drawn with replacement, on uint8 (H, W, 3)."""
    for index in random.integers(0, len(OPERATIONS), operations):
        crop = OPERATIONS[index](random, crop, magnitude / _FULL)
    return crop


def _clipped(values: object) -> UInt8:
    return np.clip(np.rint(np.asarray(values, np.float32)), 0, 255).astype(np.uint8)


def _sign(random: Random) -> float:
    return float(random.choice((-1.0, 1.0)))


def _mixed(crop: UInt8, other: object, factor: float) -> UInt8:
    """`other` at factor 0, the crop at 1, beyond it above."""
    base = np.asarray(other, np.float32)
    return _clipped(base + (crop.astype(np.float32) - base) * factor)


def _grey(crop: UInt8) -> UInt8:
    grey: UInt8 = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.repeat(grey[:, :, None], 3, 2)


def autocontrast(random: Random, crop: UInt8, share: float) -> UInt8:
    """Each channel's darkest value to 0 and its brightest to 255."""
    del random, share
    low, high = crop.min((0, 1)).astype(np.float32), crop.max((0, 1)).astype(np.float32)
    return _clipped((crop - low) * (255 / np.maximum(high - low, 1)))


def equalize(random: Random, crop: UInt8, share: float) -> UInt8:
    """Each channel's histogram flat."""
    del random, share
    channels = [cv2.equalizeHist(np.ascontiguousarray(crop[:, :, c])) for c in range(3)]
    return np.stack(channels, 2).astype(np.uint8)


def invert(random: Random, crop: UInt8, share: float) -> UInt8:
    """The negative."""
    del random, share
    return 255 - crop


def posterize(random: Random, crop: UInt8, share: float) -> UInt8:
    """Fewer bits: 8 at 0, 4 at 20 of 30, 2 at 30."""
    del random
    lost = round(6 * share)
    return ((crop >> lost) << lost).astype(np.uint8)


def solarize(random: Random, crop: UInt8, share: float) -> UInt8:
    """Values above a threshold inverted: 256 at 0, 85 at 20 of 30."""
    del random
    return np.where(crop < 256 * (1 - share), crop, 255 - crop).astype(np.uint8)


def solarize_add(random: Random, crop: UInt8, share: float) -> UInt8:
    """Dark values brightened: +73 at 20 of 30."""
    del random
    return np.where(crop < 128, _clipped(crop + 110.0 * share), crop).astype(np.uint8)


def color(random: Random, crop: UInt8, share: float) -> UInt8:
    """Saturation 1 ± 0.6 at 20 of 30."""
    return _mixed(crop, _grey(crop), 1 + _sign(random) * 0.9 * share)


def contrast(random: Random, crop: UInt8, share: float) -> UInt8:
    """Contrast 1 ± 0.6 at 20 of 30, about the mean grey."""
    return _mixed(crop, np.full_like(crop, round(float(_grey(crop).mean()))), _range(random, share))


def brightness(random: Random, crop: UInt8, share: float) -> UInt8:
    """Brightness 1 ± 0.6 at 20 of 30."""
    return _mixed(crop, np.zeros_like(crop), _range(random, share))


def sharpness(random: Random, crop: UInt8, share: float) -> UInt8:
    """Sharper or softer, 1 ± 0.6 at 20 of 30."""
    return _mixed(crop, cv2.blur(crop, (3, 3)), _range(random, share))


def _range(random: Random, share: float) -> float:
    return 1 + _sign(random) * 0.9 * share


def cutout(random: Random, crop: UInt8, share: float) -> UInt8:
    """A grey square, 53 of 192 px wide at 20 of 30, anywhere."""
    height, width = crop.shape[:2]
    half = max(1, round(0.208 * share * width))
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
