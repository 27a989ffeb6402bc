"""FP16 as a property of the graph: the network's tensors are float16, except where unsafe.

TensorRT 11 has no switch for it. Normalization of the crops, flip merge and decode stay float32,
as do operators that sum, and those whose values on real crops leave float16's range.
Why not onnxconverter-common (onnxruntime.transformers.float16): it records no activations, writes
nodes out of order, which ONNX's checker rejects, and deviates 0.025 px (Lightning), this 0.0003.
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
"""Values on other images may be this many times as large as on the recorded crops."""


def to_fp16(
    model: onnx.ModelProto, feeds: Sequence[Feed]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone graph of posekit's with a float16 network, and a report.

    Inputs and outputs keep their types.  feeds: real crops, to record the largest values. The
    report names the operators kept in float32, with reason and largest value.
    Raises ExportError, InputError.
    """
    folded = fold_network(model)
    nodes = network_nodes(folded.graph)
    largest = _largest_values(folded, nodes, feeds)
    kept = {node.output[0]: reason for node in nodes if (reason := _float32_reason(node, largest))}
    half = {node.output[0] for node in nodes} - set(kept)
    rewrite_types(folded.graph, half, float_tensors(folded), to=HALF)
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
    return folded, report


def _largest_values(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Largest absolute value of each float tensor that the network's nodes read or write."""
    values = initializers(model.graph)
    names = {name for node in nodes for name in (*node.input, *node.output)} & float_tensors(model)
    largest = {name: float(np.abs(values[name]).max(initial=0)) for name in names & set(values)}
    inputs = {value.name for value in model.graph.input}
    activations = sorted(names - set(values) - inputs)
    for tensors in record_activations(model, feeds, activations):
        for name, value in tensors.items():
            peak = float(np.nan_to_num(np.abs(value), nan=np.inf).max(initial=0))
            largest[name] = max(largest.get(name, 0.0), peak)
    return largest


def _peak(node: onnx.NodeProto, largest: Mapping[str, float]) -> float:
    return max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)


def _float32_reason(node: onnx.NodeProto, largest: Mapping[str, float]) -> str | None:
    """Why a node must stay float32, or None."""
    peak = _peak(node, largest)
    if peak * MARGIN > HALF_LARGEST:
        return f"overflow: {peak:g} times a margin of {MARGIN:g} is beyond {HALF_LARGEST:g}"
    results = [largest[name] for name in node.output if name in largest]
    if results and 0 < max(results) < HALF_SMALLEST:
        return f"underflow: no value above {HALF_SMALLEST:g}, where float16 loses digits"
    return ACCUMULATING.get(node.op_type)
