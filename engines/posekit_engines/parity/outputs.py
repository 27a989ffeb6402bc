"""Outputs of the source network and of an export on the check crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
from torch import nn

from posekit import codecs
from posekit.types import Float32, ModelSpec, UInt8
from posekit_engines.parity.source import source_maps

T = TypeVar("T")
_CHUNK = 4  # crops at a time, which bounds memory
TIMED_RUNS = 3
_TIMING_S = 1.0  # no further run once the runs took this long


@dataclass(frozen=True, eq=False)
class SourceOutputs:
    """Outputs of the torch network in float32 and the numpy codecs for N crops.

    maps: merged heatmaps (N, K, h, w).  points: (N, K, 2) crop px.  scores: (N, K).
    crop_s: seconds a crop, the best of a few.
    """

    maps: Float32
    points: Float32
    scores: Float32
    crop_s: float

    def __add__(self, more: SourceOutputs) -> SourceOutputs:
        """These crops and then those of `more`, timed as these."""
        pairs = ((self.maps, more.maps), (self.points, more.points), (self.scores, more.scores))
        maps, points, scores = (np.concatenate(pair) for pair in pairs)
        return SourceOutputs(maps, points, scores, self.crop_s)


@dataclass(frozen=True, eq=False)
class ExportOutputs:
    """Outputs of the exported file for N crops.

    points: (N, K, 2) crop px.  scores: (N, K).  crop_s: seconds a crop.
    maps: heatmaps (M, K, h, w) of the crops `map_rows`, merged where the flip test is inside.
    not_finite: how many values of all these are NaN or infinite.
    """

    points: Float32
    scores: Float32
    crop_s: float
    maps: Float32
    map_rows: Sequence[int]
    not_finite: int


def source_outputs(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool, crop_s: float | None = None
) -> SourceOutputs:
    """The source's outputs for crops uint8 (N, H, W, 3) RGB, computed a few at a time.

    crop_s: if measured before. None: measured here, for a slow network as the mean of these crops.
    """
    start = perf_counter()
    chunks = [
        source_maps(net, crops[n : n + _CHUNK], spec, flip=flip)
        for n in range(0, len(crops), _CHUNK)
    ]
    mean_s = (perf_counter() - start) / len(crops)
    maps = np.concatenate(chunks)
    points, scores = codecs.decode(maps, spec)
    if crop_s is None and mean_s > _TIMING_S:
        crop_s = mean_s
    elif crop_s is None:
        crop_s, _ = best_time_s(lambda: source_maps(net, crops[:1], spec, flip=flip))
    return SourceOutputs(maps, points, scores, crop_s)


def best_time_s(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of a few runs, or of the first where it is slow; and the result."""
    times: list[float] = []
    while len(times) <= TIMED_RUNS and sum(times) < _TIMING_S:
        start = perf_counter()
        result = work()
        times.append(perf_counter() - start)
    return min(times), result
