"""The ONNX graphs that TensorRT engines are built from, with operators that TensorRT supports.

The network comes from the bundle's graph `maps`, without torch.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from posekit.bundle import Bundle
from posekit.errors import BundleError
from posekit_engines.graphs.edit import (
    HEATMAPS,
    copy_model,
    cut_network,
    network_nodes,
    rename_tensors,
    set_nodes,
)
from posekit_engines.graphs.weights import inline_weights

FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def network_of(bundle: Bundle) -> onnx.ModelProto:
    """The network alone, `image` (N, 3, H, W) to `heatmaps` (N, K, h, w), float32, stand-alone.

    Raises BundleError where the bundle has no graph `maps`, ExportError.
    """
    if "maps" not in bundle.graphs:
        raise BundleError(f"{bundle.name}: has no graph 'maps', from which engines are built")
    network = cut_network(onnx.load_from_string(bundle.graphs["maps"]), bundle.pose_spec)
    return inline_weights(network, bundle.weights)


def for_tensorrt(model: onnx.ModelProto, *, half: bool) -> onnx.ModelProto:
    """A copy for TensorRT.  half: of the network alone, `image` and `heatmaps` are float16 too.

    Matrix products around the network become gathers and sums: they are small, and TensorRT for
    RTX has none in float32 on Turing. External weights stay external.
    """
    copy = copy_model(model)
    del copy.graph.value_info[:]
    _without_products(copy.graph)
    if half:
        _half_ends(copy.graph)
    return copy


def with_float_io(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a network with float32 input and output instead of float16; same arithmetic."""
    copy = copy_model(model)
    graph = copy.graph
    rename_tensors(graph, "image", "image.half")
    rename_tensors(graph, HEATMAPS, "heatmaps.half")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = FLOAT
    into = helper.make_node("Cast", ["image"], ["image.half"], to=_HALF)
    out = helper.make_node("Cast", ["heatmaps.half"], [HEATMAPS], to=FLOAT)
    set_nodes(graph, [into, *graph.node, out])
    return copy


def _half_ends(graph: onnx.GraphProto) -> None:
    """Make input and output float16, without the casts at both ends."""
    into = [n for n in graph.node if n.op_type == "Cast" and n.input[0] == "image"]
    out = [n for n in graph.node if n.op_type == "Cast" and n.output[0] == HEATMAPS]
    nodes = [node for node in graph.node if node not in into + out]
    reads_float = any("image" in node.input for node in nodes)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = _HALF
    set_nodes(graph, nodes)
    if reads_float:  # an operator of the network stayed in float32 and reads the image directly
        rename_tensors(graph, "image", "image.float")
        cast = helper.make_node("Cast", ["image"], ["image.float"], to=FLOAT)
        set_nodes(graph, [cast, *graph.node])
    for cast in into:
        rename_tensors(graph, cast.output[0], "image")
    if out:
        rename_tensors(graph, out[0].input[0], HEATMAPS)
    else:
        rename_tensors(graph, HEATMAPS, "heatmaps.float")
        graph.node.append(helper.make_node("Cast", ["heatmaps.float"], [HEATMAPS], to=_HALF))


def _without_products(graph: onnx.GraphProto) -> None:
    """Replace each MatMul that is not the network's."""
    own = {node.output[0] for node in network_nodes(graph)}
    tensors = {each.name: each for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "MatMul" or node.output[0] in own:
            nodes.append(node)
            continue
        constant = tensors.get(node.input[1])
        matrix = None if constant is None else numpy_helper.to_array(constant)
        sparse = matrix is not None and (matrix != 0).sum(0).max() <= _MAX_GATHERED
        nodes += (
            _gathered(graph, node, matrix)
            if sparse and matrix is not None
            else _summed(graph, node, batched=matrix is None)
        )
    set_nodes(graph, nodes)


_MAX_GATHERED = 2  # columns of a flip shift by part of a cell have two numbers


def _constant(graph: onnx.GraphProto, name: str, value: object) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _gathered(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> list[onnx.NodeProto]:
    """x · matrix with at most two nonzero numbers in a column, as one weighted gather for each."""
    x, name = node.input[0], node.output[0]
    order = np.argsort(matrix == 0, axis=0, kind="stable")  # nonzero rows of a column first
    nodes, terms = [], []
    for n in range(int((matrix != 0).sum(0).max(initial=1))):
        rows = order[n]
        weights = matrix[rows, np.arange(matrix.shape[1])]
        term = f"{name}/gathered{n}"
        rows_name = _constant(graph, f"{term}.rows", rows.astype(np.int64))
        nodes.append(helper.make_node("Gather", [x, rows_name], [term], axis=-1))
        if (weights != 1).any():
            factor = _constant(graph, f"{term}.weights", weights)
            nodes.append(helper.make_node("Mul", [term, factor], [f"{term}.weighted"]))
            term = f"{term}.weighted"
        terms.append(term)
    if len(terms) == 1:
        nodes[-1].output[:] = [name]
        return nodes
    return [*nodes, helper.make_node("Add", terms, [name])]


def _summed(graph: onnx.GraphProto, node: onnx.NodeProto, *, batched: bool) -> list[onnx.NodeProto]:
    """x (N, K, P) · a matrix (P, Q), `batched` (N, P, Q), as products and their sums."""
    name = node.output[0]
    at = {n: _constant(graph, f"{name}/axis{n}", np.array([n])) for n in (1, 2, 3)}
    x, matrix = f"{name}/x", node.input[1]
    nodes = [helper.make_node("Unsqueeze", [node.input[0], at[3]], [x])]
    if batched:
        nodes.append(helper.make_node("Unsqueeze", [matrix, at[1]], [f"{name}/matrix"]))
        matrix = f"{name}/matrix"
    nodes.append(helper.make_node("Mul", [x, matrix], [f"{name}/products"]))
    inputs = [f"{name}/products", at[2]]
    return [*nodes, helper.make_node("ReduceSum", inputs, [name], keepdims=0)]
