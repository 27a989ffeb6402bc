"""Ranges of tensors for int8, by two methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from posekit_engines.precision import qdq
from posekit_engines.precision.activations import Feed, record_activations
from posekit_engines.precision.qdq import Range

_SAMPLES = 2048  # values kept of each tensor and crop
_FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest values; what is tried as a limit
Ranges = dict[str, Range]


def calibrate_ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, Ranges]:
    """Ranges of every tensor of a folded model that may become uint8, by two methods.

    `largest values` takes the least and the largest value seen; `least error` narrower limits
    where they lose less in sum.  Raises InputError where there is no crop.
    """
    names = qdq.observed_tensors(model)
    largest: Ranges = dict.fromkeys(names, (0.0, 0.0))
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for tensors in record_activations(model, feeds, names):
        for name, value in tensors.items():
            low, high = largest[name]
            largest[name] = min(low, float(value.min())), max(high, float(value.max()))
            flat = value.reshape(-1)
            samples[name].append(flat[:: max(1, len(flat) // _SAMPLES)].copy())
    narrow = {name: least_error(np.concatenate(samples[name]), largest[name]) for name in names}
    return {"largest values": largest, "least error": narrow}


def least_error(sample: NDArray[np.float32], limits: Range) -> Range:
    """The limits, shrunk as a whole, that lose least in the mean square with 255 steps."""
    return min(
        ((low, high) for low, high in _shrunk(limits)),
        key=lambda each: float(np.mean((_stepped(sample, each) - sample) ** 2)),
    )


def _shrunk(limits: Range) -> Iterator[Range]:
    for factor in _FACTORS:
        yield limits[0] * factor, limits[1] * factor


def _stepped(sample: NDArray[np.float32], limits: Range) -> NDArray[np.float32]:
    low, high = limits
    step = (high - low) / 255 or 1.0
    return np.asarray(np.round(np.clip(sample, low, high) / step) * step, np.float32)
