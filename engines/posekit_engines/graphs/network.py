"""From a torch network to a small ONNX graph whose weights live elsewhere.

The graph's initializers carry the state dict's own names, have the type in which a bundle stores
them (float16 behind a Cast to float32) and are EXTERNAL: `runtime.open_session` supplies them from
the bundle, so new weights of the same network need no new graph. Batch norm stays an operator of
its own (ONNX Runtime folds it when it loads).
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
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from posekit.errors import ExportError
from posekit.types import DetectorSpec, ModelSpec

OPSET = 17
_IR_VERSION = 8
_LOCATION = "weights.safetensors"
_FLOAT = onnx.TensorProto.FLOAT
_HALF = np.dtype(np.float16)
Constants = dict[str, NDArray[Any]]
Axes = Mapping[str, Mapping[int, str]]


def network_graph(
    net: nn.Module, spec: ModelSpec, stored: Mapping[str, NDArray[Any]] | None = None
) -> onnx.ModelProto:
    """`image` float32 (N, 3, H, W), normalized, to `heatmaps` float32 (N, K, h, w), any N.

    stored: the weights that will be supplied, whose types the external initializers have; of None
    float32.  The same network and torch give the same bytes.
    Raises ExportError where the network has no ONNX form or its maps are not the spec's.
    """
    image = torch.zeros(2, 3, spec.input_size[1], spec.input_size[0])
    axes = {"image": {0: "N"}, "heatmaps": {0: "N"}}
    model = _graph(net, spec.architecture, image=image, axes=axes, stored=stored)
    got = [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim][1:]
    wanted = [len(spec.skeleton), spec.heatmap_size[1], spec.heatmap_size[0]]
    if got != wanted:
        name = spec.architecture
        raise ExportError(f"{name}: the network gives maps {got}, its spec says {wanted}")
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
    model = _exported(net.eval(), image, axes)
    _unmerge(model.graph, set(net.state_dict()))
    _fold_constants(model.graph)
    _merge_pads(model.graph)
    _externalize(model.graph, net, stored)
    with torch.no_grad():
        given = net(image)
    tensors = [image, *([given] if isinstance(given, Tensor) else given)]
    for value, tensor in zip((*model.graph.input, *model.graph.output), tensors, strict=True):
        kind = value.type.tensor_type.elem_type
        sizes = [axes[value.name].get(n, size) for n, size in enumerate(tensor.shape)]
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, sizes))
    return _plain(model, name)


def _exported(net: nn.Module, image: Tensor, axes: Axes) -> onnx.ModelProto:
    """The graph as torch's TorchScript exporter gives it: names kept, nothing folded.

    That exporter is the one that keeps a state dict's names and batch norm as an operator. Weights
    are inputs by name: no protobuf ever holds them, which ends at 2 GiB.
    """
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its deprecation on every call
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
    """Let each weight be an input of its own: of equal ones the exporter keeps one.

    The others stand behind Identity nodes that are named like them.
    """
    given = {value.name for value in graph.input}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in given and node.output[0] in names:
            graph.node.remove(node)
            graph.input.add(name=node.output[0])


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Evaluate what depends on constants alone (not on weights); each is one Constant node."""
    known: Constants = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if all(name in known for name in inputs) and node.op_type != "RandomNormalLike":
            values = ReferenceEvaluator(node).run(None, {name: known[name] for name in inputs})
            known.update(zip(node.output, map(np.asarray, values), strict=True))
        else:
            kept.append(node)
    used = [name for node in kept for name in node.input]
    constants, renamed = _constants({name: known[name] for name in used if name in known})
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend([*constants, *kept])


def _constants(values: Constants) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """One Constant node for each different value, and which old name is which new one."""
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    seen: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, value in values.items():
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in seen:
            seen[key] = f"constant_{len(seen)}"
            tensor = numpy_helper.from_array(value)
            nodes.append(helper.make_node("Constant", [], [seen[key]], seen[key], value=tensor))
        renamed[name] = seen[key]
    return nodes, renamed


def _merge_pads(graph: onnx.GraphProto) -> None:
    """Turn each Pad with zeros before a Conv into the Conv's own pads (Thunder: 15 % of time)."""
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
    """What `pad` adds as a Conv's pads (top, left, bottom, right), or None if a Conv cannot."""
    mode = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
    filled = len(pad.input) > 2 and pad.input[2]
    if mode not in ([], [b"constant"]) or filled or pad.input[1] not in constants:
        return None
    amounts = numpy_helper.to_array(constants[pad.input[1]].attribute[0].t).tolist()
    half = len(amounts) // 2
    outer = (*amounts[:2], *amounts[half : half + 2])
    return None if any(outer) else [*amounts[2:half], *amounts[half + 2 :]]


def _externalize(
    graph: onnx.GraphProto, net: nn.Module, stored: Mapping[str, NDArray[Any]] | None
) -> None:
    """Declare each floating entry of the state dict as external, a float16 one cast to float32.

    Raises ExportError unless the graph uses exactly those: ONNX Runtime refuses a session that
    lacks one, and one that is supplied with more.
    """
    state = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    image, *others = graph.input
    wanted = {value.name for value in (*others, *graph.initializer)}
    if strange := sorted(wanted ^ set(state)):
        raise ExportError(f"{type(net).__name__}: state dict and graph differ in {strange}")
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
        _external(name, tuple(v.shape), half=name in half) for name, v in state.items()
    )


def _external(name: str, shape: tuple[int, ...], *, half: bool) -> onnx.TensorProto:
    """A tensor without its values, which `add_external_initializers` supplies."""
    return onnx.TensorProto(
        name=name,
        dims=shape,
        data_type=onnx.TensorProto.FLOAT16 if half else _FLOAT,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key="location", value=_LOCATION)],
    )


def _plain(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model without doc strings, source paths, the producer's mark and inferred shapes."""
    graph = model.graph
    graph.name, graph.doc_string = name, ""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
