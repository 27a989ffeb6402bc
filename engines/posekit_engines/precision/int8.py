"""INT8 for CPUs: static ranges from real crops, and layers left in float32 where it costs too much.

The file keeps uint8 crops in and float32 answers out. Deconvolutions become convolutions first,
since ONNX Runtime multiplies no bytes in a ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from posekit.errors import InputError, ParityError
from posekit_engines.graphs.fold import fold_network, replace_deconvolutions
from posekit_engines.precision import qdq
from posekit_engines.precision.activations import Arrays, Feed, single
from posekit_engines.precision.calibration import Ranges, calibrate_ranges
from posekit_engines.precision.int8_error import Int8Error, TrialOutputs, int8_error, trial_outputs

BUDGET_PX = 0.5
"""Mean shift in crop pixels above which layers go back to float32, on crops not seen either."""
LEAST = 4
"""Crops without which there are none to calibrate and others to choose layers on."""
_EACH = 2  # every so many crops one is for choosing: a few joints that jump decide the mean
_SHARE = 0.8  # of the budget is used up here: crops that judge an export may be of another place
_GROUPS = 24  # candidates for exclusion at most: neighbouring layers stay together beyond
_CHECKED = 8  # crops on which candidates are judged


@dataclass(frozen=True)
class _Trial:
    """A model with some operators in int8, and how far it strays on the crops that choose."""

    model: onnx.ModelProto
    strayed: Int8Error

    @property
    def fits(self) -> bool:
        """Whether it is within the budget's share, as far as the source is sure of joints."""
        mean = self.strayed.mean_px
        return mean is None or mean <= _SHARE * BUDGET_PX

    @property
    def cost(self) -> float:
        """Mean shift where joints are sure, or else the maps' relative error."""
        mean = self.strayed.mean_px
        return self.strayed.maps_rms if mean is None else mean


def to_int8(
    model: onnx.ModelProto, feeds: Sequence[Feed], *, exclude: Sequence[str] = ()
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone float32 graph of posekit's in int8, and what was done.

    feeds: real crops as the graph takes them, 16 or more are wise; ranges come from half of them,
    layers are chosen on the others (`split`).
    exclude: beginnings of weights' names that stay float32; the layers that give the maps always
    do. Whether the shift is within the budget stands in the report: the caller judges on crops
    that are in neither part, and refuses.  Raises InputError, ExportError, ParityError (nothing
    can be int8).
    """
    calibrating, choosing = split(feeds)
    plain = fold_network(model)
    deconvolutions = replace_deconvolutions(plain)
    search = _Search(plain, calibrating, choosing, source=trial_outputs(model, choosing))
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
        "crops": {"calibrate": len(calibrating), "choose": len(choosing)},
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


def split(feeds: Sequence[Feed]) -> tuple[list[Arrays], list[Arrays]]:
    """One feed a crop: those that tell ranges, and every second, on which layers are chosen.

    No crop is in both, or the choice would flatter the ranges. Raises InputError below LEAST.
    """
    parts = single(feeds)
    if len(parts) < LEAST:
        raise InputError(
            f"int8: {len(parts)} crops to calibrate with; wanted {LEAST} or more, of which every "
            f"{_EACH}nd is kept apart to choose layers on; give more pictures"
        )
    choosing = parts[_EACH - 1 :: _EACH]
    return [part for n, part in enumerate(parts) if n % _EACH != _EACH - 1], choosing


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

    def __init__(
        self,
        model: onnx.ModelProto,
        calibrating: Sequence[Feed],
        choosing: Sequence[Feed],
        *,
        source: TrialOutputs,
    ) -> None:
        self.nodes = qdq.quantizable(model)
        self._model, self._source = model, source
        self._calibrating, self._choosing = calibrating, choosing

    def _trial(self, ranges: Ranges, kept: Mapping[str, str] | set[str]) -> _Trial:
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) not in kept}
        made = qdq.insert(self._model, chosen, ranges)
        return _Trial(made, int8_error(trial_outputs(made, self._choosing), self._source))

    def best_ranges(self, kept: set[str]) -> tuple[Ranges, str]:
        """The largest values seen, or limits of least squared error: whichever strays less."""
        ways = calibrate_ranges(self._model, self._calibrating)
        costs = {name: self._trial(ranges, kept).cost for name, ranges in ways.items()}
        best = min(costs, key=costs.__getitem__)
        return ways[best], best

    def within_budget(
        self, ranges: Ranges, kept: dict[str, str]
    ) -> tuple[_Trial, dict[str, float]]:
        """Put back the layers that cost most until it fits, as few as that takes.

        `kept` gains them; the damage that each does alone is given back. Raises ParityError where
        none would be left.
        """
        whole = self._trial(ranges, kept)
        if whole.fits:
            return whole, {}
        layers = [qdq.label(node) for node in self.nodes if qdq.label(node) not in kept]
        groups = [
            list(part) for part in np.array_split(np.array(layers), min(_GROUPS, len(layers)))
        ]
        costs = [self._alone(ranges, set(group)) for group in groups]
        damage = {layer: cost for group, cost in zip(groups, costs, strict=True) for layer in group}
        order = [groups[n] for n in np.argsort(costs)[::-1]]
        count, trial = self._fewest(ranges, set(kept), order)
        if count == len(order):
            px = whole.strayed.mean_px or np.inf
            raise ParityError(
                f"int8: moves points by {px:.3f} px on average, and by more than "
                f"{_SHARE * BUDGET_PX:g} px still where any layers are int8; nothing is "
                "written: use fp16, or calibrate on pictures nearer to those it is for",
                px,
            )
        for layer in (layer for group in order[:count] for layer in group):
            kept[layer] = "costs most where only it and its neighbours are int8"
        return trial, damage

    def _fewest(
        self, ranges: Ranges, kept: set[str], order: Sequence[list[str]]
    ) -> tuple[int, _Trial]:
        """How many groups must go back: doubled until it fits, then halved towards the last."""

        def put_back(count: int) -> _Trial:
            return self._trial(ranges, kept | {name for group in order[:count] for name in group})

        low, high = 0, 1
        found = put_back(high)
        while not found.fits and high < len(order):
            low, high = high, min(2 * high, len(order))
            found = put_back(high)
        while high - low > 1:
            middle = (low + high) // 2
            trial = put_back(middle)
            low, high = (low, middle) if trial.fits else (middle, high)
            found = trial if trial.fits else found
        return high, found

    def _alone(self, ranges: Ranges, group: set[str]) -> float:
        """The maps' relative error where only `group` is int8, on a few crops."""
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) in group}
        made = qdq.insert(self._model, chosen, ranges)
        few = self._choosing[:_CHECKED]
        source = self._source.first(len(few), of=len(self._choosing))
        return int8_error(trial_outputs(made, few), source).maps_rms
