"""INT8 for CPUs: static ranges from real crops, and layers left in float32 where it costs too much.

The file keeps uint8 crops in and float32 answers out. Deconvolutions become convolutions first,
since ONNX Runtime multiplies no bytes in a ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit_engines import qdq
from posekit_engines.fold import folded, without_deconvolutions
from posekit_engines.observe import Answers, Feed, Strayed, answers, observed, strayed
from posekit_engines.qdq import Range

BUDGET_PX = 0.5
"""Mean shift in crop pixels above which layers go back to float32."""
_SAMPLES = 2048  # values kept of each tensor and crop
_FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest values; what is tried as a limit
_GROUPS = 24  # candidates for exclusion at most: neighbouring layers stay together beyond
_CHECKED = 8  # crops on which candidates are judged
Ranges = dict[str, Range]


@dataclass(frozen=True)
class _Trial:
    """A model with some operators in int8, and how far it strays on the calibration crops."""

    model: onnx.ModelProto
    strayed: Strayed

    @property
    def cost(self) -> float:
        """Mean shift where joints are sure, or else the maps' relative error."""
        mean = self.strayed.mean_px
        return self.strayed.maps_rms if mean is None else mean


def to_int8(
    model: onnx.ModelProto, feeds: Sequence[Feed], *, exclude: Sequence[str] = ()
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone float32 graph of posekit's in int8, and what was done.

    feeds: real crops to calibrate with, as the graph takes them; 16 or more are wise.
    exclude: beginnings of weights' names that stay float32; the layers that give the maps always
    do. Whether the shift is within the budget stands in the report: the caller refuses.
    Raises InputError, ExportError.
    """
    plain = folded(model)
    deconvolutions = without_deconvolutions(plain)
    source = answers(model, feeds)
    search = _Search(plain, feeds, source)
    layers = [qdq.label(node) for node in search.nodes]
    for prefix in exclude:
        if not any(layer.startswith(prefix) for layer in layers):
            raise InputError(f"exclude {prefix!r}: no weight begins so; weights are {layers}")
    kept = dict.fromkeys(
        _last_layers(plain, search.nodes),
        "gives the maps; 255 steps are too coarse for the refinement",
    )
    kept |= {
        layer: "excluded by the caller" for layer in layers if layer.startswith(tuple(exclude))
    }
    ranges, method = search.best_ranges(set(kept))
    trial, damage = search.within_budget(ranges, kept)
    operators = [qdq.described(node) for node in search.nodes]
    report = {
        "precision": "int8",
        "weights": "int8, one scale a channel, 7 bits used",
        "activations": "uint8, one scale a tensor",
        "calibration": method,
        "crops": len(source.scores),
        "deconvolutions_rewritten": deconvolutions,
        "quantized": sum(each["operator"] not in kept for each in operators),
        "kept": [
            {**each, "reason": kept[each["operator"]], "damage": damage.get(each["operator"])}
            for each in operators
            if each["operator"] in kept
        ],
        "budget_px": BUDGET_PX,
        **asdict(trial.strayed),
    }
    return trial.model, report


def _last_layers(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Layers whose result reaches no other layer."""
    reached: dict[str, set[str]] = {}
    read: set[str] = set()
    layers = {node.output[0]: qdq.label(node) for node in nodes}
    for node in model.graph.node:
        before = set().union(*(reached.get(name, set()) for name in node.input))
        if node.output[0] in layers:
            read |= before
            before = {layers[node.output[0]]}
        for name in node.output:
            reached[name] = before
    return [layer for layer in layers.values() if layer not in read]


class _Search:
    """Tries ranges and sets of layers; each trial is a whole graph in ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feed], source: Answers) -> None:
        self.nodes = qdq.quantizable(model)
        self._model, self._feeds, self._source = model, list(feeds), source

    def _trial(self, ranges: Ranges, kept: Mapping[str, str] | set[str]) -> _Trial:
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) not in kept}
        made = qdq.insert(self._model, chosen, ranges)
        return _Trial(made, strayed(answers(made, self._feeds), self._source))

    def best_ranges(self, kept: set[str]) -> tuple[Ranges, str]:
        """The largest values seen, or limits of least squared error: whichever strays less."""
        ways = calibrated(self._model, self._feeds)
        costs = {name: self._trial(ranges, kept).cost for name, ranges in ways.items()}
        best = min(costs, key=costs.__getitem__)
        return ways[best], best

    def within_budget(
        self, ranges: Ranges, kept: dict[str, str]
    ) -> tuple[_Trial, dict[str, float]]:
        """Put back the layers that cost most, twice as many each time, until it fits.

        `kept` gains them; the damage that each does alone is given back.
        """
        trial = self._trial(ranges, kept)
        damage: dict[str, float] = {}
        if trial.strayed.mean_px is None or trial.strayed.mean_px <= BUDGET_PX:
            return trial, damage
        layers = [qdq.label(node) for node in self.nodes if qdq.label(node) not in kept]
        groups = [
            list(part) for part in np.array_split(np.array(layers), min(_GROUPS, len(layers)))
        ]
        costs = [self._alone(ranges, set(group)) for group in groups]
        damage = {layer: cost for group, cost in zip(groups, costs, strict=True) for layer in group}
        order = [groups[n] for n in np.argsort(costs)[::-1]]
        taken = 1
        while True:
            for layer in (layer for group in order[:taken] for layer in group):
                kept[layer] = "costs most where only it and its neighbours are int8"
            trial = self._trial(ranges, kept)
            if taken >= len(order) or (trial.strayed.mean_px or 0) <= BUDGET_PX:
                return trial, damage
            taken *= 2

    def _alone(self, ranges: Ranges, group: set[str]) -> float:
        """The maps' relative error where only `group` is int8, on a few crops."""
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) in group}
        made = qdq.insert(self._model, chosen, ranges)
        few = _few(self._feeds)
        count = sum(len(next(iter(feed.values()))) for feed in few)
        part = Answers(*(each[:count] for each in vars(self._source).values()))
        return strayed(answers(made, few), part).maps_rms


def _few(feeds: Sequence[Feed]) -> list[dict[str, NDArray[Any]]]:
    """The first crops of the feeds, _CHECKED at most."""
    found: list[dict[str, NDArray[Any]]] = []
    left = _CHECKED
    for feed in feeds:
        if left > 0:
            found.append({name: value[:left] for name, value in feed.items()})
            left -= len(next(iter(found[-1].values())))
    return found


def calibrated(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, Ranges]:
    """Ranges of every tensor of a folded model that may become uint8, by two methods.

    `largest values` takes the least and the largest value seen; `least error` narrower limits
    where they lose less in sum.  Raises InputError where there is no crop.
    """
    names = qdq.observed_tensors(model)
    largest: Ranges = dict.fromkeys(names, (0.0, 0.0))
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for tensors in observed(model, feeds, names):
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
