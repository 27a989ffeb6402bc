"""Which number types an ONNX file holds and computes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx.version_converter

_COMPUTE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def dtype_summary(model: onnx.ModelProto) -> dict[str, dict[str, int]]:
    """Counts by number type: values in initializers, tensors between nodes, operators.

    operators: convolutions and matrix products by the type that they multiply; int8 where both
    inputs are dequantized bytes. Integers elsewhere are shapes, indices, or an int8 file's bytes.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    tensors = [*graph.initializer]
    tensors += [a.t for node in graph.node for a in node.attribute if node.op_type == "Constant"]
    weights: Counter[str] = Counter()
    for each in tensors:
        weights[_type_name(each.data_type)] += int(np.prod(each.dims, dtype=np.int64))
    values = {
        value.name: _type_name(value.type.tensor_type.elem_type)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types = values | {each.name: _type_name(each.data_type) for each in graph.initializer}
    producers = {name: node.op_type for node in graph.node for name in node.output}
    operators = Counter(
        _multiplied_type(node, types, producers) for node in graph.node if node.op_type in _COMPUTE
    )
    return {
        "weights": dict(weights.most_common()),
        "values": dict(Counter(values.values()).most_common()),
        "operators": dict(operators.most_common()),
    }


def _multiplied_type(
    node: onnx.NodeProto, types: Mapping[str, str], producers: Mapping[str, str]
) -> str:
    if all(producers.get(name) == "DequantizeLinear" for name in node.input[:2]):
        return "int8"
    return types.get(node.input[0], "unknown")


def _type_name(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind)).lower()
