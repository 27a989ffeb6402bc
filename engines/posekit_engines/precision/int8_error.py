"""The error that a trial quantization makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from posekit import codecs
from posekit.stats.parity import deviations_px
from posekit.types import Float32, ModelSpec
from posekit_engines.graphs.edit import heatmaps_name
from posekit_engines.precision.activations import Feed, record_activations


@dataclass(frozen=True)
class TrialOutputs:
    """Outputs of a graph for N crops.

    maps: the network's own, (N or 2 N with the flip test inside, K, h, w).
    points: (N, K, 2), crop px.  scores: (N, K).
    """

    maps: Float32
    points: Float32
    scores: Float32

    def first(self, count: int, of: int) -> TrialOutputs:
        """Those of the first `count` of `of` crops."""
        return TrialOutputs(*(each[: len(each) * count // of] for each in vars(self).values()))


def trial_outputs(model: onnx.ModelProto, feeds: Sequence[Feed], spec: ModelSpec) -> TrialOutputs:
    """Run a graph of posekit's on the CPU; `codecs` decodes the maps of one without points.

    Raises ExportError where the graph is not posekit's, InputError where there is no crop.
    """
    name = heatmaps_name(model.graph)
    outputs = [value.name for value in model.graph.output if value.name in ("points", "scores")]
    recorded = list(record_activations(model, feeds, [name, *outputs]))
    maps = np.concatenate([each[name] for each in recorded])
    if not outputs:
        return TrialOutputs(maps, *codecs.decode(maps, spec))
    points, scores = (np.concatenate([each[n] for each in recorded]) for n in ("points", "scores"))
    return TrialOutputs(maps, points, scores)


@dataclass(frozen=True)
class Int8Error:
    """Deviation from the source's outputs.

    maps: largest difference over the largest value.  maps_rms: the same of root mean squares.
    mean_px, p99_px: of the source's high-confidence keypoints, crop px; None where it has none.
    points: how many those are.
    """

    maps: float
    maps_rms: float
    mean_px: float | None
    p99_px: float | None
    points: int


def int8_error(trial: TrialOutputs, source: TrialOutputs) -> Int8Error:
    """Compare outputs for the same crops; NaN and infinity count as infinite deviation."""
    difference = _nan_to_infinity(np.abs(trial.maps - source.maps))
    largest = float(np.abs(source.maps).max()) or 1.0
    size = float(np.sqrt(np.mean(source.maps**2))) or 1.0
    moved = _nan_to_infinity(deviations_px(trial.points, (source.points, source.scores)))
    p99 = np.percentile(moved, 99) if np.isfinite(moved).all() and moved.size else np.inf
    return Int8Error(
        maps=float(difference.max()) / largest,
        maps_rms=float(np.sqrt(np.mean(difference**2))) / size,
        mean_px=float(moved.mean()) if moved.size else None,
        p99_px=float(p99) if moved.size else None,
        points=int(moved.size),
    )


def _nan_to_infinity(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(distances), distances, np.float32(np.inf))
