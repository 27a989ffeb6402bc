"""Arrays of pixels, checked before they are drawn on or cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError


def check_image(image: object) -> NDArray[np.uint8]:
    """`image`, which is a uint8 array (H, W, 3). Raises InputError for anything else."""
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"image: wanted its pixels, a uint8 array (H, W, 3), got {type(image).__name__}; only "
            "the estimator opens paths and PIL images"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image: wanted uint8 (H, W, 3), got {image.dtype} {image.shape}")
    checked: NDArray[Any] = image
    return checked
