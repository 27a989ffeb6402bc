"""Quantize/dequantize pairs around chosen operators of a folded graph.

Activations are uint8 with one scale for each tensor, weights int8 with one for each channel,
biases int32. Operators that only move values work on the bytes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from posekit_engines.graphs.edit import (
    Arrays,
    attributes,
    copy_model,
    initializers,
    network_nodes,
    readers,
    set_initializers,
    set_nodes,
)

WEIGHT_LIMIT = 64
"""Weights use 7 bits: without VNNI a processor adds two products uint8 · int8 in 16 bits, which
then cannot overflow (2 · 255 · 64 < 2¹⁵): outputs are the same on every processor."""
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}  # axis of the weight's output channels
_RECTIFIERS = {"Relu", "Clip"}
_MOVES = {"MaxPool", "Slice", "DepthToSpace", "Concat", "Resize"}
Range = tuple[float, float]


def label(node: onnx.NodeProto) -> str:
    """An operator's name in reports: that of its weight, else of its output."""
    name: str = node.input[1].removesuffix(".float32") if has_weights(node) else node.output[0]
    return name


def has_weights(node: onnx.NodeProto) -> bool:
    """Whether the operator is a convolution or matrix product: nearly all weights and time."""
    return node.op_type in _WEIGHTED


def quantizable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The network's operators with weights that can be quantized, in order."""
    constants = {each.name for each in model.graph.initializer}
    return [
        node
        for node in network_nodes(model.graph)
        if has_weights(node) and node.input[1] in constants and node.input[0] not in constants
    ]


def followers(model: onnx.ModelProto, chosen: Set[str]) -> set[str]:
    """Outputs of the chosen operators and of the operators that follow them into int8.

    Sums, rectifiers and moves follow where all their inputs are quantized.
    """
    outputs = set(chosen)
    constants = {each.name for each in model.graph.initializer}
    for node in network_nodes(model.graph):
        inputs = [node.input[0]] if node.op_type in ("Resize", "Slice", "Clip") else node.input
        follows = node.op_type in _RECTIFIERS | _MOVES | {"Add"} and not (set(inputs) & constants)
        if follows and set(inputs) <= outputs:
            outputs.add(node.output[0])
    return outputs


def activation_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors whose ranges `insert_qdq` may need."""
    nodes = quantizable(model)
    outputs = followers(model, {node.output[0] for node in nodes})
    return list(dict.fromkeys([*(node.input[0] for node in nodes), *sorted(outputs)]))


def insert_qdq(
    model: onnx.ModelProto, chosen: Set[str], ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """A copy of the folded `model` with `chosen` operators (by their first outputs) in int8."""
    copy = copy_model(model)
    writer = _Writer(copy.graph, followers(copy, chosen), ranges)
    for node in copy.graph.node:
        writer.write(node)
    read = {name for node in writer.nodes for name in node.input}
    read |= {value.name for value in copy.graph.output}
    # Tensors that are only moved as bytes need no dequantizing; ONNX Runtime would compute it.
    set_nodes(copy.graph, (node for node in writer.nodes if read & set(node.output)))
    set_initializers(copy.graph, writer.values)
    return copy


class _Writer:
    """Writes the new nodes: the bytes of a tensor t are t.q, and t itself is dequantized t.q."""

    def __init__(
        self, graph: onnx.GraphProto, chosen: Set[str], ranges: Mapping[str, Range]
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: Arrays = initializers(graph)
        self._chosen, self._ranges = chosen, ranges
        self._count = readers(graph)
        self._rectified = {
            node.input[0]: node.output[0]
            for node in graph.node
            if node.op_type in _RECTIFIERS and node.output[0] in chosen
        }
        self._parameters: dict[str, tuple[str, str]] = {}  # scale and zero point of bytes

    def write(self, node: onnx.NodeProto) -> None:
        """Write `node`, quantized if it is chosen."""
        name = node.output[0]
        if name not in self._chosen:
            self.nodes.append(node)
        elif node.op_type in _MOVES and self._same_scale(node):
            self._move(node)
        elif node.op_type in _RECTIFIERS:
            # Quantizing to a range from 0 up clips negative values by itself.
            self._quantize(node.input[0], name, name)
        else:
            self._compute(node)

    def _same_scale(self, node: onnx.NodeProto) -> bool:
        """Whether the inputs share one scale, so that equal bytes are equal values."""
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return len({self._parameters.get(name, (name, ""))[0] for name in inputs}) == 1

    def _move(self, node: onnx.NodeProto) -> None:
        name = node.output[0]
        parameters = self._parameters[node.input[0]]
        inputs = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        node.input[: len(inputs)] = [f"{each}.q" for each in inputs]
        node.output[0] = f"{name}.q"
        self.nodes.append(node)
        self._dequantize(name, name, parameters)

    def _compute(self, node: onnx.NodeProto) -> None:
        """Read dequantized inputs; quantize the output, unless a rectifier follows."""
        name = node.output[0]
        node.input[0] = self._input(node.input[0])
        if has_weights(node):
            self._quantize_weights(node)
        else:
            node.input[1:] = [self._input(each) for each in node.input[1:]]
        self.nodes.append(node)
        rectified = self._count[name] == 1 and name in self._rectified
        if node.op_type == "MatMul" or rectified:
            return
        node.output[0] = f"{name}.float"
        self._quantize(f"{name}.float", name, name)

    def _input(self, name: str) -> str:
        """The dequantized tensor of `name`."""
        if name in self._parameters:
            return name if name in self._chosen else f"{name}.dq"
        self._quantize(name, name, f"{name}.dq")
        return f"{name}.dq"

    def _quantize(self, source: str, name: str, output: str) -> None:
        scale, zero = _affine(self._ranges[name])
        parameters = f"{name}.scale", f"{name}.zero"
        self.values[parameters[0]], self.values[parameters[1]] = scale, zero
        self.nodes.append(helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}.q"]))
        self._dequantize(name, output, parameters)

    def _dequantize(self, name: str, output: str, parameters: tuple[str, str]) -> None:
        self._parameters[name] = parameters
        inputs = [f"{name}.q", *parameters]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output]))

    def _quantize_weights(self, node: onnx.NodeProto) -> None:
        """int8 by output channel; the bias in steps of the input's scale times the weight's."""
        name, axis = node.input[1], _WEIGHTED[node.op_type]
        steps, scales = quantize_weights(self.values[name], axis)
        stored = f"{name}.q", f"{name}.scale", f"{name}.zero"
        zeros = np.zeros(len(scales), np.int8)
        self.values |= {stored[0]: steps, stored[1]: scales, stored[2]: zeros}
        self.nodes.append(
            helper.make_node("DequantizeLinear", list(stored), [f"{name}.dq"], axis=axis)
        )
        node.input[1] = f"{name}.dq"
        if len(node.input) < 3:
            return
        self._quantize_bias(node, scales)

    def _quantize_bias(self, node: onnx.NodeProto, scales: NDArray[np.float32]) -> None:
        """int32 in steps of the input's scale times the weight's `scales`."""
        bias, source = node.input[2], node.input[0].removesuffix(".dq")
        step = scales.astype(np.float64) * float(self.values[self._parameters[source][0]])
        limit = np.iinfo(np.int32).max
        whole = np.clip(np.round(self.values[bias] / step), -limit, limit).astype(np.int32)
        stored = [f"{bias}.q", f"{bias}.scale"]
        self.values |= {stored[0]: whole, stored[1]: step.astype(np.float32)}
        self.nodes.append(helper.make_node("DequantizeLinear", stored, [f"{bias}.dq"], axis=0))
        node.input[2] = f"{bias}.dq"


def quantize_weights(
    weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 within ±WEIGHT_LIMIT, and the scale of each channel along `axis`."""
    others = tuple(n for n in range(weight.ndim) if n != axis)
    largest = np.abs(weight).max(others)
    scales = (np.where(largest > 0, largest, 1) / WEIGHT_LIMIT).astype(np.float32)
    shape = [-1 if n == axis else 1 for n in range(weight.ndim)]
    steps = np.round(weight / scales.reshape(shape))
    return np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8), scales


def _affine(limits: Range) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scale and zero point of uint8 for values between the limits; 0 stays exact."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = np.float32((high - low) / 255) if high > low else np.float32(1)
    return np.asarray(scale), np.asarray(np.clip(np.round(-low / scale), 0, 255), np.uint8)


def describe(node: onnx.NodeProto) -> dict[str, Any]:
    """An operator's entry in a report."""
    shape = attributes(node).get("kernel_shape")
    kernel = {"kernel": list(shape)} if shape else {}
    return {"operator": label(node), "kind": node.op_type, **kernel}
