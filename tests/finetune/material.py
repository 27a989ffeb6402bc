"""Pictures that differ, made when a test runs."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit.skeletons import COCO_17
from posekit.types import ModelSpec

SPEC = ModelSpec("movenet", (64, 64), (16, 16), COCO_17, padding=1.0, crop_center=0.5)


def blobs(seed: int, size: tuple[int, int] = (96, 96)) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of smooth blobs, unlike that of any other seed."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def write_blobs(folder: Path, count: int, *, first: int = 0) -> Path:
    """So many different PNG files."""
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + count):
        cv2.imwrite(str(folder / f"{seed:04}.png"), blobs(seed))
    return folder
