"""The CUDA sources, and the definitions they are compiled with.

One file per kernel, documented in its header comment; `posekit_engines.ops` launches them,
`posekit_engines.ops.reference` computes the same in numpy. Constants have one place: the thresholds
of `posekit.codecs` and `posekit.inference.tta` are passed to the compiler as definitions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekit import codecs
from posekit.inference import tta

THREADS = 128
"""Threads per block of every kernel: 16 such blocks fill a multiprocessor."""
FOLDER = Path(__file__).parent
HEADER = "device.cuh"
FUNCTIONS = {
    "decode_flip": ("decode_flip_f16", "decode_flip_f32"),
    "crop_normalize": (
        "crop_normalize_rgb_f16",
        "crop_normalize_rgb_f32",
        "crop_normalize_nv12_f16",
        "crop_normalize_nv12_f32",
    ),
    "fuse_views": ("fuse_views_f16", "fuse_views_f32"),
}
"""The functions that each source defines."""


def source(name: str) -> str:
    """The text of `name`.cu."""
    return (FOLDER / f"{name}.cu").read_text(encoding="utf-8")


def header() -> str:
    """The text of the header that the sources include."""
    return (FOLDER / HEADER).read_text(encoding="utf-8")


def definitions() -> tuple[str, ...]:
    """Compiler options that define the sources' constants, for any compiler."""
    numbers = {
        "TINY": codecs.TINY,
        "FLAT": codecs.FLAT,
        "THIN": codecs.THIN,
        "MAX_STEP": codecs.MAX_STEP,
        "UDP_FLOOR": codecs.UDP_FLOOR,
        "UDP_CEILING": codecs.UDP_CEILING,
        "POWER": tta.POWER,
        "LEAST_PEAK": tta.LEAST_PEAK,
        "LEAST_SHARE": tta.LEAST_SHARE,
    }
    floats = (f"-D{name}={float(np.float32(value))!r}f" for name, value in numbers.items())
    return (f"-DTHREADS={THREADS}", *floats)
