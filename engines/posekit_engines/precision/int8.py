"""INT8 for CPUs: ranges from real crops, and layers kept in float32 where int8 costs too much.

Inputs and outputs keep their types. Deconvolutions become convolutions first, since ONNX Runtime
has no int8 ConvTranspose. Why not onnxruntime.quantization.quantize_static: on the same layers it
deviates as much (Lightning: 0.59 to 0.68 px, this 0.62), but takes 4 s or more for each set of
layers, and the search below tries up to thirty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from posekit.errors import InputError, ParityError
from posekit.types import ModelSpec
from posekit_engines.graphs.edit import Arrays
from posekit_engines.graphs.fold import fold_network, replace_deconvolutions
from posekit_engines.precision import qdq
from posekit_engines.precision.activations import Feed, split_feeds
from posekit_engines.precision.calibration import Ranges, calibrate_ranges
from posekit_engines.precision.int8_error import Int8Error, TrialOutputs, int8_error, trial_outputs

BUDGET_PX = 0.5
"""Mean deviation, crop px, above which layers go back to float32."""
MIN_CROPS = 4
"""Fewest crops: some give the ranges, others choose the layers."""
_EVERY = 2  # one crop in so many chooses layers: a few keypoints that jump decide the mean
_SHARE = 0.8  # of the budget is used here: the check crops may be of another place
_MAX_GROUPS = 24  # candidates to put back: of more layers, neighbors are put back together
_GROUP_CROPS = 8  # crops on which each candidate is measured


@dataclass(frozen=True)
class _Trial:
    """A model with some operators in int8, and its error on the crops that choose layers."""

    model: onnx.ModelProto
    error: Int8Error

    @property
    def fits(self) -> bool:
        """Whether it is within the share of the budget, or no keypoint could be compared."""
        mean = self.error.mean_px
        return mean is None or mean <= _SHARE * BUDGET_PX

    @property
    def cost(self) -> float:
        """Mean deviation, px, or the maps' relative error where no keypoint could be compared."""
        mean = self.error.mean_px
        return self.error.maps_rms if mean is None else mean


def to_int8(
    model: onnx.ModelProto, feeds: Sequence[Feed], *, spec: ModelSpec, exclude: Sequence[str] = ()
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone float32 graph of posekit's in int8, and a report.

    feeds: real crops, best 16 or more; half of them give the ranges, the others choose the layers
    (`split_crops`).  spec: of the model.  exclude: prefixes of weights' names that stay float32;
    the layers that give the maps always do. The caller measures the result on yet other crops.
    Raises InputError, ExportError, ParityError (nothing can be int8).
    """
    calibrating, choosing = split_crops(feeds)
    folded = fold_network(model)
    deconvolutions = replace_deconvolutions(folded)
    search = _Search(folded, calibrating, choosing, source=model, spec=spec)
    layers = [qdq.label(node) for node in search.nodes]
    for prefix in exclude:
        if not any(layer.startswith(prefix) for layer in layers):
            raise InputError(f"exclude {prefix!r}: no weight's name begins so; names are {layers}")
    kept = dict.fromkeys(
        _last_layers(folded, search.nodes),
        "gives the maps; 255 steps are too coarse for the refinement",
    )
    kept |= {
        layer: "excluded by the caller" for layer in layers if layer.startswith(tuple(exclude))
    }
    ranges, method = search.best_ranges(set(kept))
    trial, damage = search.within_budget(ranges, kept)
    operators = [qdq.describe(node) for node in search.nodes]
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
        **asdict(trial.error),
    }
    return trial.model, report


def split_crops(feeds: Sequence[Feed]) -> tuple[list[Arrays], list[Arrays]]:
    """One feed for each crop: those that give ranges, and every second, on which layers are chosen.

    No crop is in both, or the choice would be optimistic. Raises InputError below MIN_CROPS.
    """
    crops = split_feeds(feeds)
    if len(crops) < MIN_CROPS:
        raise InputError(
            f"int8: {len(crops)} crops to calibrate with; wanted {MIN_CROPS} or more, of which "
            f"every {_EVERY}nd is held out to choose layers on; give more images"
        )
    choosing = crops[_EVERY - 1 :: _EVERY]
    return [crop for n, crop in enumerate(crops) if n % _EVERY != _EVERY - 1], choosing


def _last_layers(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Layers whose output reaches no other layer."""
    reached: dict[str, set[str]] = {}
    inner: set[str] = set()
    layers = {node.output[0]: qdq.label(node) for node in nodes}
    for node in model.graph.node:
        before = set().union(*(reached.get(name, set()) for name in node.input))
        if node.output[0] in layers:
            inner |= before
            before = {layers[node.output[0]]}
        for name in node.output:
            reached[name] = before
    return [layer for layer in layers.values() if layer not in inner]


class _Search:
    """Tries ranges and sets of layers; each trial is a whole graph run in ONNX Runtime."""

    def __init__(
        self,
        model: onnx.ModelProto,
        calibrating: Sequence[Feed],
        choosing: Sequence[Feed],
        *,
        source: onnx.ModelProto,
        spec: ModelSpec,
    ) -> None:
        self.nodes = qdq.quantizable(model)
        self._model, self._spec = model, spec
        self._calibrating, self._choosing = calibrating, choosing
        self._source: TrialOutputs = trial_outputs(source, choosing, spec)

    def _trial(self, ranges: Ranges, kept: Mapping[str, str] | set[str]) -> _Trial:
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) not in kept}
        quantized = qdq.insert_qdq(self._model, chosen, ranges)
        outputs = trial_outputs(quantized, self._choosing, self._spec)
        return _Trial(quantized, int8_error(outputs, self._source))

    def best_ranges(self, kept: set[str]) -> tuple[Ranges, str]:
        """The ranges, and the method, with the smaller error."""
        methods = calibrate_ranges(self._model, self._calibrating)
        costs = {name: self._trial(ranges, kept).cost for name, ranges in methods.items()}
        best = min(costs, key=costs.__getitem__)
        return methods[best], best

    def within_budget(
        self, ranges: Ranges, kept: dict[str, str]
    ) -> tuple[_Trial, dict[str, float]]:
        """Return the layers that cost most to float32, as few as the budget needs.

        `kept` gains them. Returns the trial, and the error of each layer alone. Raises ParityError
        where no int8 layer would be left.
        """
        whole = self._trial(ranges, kept)
        if whole.fits:
            return whole, {}
        layers = [qdq.label(node) for node in self.nodes if qdq.label(node) not in kept]
        parts = np.array_split(np.array(layers), min(_MAX_GROUPS, len(layers)))
        groups = [list(part) for part in parts]
        costs = [self._alone(ranges, set(group)) for group in groups]
        damage = {layer: cost for group, cost in zip(groups, costs, strict=True) for layer in group}
        order = [groups[n] for n in np.argsort(costs)[::-1]]
        count, trial = self._fewest(ranges, set(kept), order)
        if count == len(order):
            px = whole.error.mean_px or np.inf
            raise ParityError(
                f"int8: deviates {px:.3f} px on average, and more than {_SHARE * BUDGET_PX:g} px "
                "with any layer in int8; nothing is written: use fp16, or calibrate on images "
                "closer to those it is for",
                px,
            )
        for layer in (layer for group in order[:count] for layer in group):
            kept[layer] = "costs most where only it and its neighbors are int8"
        return trial, damage

    def _fewest(
        self, ranges: Ranges, kept: set[str], order: Sequence[list[str]]
    ) -> tuple[int, _Trial]:
        """How many groups must go back, by doubling and then bisection, and that trial."""

        def put_back(count: int) -> _Trial:
            return self._trial(ranges, kept | {name for group in order[:count] for name in group})

        low, high = 0, 1
        best = put_back(high)
        while not best.fits and high < len(order):
            low, high = high, min(2 * high, len(order))
            best = put_back(high)
        while high - low > 1:
            middle = (low + high) // 2
            trial = put_back(middle)
            low, high = (low, middle) if trial.fits else (middle, high)
            best = trial if trial.fits else best
        return high, best

    def _alone(self, ranges: Ranges, group: set[str]) -> float:
        """The maps' relative error with only `group` in int8, on a few crops."""
        chosen = {node.output[0] for node in self.nodes if qdq.label(node) in group}
        quantized = qdq.insert_qdq(self._model, chosen, ranges)
        crops = self._choosing[:_GROUP_CROPS]
        source = self._source.first(len(crops), of=len(self._choosing))
        return int8_error(trial_outputs(quantized, crops, self._spec), source).maps_rms
