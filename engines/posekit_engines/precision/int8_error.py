"""The error that a trial quantization makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from posekit_engines.precision.activations import Feed, record_activations

SURE = 0.3
"""Keypoints scored below this by the source are not compared: their peak may be anywhere."""
CELL_PX = 4
"""Crop pixels from one cell of the maps to the next, in every network of posekit's."""
_MAPS = ("network/heatmaps", "heatmaps")


@dataclass(frozen=True)
class TrialOutputs:
    """What a graph says of N crops: the network's maps (N or 2 N, K, h, w), and where joints are.

    points: (N, K, 2), crop px.  scores: (N, K).
    """

    maps: NDArray[np.float32]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]

    def first(self, count: int, of: int) -> TrialOutputs:
        """Those to the first `count` of `of` crops; a flip test's maps are two a crop."""
        return TrialOutputs(*(each[: len(each) * count // of] for each in vars(self).values()))


def trial_outputs(model: onnx.ModelProto, feeds: Sequence[Feed]) -> TrialOutputs:
    """Run a graph of posekit's; a graph without points has its maps' peaks instead."""
    made = {name for node in model.graph.node for name in node.output}
    names = [next(name for name in _MAPS if name in made)]
    whole = "points" in {value.name for value in model.graph.output}
    found = list(
        record_activations(model, feeds, [*names, *(("points", "scores") if whole else ())])
    )
    maps = np.concatenate([each[names[0]] for each in found])
    if not whole:
        return TrialOutputs(maps, *peaks(maps))
    points, scores = (
        np.concatenate([each[name] for each in found]) for name in found[0] if name not in names
    )
    return TrialOutputs(maps, points, scores)


def peaks(maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Highest cells, refined by a parabola along each axis but on the border, px; and heights."""
    count, joints, height, width = maps.shape
    flat = maps.reshape(count, joints, -1)
    index = flat.argmax(2)
    row, column = np.divmod(index, width)
    n, k = np.ogrid[:count, :joints]

    def step(below: NDArray[Any], at: NDArray[Any], above: NDArray[Any]) -> NDArray[Any]:
        curve = below + above - 2 * at
        return np.where(curve < 0, (below - above) / np.where(curve < 0, 2 * curve, 1), 0)

    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    at = padded[n, k, row + 1, column + 1]
    x = step(padded[n, k, row + 1, column], at, padded[n, k, row + 1, column + 2])
    y = step(padded[n, k, row, column + 1], at, padded[n, k, row + 2, column + 1])
    x, y = np.where(column % (width - 1), x, 0), np.where(row % (height - 1), y, 0)
    return np.stack([column + x, row + y], 2).astype(np.float32) * CELL_PX, at


@dataclass(frozen=True)
class Int8Error:
    """How far answers are from the source's.

    maps: largest difference over the largest value.  maps_rms: the same of root mean squares.
    mean_px, p99_px: of joints that the source is sure of, or None where there are none.
    """

    maps: float
    maps_rms: float
    mean_px: float | None
    p99_px: float | None
    points: int


def int8_error(found: TrialOutputs, source: TrialOutputs) -> Int8Error:
    """Compare answers to the same crops; anything that is no number counts as infinitely far."""
    difference = _infinite(np.abs(found.maps - source.maps))
    largest = float(np.abs(source.maps).max()) or 1.0
    size = float(np.sqrt(np.mean(source.maps**2))) or 1.0
    sure = source.scores > SURE
    shift = _infinite(np.linalg.norm(found.points - source.points, axis=2)[sure])
    p99 = np.percentile(shift, 99) if np.isfinite(shift).all() and shift.size else np.inf
    return Int8Error(
        maps=float(difference.max()) / largest,
        maps_rms=float(np.sqrt(np.mean(difference**2))) / size,
        mean_px=float(shift.mean()) if shift.size else None,
        p99_px=float(p99) if shift.size else None,
        points=int(shift.size),
    )


def _infinite(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(distances), distances, np.float32(np.inf))
