"""What flows through a graph: intermediate tensors on real crops, and how far answers stray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from posekit.errors import InputError

Feed = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]
SURE = 0.3
"""Keypoints scored below this by the source are not compared: their peak may be anywhere."""
CELL_PX = 4
"""Crop pixels from one cell of the maps to the next, in every network of posekit's."""
_MAPS = ("network/heatmaps", "heatmaps")


def session(model: onnx.ModelProto, *, exact: bool = False) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU with one thread; `exact` keeps every operator as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def single(feeds: Sequence[Feed]) -> list[Arrays]:
    """The feeds cut into one crop each. Raises InputError where there is none."""
    parts = [
        {name: value[n : n + 1] for name, value in feed.items()}
        for feed in feeds
        for n in range(len(next(iter(feed.values()))))
    ]
    if not parts:
        raise InputError("no crops to look at: wanted one or more, such as {'crops': uint8 array}")
    return parts


def observed(
    model: onnx.ModelProto, feeds: Sequence[Feed], names: Iterable[str]
) -> Iterator[Arrays]:
    """The float32 tensors `names` of each crop in turn; one crop's at a time are in memory."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = list(dict.fromkeys(names))
    there = {value.name for value in copy.graph.output}
    for name in wanted:
        if name not in there:
            kind = onnx.TensorProto.FLOAT
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    run = session(copy)
    for feed in single(feeds):
        yield dict(zip(wanted, run.run(wanted, feed), strict=True))


@dataclass(frozen=True)
class Answers:
    """What a graph says of N crops: the network's maps (N or 2 N, K, h, w), and where joints are.

    points: (N, K, 2), crop px.  scores: (N, K).
    """

    maps: NDArray[np.float32]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]

    def first(self, count: int, of: int) -> Answers:
        """Those to the first `count` of `of` crops; a flip test's maps are two a crop."""
        return Answers(*(each[: len(each) * count // of] for each in vars(self).values()))


def answers(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Answers:
    """Run a graph of posekit's; a graph without points has its maps' peaks instead."""
    made = {name for node in model.graph.node for name in node.output}
    names = [next(name for name in _MAPS if name in made)]
    whole = "points" in {value.name for value in model.graph.output}
    found = list(observed(model, feeds, [*names, *(("points", "scores") if whole else ())]))
    maps = np.concatenate([each[names[0]] for each in found])
    if not whole:
        return Answers(maps, *peaks(maps))
    points, scores = (
        np.concatenate([each[name] for each in found]) for name in found[0] if name not in names
    )
    return Answers(maps, points, scores)


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
class Strayed:
    """How far answers are from the source's.

    maps: largest difference over the largest value.  maps_rms: the same of root mean squares.
    mean_px, p99_px: of joints that the source is sure of, or None where there are none.
    """

    maps: float
    maps_rms: float
    mean_px: float | None
    p99_px: float | None
    points: int


def strayed(found: Answers, source: Answers) -> Strayed:
    """Compare answers to the same crops; anything that is no number counts as infinitely far."""
    difference = _infinite(np.abs(found.maps - source.maps))
    largest = float(np.abs(source.maps).max()) or 1.0
    size = float(np.sqrt(np.mean(source.maps**2))) or 1.0
    sure = source.scores > SURE
    shift = _infinite(np.linalg.norm(found.points - source.points, axis=2)[sure])
    p99 = np.percentile(shift, 99) if np.isfinite(shift).all() and shift.size else np.inf
    return Strayed(
        maps=float(difference.max()) / largest,
        maps_rms=float(np.sqrt(np.mean(difference**2))) / size,
        mean_px=float(shift.mean()) if shift.size else None,
        p99_px=float(p99) if shift.size else None,
        points=int(shift.size),
    )


def _infinite(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(distances), distances, np.float32(np.inf))
