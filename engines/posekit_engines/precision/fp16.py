"""FP16 as a property of the graph: the network's tensors are float16, but where they must not be.

TensorRT 11 has no switch for it. Normalisation of the crops, flip merge and decode stay float32,
as do operators that a search on real crops finds in need of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

from posekit_engines.graphs.edit import initializers, network_nodes
from posekit_engines.graphs.fold import fold_network
from posekit_engines.precision.activations import Feed, record_activations
from posekit_engines.precision.cast import ACCUMULATING, HALF, float_tensors, rewrite_types

HALF_LARGEST = 65504.0
HALF_SMALLEST = 2.0**-14
"""Below it float16 has fewer than 11 bits."""
MARGIN = 8.0
"""Other pictures may give values this much larger than the crops that were looked at."""


def to_fp16(
    model: onnx.ModelProto, feeds: Sequence[Feed]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone graph of posekit's with a float16 network; inputs and outputs keep their types.

    feeds: real crops for the overflow scan. The report names the operators kept in float32, with
    reason and largest value. Raises ExportError, InputError.
    """
    plain = fold_network(model)
    nodes = network_nodes(plain.graph)
    largest = _largest(plain, nodes, feeds)
    kept = {}
    for node in nodes:
        reason = _reason(node, largest)
        if reason:
            kept[node.output[0]] = reason
    half = {node.output[0] for node in nodes} - set(kept)
    rewrite_types(plain.graph, half, float_tensors(plain), to=HALF)
    report = {
        "precision": "fp16",
        "crops": sum(len(next(iter(feed.values()))) for feed in feeds),
        "half": len(half),
        "kept": [
            {
                "operator": node.output[0],
                "kind": node.op_type,
                "reason": kept[node.output[0]],
                "largest": _peak(node, largest),
            }
            for node in nodes
            if node.output[0] in kept
        ],
        "largest": max(largest.values(), default=0.0),
    }
    return plain, report


def _largest(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Largest absolute value of each float tensor that the network's nodes read or write."""
    kinds = float_tensors(model)
    values = initializers(model.graph)
    names = {name for node in nodes for name in (*node.input, *node.output)} & kinds
    found = {name: float(np.abs(values[name]).max(initial=0)) for name in names & set(values)}
    inputs = {value.name for value in model.graph.input}
    flowing = sorted(names - set(values) - inputs)
    for tensors in record_activations(model, feeds, flowing):
        for name, value in tensors.items():
            peak = float(np.nan_to_num(np.abs(value), nan=np.inf).max(initial=0))
            found[name] = max(found.get(name, 0.0), peak)
    return found


def _peak(node: onnx.NodeProto, largest: Mapping[str, float]) -> float:
    return max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)


def _reason(node: onnx.NodeProto, largest: Mapping[str, float]) -> str | None:
    """Why a node must stay float32, or None."""
    peak = _peak(node, largest)
    if peak * MARGIN > HALF_LARGEST:
        return f"overflow: {peak:g} times a margin of {MARGIN:g} is beyond {HALF_LARGEST:g}"
    results = [largest[name] for name in node.output if name in largest]
    if results and 0 < max(results) < HALF_SMALLEST:
        return f"underflow: no value above {HALF_SMALLEST:g}, where float16 loses its places"
    return ACCUMULATING.get(node.op_type)
