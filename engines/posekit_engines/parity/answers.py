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
_CHUNK = 4  # crops at a time: bounds memory
TIMED_RUNS = 3
_PATIENCE_S = 1.0


@dataclass(frozen=True, eq=False)
class SourceOutputs:
    """What the torch network in float32 and the numpy codecs say of N crops.

    maps: merged heatmaps (N, K, h, w).  points: (N, K, 2) crop px.  scores: (N, K).
    crop_s: seconds a crop, the least of a few.
    """

    maps: Float32
    points: Float32
    scores: Float32
    crop_s: float

    def __add__(self, more: SourceOutputs) -> SourceOutputs:
        """These crops and then those of `more`, which are as slow."""
        ends = ((self.maps, more.maps), (self.points, more.points), (self.scores, more.scores))
        maps, points, scores = (np.concatenate(pair) for pair in ends)
        return SourceOutputs(maps, points, scores, self.crop_s)


@dataclass(frozen=True, eq=False)
class ExportOutputs:
    """What the exported file says: points in crop px, scores, seconds a crop; maps of some crops.

    maps: the network's own heatmaps of the crops `tapped`, upright view, or merged ones of all.
    not_finite: numbers in all outputs, and in those maps, that are none.
    """

    points: Float32
    scores: Float32
    crop_s: float
    maps: Float32
    tapped: Sequence[int]
    not_finite: int


def source_outputs(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool, crop_s: float | None = None
) -> SourceOutputs:
    """The source's answer to crops uint8 (N, H, W, 3) RGB, a few at a time.

    crop_s: as measured before. None: now, of a slow network the mean of these crops.
    """
    start = perf_counter()
    parts = [
        source_maps(net, crops[n : n + _CHUNK], spec, flip=flip)
        for n in range(0, len(crops), _CHUNK)
    ]
    spent = (perf_counter() - start) / len(crops)
    maps = np.concatenate(parts)
    points, scores = codecs.decode(maps, spec)
    if crop_s is None and spent > _PATIENCE_S:
        crop_s = spent
    elif crop_s is None:
        crop_s, _ = best_time_s(lambda: source_maps(net, crops[:1], spec, flip=flip))
    return SourceOutputs(maps, points, scores, crop_s)


def best_time_s(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the quickest of a few runs, of what is slow of the first; and its answer."""
    times: list[float] = []
    while len(times) <= TIMED_RUNS and sum(times) < _PATIENCE_S:
        start = perf_counter()
        answer = work()
        times.append(perf_counter() - start)
    return min(times), answer
