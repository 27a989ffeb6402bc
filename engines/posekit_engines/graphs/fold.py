"""Rewrites of a stand-alone graph that change no answer: constants, batch norm, deconvolutions.

What precision and quantization start from: each weight one initialiser in float32, no batch norm
behind a convolution, and, where asked, no ConvTranspose.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from posekit.errors import ExportError
from posekit_engines.graphs.edit import (
    Arrays,
    attributes,
    initializers,
    readers,
    set_initializers,
    set_nodes,
)

_CONSTANT = {"Cast", "Constant", "Identity", "Transpose"}


def fold_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are plain initialisers, with batch norm inside the convolutions.

    Tensors keep their names; those between a convolution and its batch norm are gone.
    Raises ExportError where the model does not stand alone.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in graph.initializer):
        raise ExportError("the graph's weights are external; inline them first (inline_weights)")
    if any(a.type == onnx.AttributeProto.GRAPH for node in graph.node for a in node.attribute):
        raise ExportError("the graph holds If, Loop or Scan, which posekit's networks never do")
    values = _evaluated(graph)
    _fold_batch_norms(graph, values)
    set_initializers(graph, values)
    del graph.value_info[:]
    return copy


def _evaluated(graph: onnx.GraphProto) -> Arrays:
    """Take casts and constants out of the graph; the values of all that is constant then."""
    values = initializers(graph)
    kept = []
    for node in graph.node:
        if node.op_type in _CONSTANT and all(name in values for name in node.input):
            given = {name: values[name] for name in node.input}
            (answer,) = ReferenceEvaluator(node).run(None, given)
            values[node.output[0]] = np.asarray(answer)
        else:
            kept.append(node)
    set_nodes(graph, kept)
    return values


def _fold_batch_norms(graph: onnx.GraphProto, values: Arrays) -> None:
    """Scale the weights of each convolution that only a batch norm reads."""
    count = readers(graph)
    makers = {
        node.output[0]: node
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in values
    }
    kept = []
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or count[conv.output[0]] != 1 or count[conv.input[1]] != 1:
            kept.append(node)
            continue
        _absorb(conv, node, values)
        conv.output[0] = node.output[0]
    set_nodes(graph, kept)


def _absorb(conv: onnx.NodeProto, norm: onnx.NodeProto, values: Arrays) -> None:
    """weight s and (bias - mean) s + shift in float64; s = scale / sqrt(variance + epsilon)."""
    scale, shift, mean, variance = (values[name].astype(np.float64) for name in norm.input[1:5])
    factor = scale / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    weight = values[conv.input[1]].astype(np.float64)
    if conv.op_type == "Conv":
        weight = weight * factor[:, None, None, None]
    else:  # (C_in, C_out / groups, kh, kw)
        groups = attributes(conv).get("group", 1)
        parts = zip(np.split(weight, groups), np.split(factor, groups), strict=True)
        weight = np.concatenate([part * each[:, None, None] for part, each in parts])
    bias = values[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else 0.0
    name = f"{conv.input[1]}.bias" if len(conv.input) < 3 else conv.input[2]
    values[conv.input[1]] = weight.astype(np.float32)
    values[name] = ((bias - mean) * factor + shift).astype(np.float32)
    conv.input[2:] = [name]


def without_deconvolutions(model: onnx.ModelProto) -> int:
    """Replace each 4 x 4, stride 2, padding 1 ConvTranspose in place; how many there were.

    One 2 x 2 convolution gives the four positions of a doubled cell as channels, for each corner
    between cells; slices pick each position's own corners, DepthToSpace lays them out. A ReLU
    behind it moves before the slices.
    """
    graph = model.graph
    values = initializers(graph)
    count = readers(graph)
    found = [n for n in graph.node if n.op_type == "ConvTranspose" and _doubles(n)]
    found = [node for node in found if node.input[1] in values]
    places = {node.output[0]: node for node in found}
    relus = {
        node.input[0]: node
        for node in graph.node
        if node.op_type == "Relu" and node.input[0] in places and count[node.input[0]] == 1
    }
    gone = {node.output[0] for node in relus.values()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in places:
            nodes += _as_convolution(node, values, relus.get(node.output[0]))
        elif node.output[0] not in gone:
            nodes.append(node)
    set_nodes(graph, nodes)
    set_initializers(graph, values)
    return len(found)


def _doubles(node: onnx.NodeProto) -> bool:
    found = {"group": 1, "dilations": [1, 1], "output_padding": [0, 0], **attributes(node)}
    wanted = {
        "kernel_shape": [4, 4],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "group": 1,
        "dilations": [1, 1],
        "output_padding": [0, 0],
    }
    return found == wanted


# Along one axis: output 2 i reads inputs i - 1 and i with taps 3 and 1, output 2 i + 1 reads
# inputs i and i + 1 with taps 2 and 0.
_TAPS = ((3, 1), (2, 0))


def _as_convolution(
    node: onnx.NodeProto, values: Arrays, relu: onnx.NodeProto | None
) -> list[onnx.NodeProto]:
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
    far = np.iinfo(np.int64).max
    values["phases/axes"] = np.array([1, 2, 3])
    for number in range(4):
        row, column = divmod(number, 2)
        limits = f"{name}/starts{number}", f"{name}/ends{number}"
        values[limits[0]] = np.array([number * channels, row, column])
        values[limits[1]] = np.array([(number + 1) * channels, row - 1 or far, column - 1 or far])
        inputs = [corners, *limits, "phases/axes"]
        nodes.append(helper.make_node("Slice", inputs, [f"{name}/phase{number}"]))
    parts = [f"{name}/phase{number}" for number in range(4)]
    nodes.append(helper.make_node("Concat", parts, [f"{name}/phases"], axis=1))
    nodes.append(helper.make_node("DepthToSpace", [f"{name}/phases"], [name], blocksize=2))
    return nodes
