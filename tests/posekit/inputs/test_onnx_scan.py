"""No graph reads a file beside it, loops, or grows without end, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from posekit import bundle
from posekit.bundle import Bundle
from posekit.detect import Detector
from posekit.errors import BundleError
from posekit.inference.model_file import open_model
from posekit.inference.session import open_session
from posekit.inputs import onnx_scan
from posekit.inputs.onnx_scan import check_supplied, external_initializers
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec

SECRET = np.arange(4, dtype=np.float32)


def outside(name: str = "w", location: str = "secret.bin", **more: str) -> onnx.TensorProto:
    """A tensor of four numbers that says that they are in a file."""
    tensor = onnx.TensorProto(name=name, dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_of(nodes: list[onnx.NodeProto], *initializers: onnx.TensorProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [4])],
        list(initializers),
    )


def model_of(graph: onnx.GraphProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model_of(graph_of([helper.make_node("Add", ["x", "w"], ["y"])], tensor))


def constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    return model_of(graph_of(nodes))


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    node = [helper.make_node("Add", ["x", "w"], ["z"])]
    branch = helper.make_graph(node, "b", [], [value("z", TensorProto.FLOAT, [4])], [tensor])
    always = numpy_helper.from_array(np.array(True), "c")
    run = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return model_of(graph_of([run], always))


def sparse_values(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Add", ["x", "w"], ["y"])]))
    indices = numpy_helper.from_array(np.arange(4), "i")
    model.graph.sparse_initializer.add(values=tensor, indices=indices, dims=[4])
    return model


def sparse_indices(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Add", ["x", "w"], ["y"])]))
    values = numpy_helper.from_array(SECRET, "w")
    model.graph.sparse_initializer.add(values=values, indices=tensor, dims=[4])
    return model


def sparse_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse)
    return model_of(graph_of([node, helper.make_node("Add", ["x", "w"], ["y"])]))


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    body = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    return model_of(graph_of([helper.make_node("F", ["x"], ["y"], domain="own")]), function)


def in_a_list(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Other", ["x"], ["y"], domain="own", values=[tensor])
    return model_of(graph_of([node]))


def in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Identity", ["x"], ["y"])]))
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


PLACES = [
    initializer,
    constant,
    in_a_branch,
    sparse_values,
    sparse_indices,
    sparse_constant,
    in_a_function,
    in_a_list,
    in_training,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location", ["secret.bin", "/etc/passwd", "../secret.bin", "a/weights.safetensors", "b/c.data"]
)
def test_a_tensor_in_another_file_is_refused_wherever_it_stands(
    place: Callable[[onnx.TensorProto], onnx.ModelProto], location: str
) -> None:
    data = place(outside(location=location)).SerializeToString()
    with pytest.raises(BundleError, match=r"^net: tensor 'w' refers to the file"):
        external_initializers(data, "net")


@pytest.mark.parametrize("place", PLACES[1:])
def test_only_the_main_graphs_weights_may_come_from_the_bundle(
    place: Callable[[onnx.TensorProto], onnx.ModelProto],
) -> None:
    data = place(outside(location="weights.safetensors")).SerializeToString()
    with pytest.raises(BundleError, match="refused"):
        check_supplied(data, {"w"}, "net")
    data = initializer(outside(location="weights.safetensors")).SerializeToString()
    assert check_supplied(data, {"w"}, "net") == {"w"}
    with pytest.raises(BundleError, match="none of its own weights"):
        check_supplied(data, {"other"}, "net")


def test_a_tensor_named_twice_or_with_two_locations_is_refused() -> None:
    own = outside(location="weights.safetensors")
    model = initializer(own)
    model.graph.initializer.append(own)
    twice = onnx.TensorProto()
    twice.CopyFrom(own)
    twice.external_data.add(key="location", value="secret.bin")
    for each in (model, initializer(twice)):
        with pytest.raises(BundleError, match="refused"):
            check_supplied(each.SerializeToString(), {"w"}, "net")
    # Protobuf joins the two halves of a repeated message: neither is complete alone.
    halves = (
        constant(outside()).SerializeToString()
        + constant(outside(location="weights.safetensors")).SerializeToString()
    )
    with pytest.raises(BundleError, match="refused"):
        check_supplied(halves, {"w"}, "net")


@pytest.mark.parametrize(
    "location", ["*/_ORT_MEM_ADDR_/*", "secret.bin\0.data/../x", "..\\weights.safetensors", ""]
)
def test_memory_addresses_and_odd_names_are_refused(location: str) -> None:
    data = initializer(outside(location=location, offset="0", length="16")).SerializeToString()
    with pytest.raises(BundleError, match="refers to the file"):
        check_supplied(data, {"w"}, "net")


def test_the_bytes_of_a_file_in_the_working_directory_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(SECRET.tobytes())
    Path("weights.safetensors").write_bytes(SECRET.tobytes())
    spec = ModelSpec("movenet-thunder", (256, 256), (64, 64), COCO_17)
    for location in ("secret.bin", "weights.safetensors"):
        data = initializer(outside(location=location)).SerializeToString()
        with pytest.raises(BundleError, match="refused"):
            open_session(data, {}, device="cpu", threads=1)
        Path("net.onnx").write_bytes(data)
        Bundle("b", spec, {"other": SECRET}, {"flip": data}).save("b.posekit")
        with pytest.raises(BundleError, match=r"b\.posekit: graphs/flip\.onnx: .*refused"):
            Bundle.open("b.posekit")
        with pytest.raises(BundleError, match=r"net\.onnx"):
            open_model(Path("net.onnx"))
        with pytest.raises(BundleError, match=r"net\.onnx: .*refused"):
            Detector("net.onnx", device="cpu")


def nested(depth: int) -> onnx.ModelProto:
    """Functions that each call the next twice: 2**depth nodes, written out."""
    functions = []
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(depth):
        name, domain = (f"F{level + 1}", "own") if level + 1 < depth else ("Identity", "")
        body = [
            helper.make_node(name, ["a"], ["m"], domain=domain),
            helper.make_node(name, ["m"], ["b"], domain=domain),
        ]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], body, opsets))
    return model_of(graph_of([helper.make_node("F0", ["x"], ["y"], domain="own")]), *functions)


def test_functions_are_counted_as_often_as_they_are_called() -> None:
    assert external_initializers(nested(10).SerializeToString(), "net") == frozenset()
    for depth in (20, 25, 200):
        with pytest.raises(BundleError, match="written out, are over 1,000,000 nodes"):
            external_initializers(nested(depth).SerializeToString(), "net")


def test_a_function_that_calls_itself_is_refused() -> None:
    model = nested(3)
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "F0", "own"
    with pytest.raises(BundleError, match="calls itself"):
        external_initializers(model.SerializeToString(), "net")


@pytest.mark.parametrize("kind", ["Loop", "Scan", "EPContext"])
def test_loops_and_engines_in_files_are_refused_wherever_they_stand(kind: str) -> None:
    node = helper.make_node(kind, ["x"], ["y"])
    always = numpy_helper.from_array(np.array(True), "c")
    branch = helper.make_graph([node], "b", [], [])
    inside = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    for model in (model_of(graph_of([node])), model_of(graph_of([inside], always))):
        with pytest.raises(BundleError, match=f"holds an? {kind}"):
            external_initializers(model.SerializeToString(), "net")


def test_the_runtimes_own_format_and_other_bytes_are_refused() -> None:
    for data in (b"\x18\0\0\0ORTM" + bytes(100), b"<html>", b"\xff" * 40, bytes(8), b"\x0a\x7f"):
        with pytest.raises(BundleError, match=r"^net: .*(ONNX)"):
            external_initializers(data, "net")


def test_a_file_of_endless_parts_ends() -> None:
    data = b"\x42\x00" * (onnx_scan.MOST_FIELDS + 1)  # empty opset imports
    with pytest.raises(BundleError, match="too many parts"):
        external_initializers(data, "net")


@pytest.mark.parametrize("name", sorted(bundle.embedded()))
def test_the_scan_agrees_with_onnx_on_the_embedded_models(name: str) -> None:
    opened = Bundle.open(bundle.find(name))
    for graph, data in opened.graphs.items():
        tensors = onnx.load_from_string(data).graph.initializer
        wanted = {each.name for each in tensors if each.data_location == TensorProto.EXTERNAL}
        assert external_initializers(data, graph) == wanted
        assert wanted == set(opened.weights)


@given(st.data())
def test_a_mutated_graph_that_passes_names_no_file_for_onnx_either(data: st.DataObject) -> None:
    """Whatever the scan lets through, protobuf's own reading finds nothing outside in it."""
    place = data.draw(st.sampled_from(PLACES))
    graph = bytearray(place(outside()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    try:
        external_initializers(bytes(graph), "net")
    except BundleError:
        return
    try:
        model = onnx.load_from_string(bytes(graph))
    except DecodeError:
        return
    assert not _outside(model)


def _outside(message: Message) -> bool:
    """Whether a protobuf message holds a tensor in a file, by protobuf's own reflection."""
    if isinstance(message, onnx.TensorProto):
        return bool(message.data_location == TensorProto.EXTERNAL)
    found = []
    for _, value in message.ListFields():
        values = (
            value if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) else [value]
        )
        found += [_outside(each) for each in values if hasattr(each, "ListFields")]
    return any(found)
