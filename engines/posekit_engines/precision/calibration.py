"""Ranges of tensors for int8, from real crops, by two methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from posekit_engines.precision import qdq
from posekit_engines.precision.activations import Feed, record_activations
from posekit_engines.precision.qdq import Range

_SAMPLES = 2048  # values kept of each tensor and crop
_FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # shares of the full range that are tried
Ranges = dict[str, Range]


def calibrate_ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, Ranges]:
    """Ranges of every tensor of a folded model that may become uint8, by name of the method.

    `largest values`: the smallest and largest value of all crops.  `least error`: a narrower range
    where that has the smaller squared error.  Raises InputError where there is no crop.
    """
    names = qdq.activation_tensors(model)
    largest: Ranges = dict.fromkeys(names, (0.0, 0.0))
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for tensors in record_activations(model, feeds, names):
        for name, value in tensors.items():
            low, high = largest[name]
            largest[name] = min(low, float(value.min())), max(high, float(value.max()))
            flat = value.reshape(-1)
            samples[name].append(flat[:: max(1, len(flat) // _SAMPLES)].copy())
    narrow = {
        name: least_error_range(np.concatenate(samples[name]), largest[name]) for name in names
    }
    return {"largest values": largest, "least error": narrow}


def least_error_range(sample: NDArray[np.float32], full: Range) -> Range:
    """The range `full`, scaled down, with the smallest mean squared error in 255 steps."""
    return min(
        ((full[0] * factor, full[1] * factor) for factor in _FACTORS),
        key=lambda each: float(np.mean((_quantized(sample, each) - sample) ** 2)),
    )


def _quantized(sample: NDArray[np.float32], limits: Range) -> NDArray[np.float32]:
    """The sample, clipped and rounded to 255 steps between the limits."""
    low, high = limits
    step = (high - low) / 255 or 1.0
    return np.asarray(np.round(np.clip(sample, low, high) / step) * step, np.float32)
