"""Convert a set of nodes to another float type."""

from __future__ import annotations

import onnx
import onnx.version_converter
from onnx import helper

from posekit_engines.graphs.edit import initializers, set_initializers, set_nodes

ACCUMULATING = {
    "LayerNormalization": "sums squares, on a GPU in the tensor's own type",
    "Softmax": "sums exponentials, on a GPU in the tensor's own type",
    "ReduceMean": "sums, on a GPU in the tensor's own type",
    "ReduceSum": "sums, on a GPU in the tensor's own type",
    "Pow": "squares lose half the range",
}
HALF, _FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors, initializers included."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
    return names | {each.name for each in inferred.initializer if each.data_type == _FLOAT}


def rewrite_types(graph: onnx.GraphProto, half: set[str], floats: set[str], *, to: int) -> None:
    """Convert the nodes `half` to the type `to`, with casts wherever the types meet.

    half: nodes by their first output.  floats: all float32 tensors. A tensor t that a converted
    node writes becomes t.half, cast back to t where a float32 node reads it.
    """
    values = initializers(graph)
    dtype = helper.tensor_dtype_to_np_dtype(to)
    written = {name for node in graph.node if node.output[0] in half for name in node.output}
    wide = {name for node in graph.node if node.output[0] not in half for name in node.input}
    wide |= {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node in graph.node:
        if node.output[0] not in half:
            nodes.append(node)
            continue
        count = 1 if node.op_type == "Resize" else len(node.input)  # its scales stay float32
        read = node.input[:count]
        for name in sorted(set(read) & floats - written - cast):
            cast.add(name)
            if name in values:
                values[f"{name}.half"] = values[name].astype(dtype)
            else:
                nodes.append(helper.make_node("Cast", [name], [f"{name}.half"], to=to))
        node.input[:count] = [f"{name}.half" if name in floats else name for name in read]
        results = list(node.output)
        node.output[:] = [f"{name}.half" if name in floats else name for name in results]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = to
        nodes.append(node)
        nodes += [
            helper.make_node("Cast", [f"{name}.half"], [name], to=_FLOAT)
            for name in results
            if name in floats & wide
        ]
    set_nodes(graph, nodes)
    set_initializers(graph, values)
