"""From a torch network to a small ONNX graph whose weights are stored elsewhere.

The graph's initializers have the state dict's own names and the type in which a bundle stores
them (float16 with a Cast to float32), and are EXTERNAL: `session.open_session` supplies them from
the bundle, so that new weights of the same network need no new graph. Batch norm stays an operator
(ONNX Runtime folds it when it loads).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from posekit.errors import ExportError
from posekit.types import DetectorSpec, ModelSpec
from posekit_engines.graphs.edit import Arrays, set_nodes
from posekit_engines.graphs.fold import fold_constants

OPSET = 17
_IR_VERSION = 8
_LOCATION = "weights.safetensors"
_FLOAT = onnx.TensorProto.FLOAT
_HALF = np.dtype(np.float16)
Axes = Mapping[str, Mapping[int, str]]


def network_graph(
    net: nn.Module, spec: ModelSpec, stored: Mapping[str, NDArray[Any]] | None = None
) -> onnx.ModelProto:
    """`image` float32 (N, 3, H, W), normalized, to `heatmaps` float32 (N, K, h, w), any N.

    stored: the weights to be supplied, whose types the external initializers have; None: float32.
    The same network and torch give the same bytes.
    Raises ExportError where the network has no ONNX form or its maps are not the spec's.
    """
    image = torch.zeros(2, 3, spec.input_size[1], spec.input_size[0])
    axes = {"image": {0: "N"}, "heatmaps": {0: "N"}}
    model = _graph(net, spec.architecture, image=image, axes=axes, stored=stored)
    given = [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim][1:]
    wanted = [len(spec.skeleton), spec.heatmap_size[1], spec.heatmap_size[0]]
    if given != wanted:
        name = spec.architecture
        raise ExportError(f"{name}: the network gives maps {given}, its spec wants {wanted}")
    return model


def detector_graph(
    net: nn.Module, spec: DetectorSpec, stored: Mapping[str, NDArray[Any]] | None = None
) -> onnx.ModelProto:
    """`image` uint8 (1, H, W, 3) RGB to `boxes` float32 (1, A, 4) and `scores` (1, A), any H, W.

    stored: as for `network_graph`. Raises ExportError where it has no ONNX form.
    """
    width, height = spec.input_size
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    axes = {"image": {1: "H", 2: "W"}, "boxes": {1: "A"}, "scores": {1: "A"}}
    return _graph(net, spec.architecture, image=image, axes=axes, stored=stored)


def _graph(
    net: nn.Module,
    name: str,
    *,
    image: Tensor,
    axes: Axes,
    stored: Mapping[str, NDArray[Any]] | None,
) -> onnx.ModelProto:
    """The simplified graph of `net` for images like `image`; sizes of the named `axes` may vary."""
    model = _torch_export(net.eval(), image, axes)
    _unmerge(model.graph, set(net.state_dict()))
    _fold_constants(model.graph)
    _merge_pads(model.graph)
    _externalize(model.graph, net, stored)
    with torch.no_grad():
        outputs = net(image)
    tensors = [image, *([outputs] if isinstance(outputs, Tensor) else outputs)]
    for value, tensor in zip((*model.graph.input, *model.graph.output), tensors, strict=True):
        kind = value.type.tensor_type.elem_type
        sizes = [axes[value.name].get(n, size) for n, size in enumerate(tensor.shape)]
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, sizes))
    return _without_traces(model, name)


def _torch_export(net: nn.Module, image: Tensor, axes: Axes) -> onnx.ModelProto:
    """The graph as torch's TorchScript exporter writes it: names kept, nothing folded.

    That exporter keeps the state dict's names, and batch norm as an operator. Weights are inputs by
    name, so that no protobuf, whose limit is 2 GiB, ever holds them.
    """
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a deprecation warning on every call
            torch.onnx.export(
                net,
                (image,),
                file,  # type: ignore[arg-type]  # the TorchScript exporter takes a buffer too
                dynamo=False,
                export_params=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=[name for name in axes if name != "image"],
                dynamic_axes=axes,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"{type(net).__name__} has no ONNX form: {error}") from error
    return onnx.load_from_string(file.getvalue())


def _unmerge(graph: onnx.GraphProto, names: set[str]) -> None:
    """Make each weight an input of its own.

    Of equal ones the exporter keeps one, and the others are Identity nodes of it by their names.
    """
    inputs = {value.name for value in graph.input}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in inputs and node.output[0] in names:
            graph.node.remove(node)
            graph.input.add(name=node.output[0])


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Evaluate what depends on constants alone (not on weights); each is one Constant node."""
    values: Arrays = {}
    fold_constants(graph, values)
    used = [name for node in graph.node for name in node.input]
    constants, new_names = _constant_nodes({name: values[name] for name in used if name in values})
    for node in graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]
    set_nodes(graph, [*constants, *graph.node])


def _constant_nodes(values: Arrays) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """One Constant node for each distinct value, and the new name of each old one."""
    nodes: list[onnx.NodeProto] = []
    new_names: dict[str, str] = {}
    by_value: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, value in values.items():
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in by_value:
            new = by_value[key] = f"constant_{len(by_value)}"
            tensor = numpy_helper.from_array(value)
            nodes.append(helper.make_node("Constant", [], [new], new, value=tensor))
        new_names[name] = by_value[key]
    return nodes, new_names


def _merge_pads(graph: onnx.GraphProto) -> None:
    """Move each Pad with zeros before a Conv into the Conv's pads (Thunder: 15 % of its time)."""
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        pad = pads.get(conv.input[0])
        amounts = _zero_pads(pad, constants) if pad else None
        if pad is None or amounts is None:
            continue
        own = next(attribute for attribute in conv.attribute if attribute.name == "pads")
        own.ints[:] = [a + b for a, b in zip(own.ints, amounts, strict=True)]
        conv.input[0] = pad.input[0]
    for nodes in (pads, constants):
        used = {name for node in graph.node for name in node.input}
        for node in (node for name, node in nodes.items() if name not in used):
            graph.node.remove(node)


def _zero_pads(pad: onnx.NodeProto, constants: Mapping[str, onnx.NodeProto]) -> list[int] | None:
    """The Conv pads (top, left, bottom, right) that equal `pad`, or None where there are none."""
    mode = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
    has_value = len(pad.input) > 2 and pad.input[2]
    if mode not in ([], [b"constant"]) or has_value or pad.input[1] not in constants:
        return None
    amounts = numpy_helper.to_array(constants[pad.input[1]].attribute[0].t).tolist()
    half = len(amounts) // 2
    outer = (*amounts[:2], *amounts[half : half + 2])
    return None if any(outer) else [*amounts[2:half], *amounts[half + 2 :]]


def _externalize(
    graph: onnx.GraphProto, net: nn.Module, stored: Mapping[str, NDArray[Any]] | None
) -> None:
    """Declare each floating-point entry of the state dict as external, a float16 one with a Cast.

    Raises ExportError unless the graph uses exactly those: ONNX Runtime rejects a session with
    missing weights, and one with more than it uses.
    """
    state = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    image, *others = graph.input
    weights = {value.name for value in (*others, *graph.initializer)}
    if different := sorted(weights ^ set(state)):
        raise ExportError(f"{type(net).__name__}: state dict and graph differ in {different}")
    half = {name for name in state if stored is not None and stored[name].dtype == _HALF}
    casts = [
        helper.make_node("Cast", [name], [f"{name}.float32"], f"{name}.cast", to=_FLOAT)
        for name in state
        if name in half
    ]
    for node in graph.node:
        node.input[:] = [f"{name}.float32" if name in half else name for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.input.append(image)
    graph.node.extend(nodes)
    graph.initializer.extend(
        _external_tensor(name, tuple(v.shape), half=name in half) for name, v in state.items()
    )


def _external_tensor(name: str, shape: tuple[int, ...], *, half: bool) -> onnx.TensorProto:
    """A tensor without values: ONNX Runtime's `add_external_initializers` supplies them."""
    return onnx.TensorProto(
        name=name,
        dims=shape,
        data_type=onnx.TensorProto.FLOAT16 if half else _FLOAT,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key="location", value=_LOCATION)],
    )


def _without_traces(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model without doc strings, source paths, producer name and inferred shapes."""
    graph = model.graph
    graph.name, graph.doc_string = name, ""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
