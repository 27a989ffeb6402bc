"""FP16 as a property of the graph: the network's tensors are float16, but where they must not be.

TensorRT 11 has no switch for it. Normalisation of the crops, flip merge and decode stay float32,
as do operators that a search on real crops finds in need of it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import torch
from onnx import helper
from torch import Tensor, nn

from posekit.errors import ExportError
from posekit_engines.fold import (
    folded,
    initializers,
    network_nodes,
    set_initializers,
    set_nodes,
    without_deconvolutions,
)
from posekit_engines.observe import Feed, observed

HALF_LARGEST = 65504.0
HALF_SMALLEST = 2.0**-14
"""Below it float16 has fewer than 11 bits."""
MARGIN = 8.0
"""Other pictures may give values this much larger than the crops that were looked at."""
_ACCUMULATE = {
    "LayerNormalization": "sums squares, on a GPU in the tensor's own type",
    "Softmax": "sums exponentials, on a GPU in the tensor's own type",
    "ReduceMean": "sums, on a GPU in the tensor's own type",
    "ReduceSum": "sums, on a GPU in the tensor's own type",
    "Pow": "squares lose half the range",
}
_HALF, _FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
_BFLOAT, _BFLOAT_OPSET = onnx.TensorProto.BFLOAT16, 22
_COMPUTE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def to_fp16(
    model: onnx.ModelProto, feeds: Sequence[Feed]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone graph of posekit's with a float16 network; inputs and outputs keep their types.

    feeds: real crops for the overflow scan. The report names the operators kept in float32, with
    reason and largest value. Raises ExportError, InputError.
    """
    plain = folded(model)
    nodes = network_nodes(plain.graph)
    largest = _largest(plain, nodes, feeds)
    kept = {}
    for node in nodes:
        reason = _reason(node, largest)
        if reason:
            kept[node.output[0]] = reason
    half = {node.output[0] for node in nodes} - set(kept)
    _rewrite(plain.graph, half, _float_tensors(plain), to=_HALF)
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


def to_bf16(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone graph of posekit's with a bfloat16 network, for TensorRT.

    bfloat16 reaches as far as float32, so no picture decides: what sums stays float32, as torch's
    autocast keeps it. The opset is the first whose convolutions take bfloat16. Raises ExportError.
    """
    plain = folded(model)
    without_deconvolutions(plain)  # TensorRT for RTX has none in bfloat16
    nodes = network_nodes(plain.graph)
    kept = [node for node in nodes if node.op_type in _ACCUMULATE]
    half = {node.output[0] for node in nodes} - {node.output[0] for node in kept}
    _rewrite(plain.graph, half, _float_tensors(plain), to=_BFLOAT)
    try:
        done = onnx.version_converter.convert_version(plain, _BFLOAT_OPSET)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ExportError(
            f"bf16: the graph has no form in opset {_BFLOAT_OPSET}: {error}"
        ) from error
    report = {
        "precision": "bf16",
        "half": len(half),
        "kept": [
            {"operator": n.output[0], "kind": n.op_type, "reason": _ACCUMULATE[n.op_type]}
            for n in kept
        ],
    }
    return done, report


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors, initialisers too."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
    return found | {each.name for each in inferred.initializer if each.data_type == _FLOAT}


def _largest(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Largest absolute value of each float tensor that the network's nodes read or write."""
    kinds = _float_tensors(model)
    values = initializers(model.graph)
    names = {name for node in nodes for name in (*node.input, *node.output)} & kinds
    found = {name: float(np.abs(values[name]).max(initial=0)) for name in names & set(values)}
    inputs = {value.name for value in model.graph.input}
    flowing = sorted(names - set(values) - inputs)
    for tensors in observed(model, feeds, flowing):
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
    return _ACCUMULATE.get(node.op_type)


def _rewrite(graph: onnx.GraphProto, half: set[str], kinds: set[str], *, to: int) -> None:
    """Give the nodes `half` inputs and outputs of type `to`, with casts where the types meet.

    A tensor that a half node writes is t.half, cast back to t for who reads float32.
    """
    values = initializers(graph)
    dtype = helper.tensor_dtype_to_np_dtype(to)
    made = {name for node in graph.node if node.output[0] in half for name in node.output} & kinds
    wide = {name for node in graph.node if node.output[0] not in half for name in node.input}
    wide |= {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node in graph.node:
        if node.output[0] not in half:
            nodes.append(node)
            continue
        count = 1 if node.op_type == "Resize" else len(node.input)  # its scales are float32 always
        read = node.input[:count]
        for name in sorted(set(read) & kinds - made - cast):
            cast.add(name)
            if name in values:
                values[f"{name}.half"] = values[name].astype(dtype)
            else:
                nodes.append(helper.make_node("Cast", [name], [f"{name}.half"], to=to))
        node.input[:count] = [f"{name}.half" if name in kinds else name for name in read]
        results = list(node.output)
        node.output[:] = [f"{name}.half" if name in kinds else name for name in results]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = to
        nodes.append(node)
        nodes += [
            helper.make_node("Cast", [f"{name}.half"], [name], to=_FLOAT)
            for name in results
            if name in kinds & wide
        ]
    set_nodes(graph, nodes)
    set_initializers(graph, values)


def contained(model: onnx.ModelProto) -> dict[str, dict[str, int]]:
    """What really is in a file, by type: numbers in initialisers, tensors that flow, operators.

    operators: convolutions and matrix products by the type that they multiply; int8 where both
    sides come from quantized bytes. Integers elsewhere are shapes, indices, or an int8 file's
    bytes.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    tensors = [*graph.initializer]
    tensors += [a.t for node in graph.node for a in node.attribute if node.op_type == "Constant"]
    weights: Counter[str] = Counter()
    for each in tensors:
        weights[_type(each.data_type)] += int(np.prod(each.dims, dtype=np.int64))
    values = {
        value.name: _type(value.type.tensor_type.elem_type)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types = values | {each.name: _type(each.data_type) for each in graph.initializer}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    operators = Counter(
        _multiplied(node, types, makers) for node in graph.node if node.op_type in _COMPUTE
    )
    return {
        "weights": dict(weights.most_common()),
        "values": dict(Counter(values.values()).most_common()),
        "operators": dict(operators.most_common()),
    }


def _multiplied(node: onnx.NodeProto, types: Mapping[str, str], makers: Mapping[str, str]) -> str:
    if all(makers.get(name) == "DequantizeLinear" for name in node.input[:2]):
        return "int8"
    return types.get(node.input[0], "unknown")


def _type(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind)).lower()


class _Bfloat16(nn.Module):
    """A network whose convolutions and matrix products run in bfloat16, on this CPU."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            maps: Tensor = self.net(image)
        return maps.float()


def emulate_bf16(net: nn.Module) -> nn.Module:
    """A copy of `net` that answers as in bfloat16, float32 in and out: an emulation in torch.

    Weights are rounded once; torch's autocast decides what stays float32 (softmax, layer norm).
    ONNX Runtime has no bfloat16 convolution on a CPU, so this is no measurement of an export.
    """
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16().to(weight.dtype))
    return _Bfloat16(rounded).eval()
