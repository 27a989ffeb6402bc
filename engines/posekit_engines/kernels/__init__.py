"""The CUDA sources, and what they are compiled with.

Each is a file of its own whose head says what it does; `posekit_engines.ops` launches them,
`posekit_engines.ops.reference` computes the same in numpy. Tuning numbers have one place: the
thresholds stay in `posekit.codecs` and `posekit.tta` and reach the sources as definitions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekit import codecs, tta

THREADS = 128
"""Of a block, for every kernel: 16 blocks of them fill a multiprocessor."""
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
"""What each source defines."""


def source(name: str) -> str:
    """The text of `name`.cu."""
    return (FOLDER / f"{name}.cu").read_text(encoding="utf-8")


def header() -> str:
    """The text of what the sources include."""
    return (FOLDER / HEADER).read_text(encoding="utf-8")


def definitions() -> tuple[str, ...]:
    """The options that give the sources their numbers, for any compiler."""
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
