"""Rewrites of a stand-alone graph that change no output: constants, batch norm, deconvolutions.

Precision and quantization start from the result: each weight is one float32 initializer, no batch
norm follows a convolution and, where requested, there is no ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from posekit.errors import ExportError
from posekit_engines.graphs.edit import (
    Arrays,
    attributes,
    copy_model,
    initializers,
    readers,
    set_initializers,
    set_nodes,
)

_RANDOM = {"RandomNormalLike", "RandomUniformLike"}
_FOLDED = {"Cast", "Constant", "Identity", "Transpose"}


def fold_constants(
    graph: onnx.GraphProto, values: Arrays, operators: Container[str] | None = None
) -> None:
    """Take the nodes that read nothing but `values` out of the graph; `values` gains their outputs.

    operators: the kinds to evaluate, None for all but random ones.
    """
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        foldable = node.op_type not in _RANDOM if operators is None else node.op_type in operators
        if not foldable or any(name not in values for name in inputs):
            kept.append(node)
            continue
        outputs = ReferenceEvaluator(node).run(None, {name: values[name] for name in inputs})
        values.update(zip(node.output, map(np.asarray, outputs), strict=True))
    set_nodes(graph, kept)


def fold_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are plain initializers, with batch norm folded into the convolutions.

    Tensors keep their names; those between a convolution and its batch norm are gone.
    Raises ExportError where the model does not stand alone.
    """
    copy = copy_model(model)
    graph = copy.graph
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in graph.initializer):
        raise ExportError("graph: its weights are external; inline them first (inline_weights)")
    if any(a.type == onnx.AttributeProto.GRAPH for node in graph.node for a in node.attribute):
        raise ExportError("graph: it has If, Loop or Scan, which posekit's networks never have")
    values = initializers(graph)
    fold_constants(graph, values, _FOLDED)
    _fold_batch_norms(graph, values)
    set_initializers(graph, values)
    del graph.value_info[:]
    return copy


def _fold_batch_norms(graph: onnx.GraphProto, values: Arrays) -> None:
    """Fold each batch norm into the convolution before it, where nothing else reads that one."""
    count = readers(graph)
    convolutions = {
        node.output[0]: node
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in values
    }
    kept = []
    for node in graph.node:
        conv = convolutions.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or count[conv.output[0]] != 1 or count[conv.input[1]] != 1:
            kept.append(node)
            continue
        _absorb(conv, node, values)
        conv.output[0] = node.output[0]
    set_nodes(graph, kept)


def _absorb(conv: onnx.NodeProto, norm: onnx.NodeProto, values: Arrays) -> None:
    """In float64: weight s and (bias - mean) s + shift, s = scale / sqrt(variance + epsilon)."""
    scale, shift, mean, variance = (values[name].astype(np.float64) for name in norm.input[1:5])
    factor = scale / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    weight = values[conv.input[1]].astype(np.float64)
    if conv.op_type == "Conv":
        weight = weight * factor[:, None, None, None]
    else:  # (C_in, C_out / groups, kh, kw)
        groups = attributes(conv).get("group", 1)
        pairs = zip(np.split(weight, groups), np.split(factor, groups), strict=True)
        weight = np.concatenate([part * each[:, None, None] for part, each in pairs])
    bias = values[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else 0.0
    name = f"{conv.input[1]}.bias" if len(conv.input) < 3 else conv.input[2]
    values[conv.input[1]] = weight.astype(np.float32)
    values[name] = ((bias - mean) * factor + shift).astype(np.float32)
    conv.input[2:] = [name]


def replace_deconvolutions(model: onnx.ModelProto) -> int:
    """Replace each 4 x 4, stride 2, padding 1 ConvTranspose in place; returns how many.

    One 2 x 2 convolution computes the four positions of a doubled cell as channels, at each corner
    between cells; slices select each position's own corners and DepthToSpace interleaves them. A
    ReLU after it moves before the slices.
    """
    graph = model.graph
    values = initializers(graph)
    count = readers(graph)
    doubling = {
        node.output[0]
        for node in graph.node
        if node.op_type == "ConvTranspose" and _doubles(node) and node.input[1] in values
    }
    relus = {
        node.input[0]: node
        for node in graph.node
        if node.op_type == "Relu" and node.input[0] in doubling and count[node.input[0]] == 1
    }
    moved = {node.output[0] for node in relus.values()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in doubling:
            nodes += _as_convolution(node, values, relus.get(node.output[0]))
        elif node.output[0] not in moved:
            nodes.append(node)
    set_nodes(graph, nodes)
    set_initializers(graph, values)
    return len(doubling)


def _doubles(node: onnx.NodeProto) -> bool:
    """Whether a ConvTranspose doubles its maps as posekit's heads do."""
    given = {"group": 1, "dilations": [1, 1], "output_padding": [0, 0], **attributes(node)}
    doubling = {
        "kernel_shape": [4, 4],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "group": 1,
        "dilations": [1, 1],
        "output_padding": [0, 0],
    }
    return given == doubling


# Along one axis: output 2 i reads inputs i - 1 and i with kernel rows 3 and 1, output 2 i + 1
# reads inputs i and i + 1 with kernel rows 2 and 0.
_TAPS = ((3, 1), (2, 0))


def _as_convolution(
    node: onnx.NodeProto, values: Arrays, relu: onnx.NodeProto | None
) -> list[onnx.NodeProto]:
    """Corner values by one convolution, then `_interleaved`; a ReLU in between where given."""
    name = node.output[0]
    weight = values[node.input[1]].transpose(1, 0, 2, 3)
    phases = [(row, column) for row in (0, 1) for column in (0, 1)]
    kernels = [weight[:, :, _TAPS[row]][:, :, :, _TAPS[column]] for row, column in phases]
    values[f"{node.input[1]}.phases"] = np.concatenate(kernels)
    inputs = [node.input[0], f"{node.input[1]}.phases"]
    if len(node.input) > 2:
        inputs.append(f"{node.input[2]}.phases")
        values[inputs[2]] = np.tile(values[node.input[2]], 4)
    corners = f"{name}/corners"
    nodes = [helper.make_node("Conv", inputs, [corners], kernel_shape=[2, 2], pads=[1, 1, 1, 1])]
    if relu is not None:
        nodes.append(helper.make_node("Relu", [corners], [f"{corners}/relu"]))
        name, corners = relu.output[0], f"{corners}/relu"
    return nodes + _interleaved(corners, name, values, channels=weight.shape[0])


def _interleaved(corners: str, name: str, values: Arrays, *, channels: int) -> list[onnx.NodeProto]:
    """(N, 4 C, h + 1, w + 1) at the corners to (N, C, 2 h, 2 w)."""
    nodes = []
    to_end = np.iinfo(np.int64).max
    values["phases/axes"] = np.array([1, 2, 3])
    for number in range(4):
        row, column = divmod(number, 2)
        limits = f"{name}/starts{number}", f"{name}/ends{number}"
        values[limits[0]] = np.array([number * channels, row, column])
        values[limits[1]] = np.array(
            [(number + 1) * channels, row - 1 or to_end, column - 1 or to_end]
        )
        inputs = [corners, *limits, "phases/axes"]
        nodes.append(helper.make_node("Slice", inputs, [f"{name}/phase{number}"]))
    parts = [f"{name}/phase{number}" for number in range(4)]
    nodes.append(helper.make_node("Concat", parts, [f"{name}/phases"], axis=1))
    nodes.append(helper.make_node("DepthToSpace", [f"{name}/phases"], [name], blocksize=2))
    return nodes
