"""The ONNX graphs that TensorRT plans are built from, in the shape that suits TensorRT.

From a bundle alone, without torch's network: the bundle's graph `maps` holds it.
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
        raise BundleError(f"{bundle.name}: has no graph 'maps', which plans are built from")
    network = cut_network(onnx.load_from_string(bundle.graphs["maps"]), bundle.pose_spec)
    return inline_weights(network, bundle.weights)


def for_tensorrt(model: onnx.ModelProto, *, half: bool) -> onnx.ModelProto:
    """A copy for TensorRT.  half: of the network alone, `image` and `heatmaps` are float16 too.

    Matrix products around the network become gathers and sums: they are small, and TensorRT for
    RTX has none in float32 on Turing. External weights stay where they are.
    """
    copy = copy_model(model)
    del copy.graph.value_info[:]
    _without_products(copy.graph)
    if half:
        _half_ends(copy.graph)
    return copy


def with_float_io(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a network with float16 ends that takes and gives float32: the same arithmetic."""
    copy = copy_model(model)
    graph = copy.graph
    rename_tensors(graph, "image", "image.given")
    rename_tensors(graph, HEATMAPS, "heatmaps.given")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = FLOAT
    into = helper.make_node("Cast", ["image"], ["image.given"], to=_HALF)
    out = helper.make_node("Cast", ["heatmaps.given"], [HEATMAPS], to=FLOAT)
    set_nodes(graph, [into, *graph.node, out])
    return copy


def _half_ends(graph: onnx.GraphProto) -> None:
    """Take the casts at both ends into the graph's own input and output."""
    into = [n for n in graph.node if n.op_type == "Cast" and n.input[0] == "image"]
    out = [n for n in graph.node if n.op_type == "Cast" and n.output[0] == HEATMAPS]
    nodes = [node for node in graph.node if node not in into + out]
    wide = any("image" in node.input for node in nodes)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = _HALF
    set_nodes(graph, nodes)
    if wide:  # an operator of the network stayed in float32 and reads the image itself
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
        given = tensors.get(node.input[1])
        matrix = None if given is None else numpy_helper.to_array(given)
        few = matrix is not None and (matrix != 0).sum(0).max() <= _FEW
        nodes += (
            _gathered(graph, node, matrix)
            if few and matrix is not None
            else _summed(graph, node, wide=matrix is None)
        )
    set_nodes(graph, nodes)


_FEW = 2  # a mirrored map moved by part of a cell is a mean of two


def _constant(graph: onnx.GraphProto, name: str, value: object) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _gathered(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> list[onnx.NodeProto]:
    """x · matrix with at most two numbers in a column, as one weighted gather for each."""
    x, name = node.input[0], node.output[0]
    order = np.argsort(matrix == 0, axis=0, kind="stable")  # a column's rows that count come first
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


def _summed(graph: onnx.GraphProto, node: onnx.NodeProto, *, wide: bool) -> list[onnx.NodeProto]:
    """x (N, K, P) · a matrix (P, Q), or one for each n where `wide`: products, then their sums."""
    name = node.output[0]
    at = {n: _constant(graph, f"{name}/axis{n}", np.array([n])) for n in (1, 2, 3)}
    x, matrix = f"{name}/x", node.input[1]
    nodes = [helper.make_node("Unsqueeze", [node.input[0], at[3]], [x])]
    if wide:
        nodes.append(helper.make_node("Unsqueeze", [matrix, at[1]], [f"{name}/matrix"]))
        matrix = f"{name}/matrix"
    nodes.append(helper.make_node("Mul", [x, matrix], [f"{name}/products"]))
    inputs = [f"{name}/products", at[2]]
    return [*nodes, helper.make_node("ReduceSum", inputs, [name], keepdims=0)]
