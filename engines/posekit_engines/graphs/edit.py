"""Read and replace initializers and nodes of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from posekit.errors import ExportError

Arrays = dict[str, NDArray[Any]]


def initializers(graph: onnx.GraphProto) -> Arrays:
    """The initialisers' values by name."""
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def set_initializers(graph: onnx.GraphProto, values: Arrays) -> None:
    """Make exactly those of `values` that a node reads the graph's initialisers."""
    used = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    for name, value in values.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the graph's nodes."""
    found = list(nodes)
    del graph.node[:]
    graph.node.extend(found)


def readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read; a graph's output counts as read."""
    count = Counter(name for node in graph.node for name in node.input)
    count.update(value.name for value in graph.output)
    return count


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def network_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The network's own nodes: what lies between `image` and the maps, as graph.py names them.

    Normalisation of the crops, flip merge and decode are not among them.
    Raises ExportError where the graph is not posekit's.
    """
    made = {name for node in graph.node for name in node.output}
    last = next((name for name in ("network/heatmaps", "heatmaps") if name in made), None)
    if last is None or "image" not in made | {value.name for value in graph.input}:
        raise ExportError("wanted a graph that posekit made, with tensors image and heatmaps")
    needed, found = {last}, []
    for node in reversed(graph.node):
        if needed & set(node.output) and "image" not in node.output:
            found.append(node)
            needed.update(node.input)
    return found[::-1]
