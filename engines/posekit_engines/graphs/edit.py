"""Read and change the initializers, nodes and tensor names of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from posekit.errors import ExportError
from posekit.types import ModelSpec

Arrays = dict[str, NDArray[Any]]
HEATMAPS, INNER_HEATMAPS = "heatmaps", "network/heatmaps"
"""The network's maps: by name, and where a graph around it has merged maps of that name."""


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that shares nothing with `model`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def initializers(graph: onnx.GraphProto) -> Arrays:
    """The initializers' values by name."""
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def set_initializers(graph: onnx.GraphProto, values: Arrays) -> None:
    """Replace the graph's initializers by those of `values` that a node reads."""
    used = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    for name, value in values.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the graph's nodes."""
    new = list(nodes)
    del graph.node[:]
    graph.node.extend(new)


def rename_tensors(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor in every node that reads or writes it; inputs and outputs keep theirs."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read; being an output of the graph counts as one read."""
    count = Counter(name for node in graph.node for name in node.input)
    count.update(value.name for value in graph.output)
    return count


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def batched(name: str, sizes: Sequence[int], kind: int) -> onnx.ValueInfoProto:
    """An input or output of shape (N, *sizes), N dynamic.  kind: TensorProto's number type."""
    return helper.make_tensor_value_info(name, kind, ["N", *sizes])


def heatmaps_name(graph: onnx.GraphProto) -> str:
    """The tensor with the network's own maps. Raises ExportError where there is none."""
    written = {name for node in graph.node for name in node.output}
    for name in (INNER_HEATMAPS, HEATMAPS):
        if name in written:
            return name
    raise ExportError("graph: wanted one that posekit made, with tensors image and heatmaps")


def network_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The network's own nodes, in order: those between `image` and the maps.

    Normalization of the crops, flip merge and decode are not among them.
    Raises ExportError where the graph is not posekit's.
    """
    needed = {heatmaps_name(graph)}
    written = {name for node in graph.node for name in node.output}
    if "image" not in written | {value.name for value in graph.input}:
        raise ExportError("graph: wanted one that posekit made, with tensors image and heatmaps")
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output) and "image" not in node.output:
            nodes.append(node)
            needed.update(node.input)
    return nodes[::-1]


def cut_network(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """The network alone: `image` float32 (N, 3, H, W) to `heatmaps` float32 (N, K, h, w).

    External initializers stay external. Raises ExportError where the graph is not posekit's.
    """
    alone = copy_model(model)
    graph = alone.graph
    nodes, maps = network_nodes(graph), heatmaps_name(graph)
    read = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    set_nodes(graph, nodes)
    rename_tensors(graph, maps, HEATMAPS)
    graph.initializer.extend(kept)
    image, cells = spec.input_size[::-1], spec.heatmap_size[::-1]
    graph.input.append(batched("image", [3, *image], onnx.TensorProto.FLOAT))
    graph.output.append(batched(HEATMAPS, [len(spec.skeleton), *cells], onnx.TensorProto.FLOAT))
    return alone
