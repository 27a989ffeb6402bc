"""Rewrites before quantization change no output, and nothing but the nodes that they name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from posekit.errors import ExportError
from posekit_engines.graphs.edit import (
    cut_network,
    initializers,
    network_nodes,
    readers,
    rename_tensors,
    set_initializers,
    set_nodes,
)
from posekit_engines.graphs.fold import fold_constants, fold_network, replace_deconvolutions
from posekit_engines.graphs.points import heatmaps_graph
from tests.engines.plain_graphs import (
    blurred,
    bumps_spec,
    exported,
    graph,
    kinds,
    lightning,
    open_model,
    statistics,
)

EXACT = 2e-6
"""Share of the largest value: a few roundings of float32, whose step is 6e-8, in a sum."""


def output(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """With every operator as it is: ONNX Runtime would fold some by itself."""
    session = open_model(model, optimize=False)
    maps: np.ndarray = session.run(None, {model.graph.input[0].name: image})[0]
    return maps


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, image: np.ndarray) -> None:
    wanted, given = output(before, image), output(after, image)
    np.testing.assert_allclose(given, wanted, atol=EXACT * float(np.abs(wanted).max()), rtol=0)


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_goes_into_the_convolution_before_it(bias: bool, groups: int) -> None:
    """Both kinds of convolution, whose weights have their output channels on different axes."""
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=groups, bias=bias),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 8, 4, 2, 1, groups=groups, bias=bias),
        nn.BatchNorm2d(8),
    )
    model = exported(statistics(net), image(1, 4, 9, 7))
    after = fold_network(model)
    assert kinds(after) == {"Conv": 1, "Relu": 1, "ConvTranspose": 1}
    assert_same(model, after, image(2, 4, 9, 7))


def test_weights_become_one_float32_initializer_each() -> None:
    """posekit stores float16 with a Cast; rewrites that read weights expect neither."""
    model, crops = lightning()
    assert kinds(model)["Cast"] > 50
    after = fold_network(model)
    assert kinds(after)["Cast"] <= 8  # those of the crops and of the decoding stay
    kind = {each.name: each.data_type for each in after.graph.initializer}
    weights = [n.input[1] for n in after.graph.node if n.op_type == "Conv"]
    assert {kind[name] for name in weights} == {onnx.TensorProto.FLOAT}
    feed = {"crops": crops[:1]}
    pairs = zip(open_model(model).run(None, feed), open_model(after).run(None, feed), strict=True)
    for wanted, given in pairs:
        np.testing.assert_allclose(given, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "shared", ["result", "weight"], ids=["the result is read twice", "the weight is read twice"]
)
def test_a_shared_result_or_weight_is_not_folded(shared: str) -> None:
    values = {
        "w": np.random.default_rng(1).normal(size=(2, 2, 1, 1)).astype(np.float32),
        **{name: np.array([0.5, 2.0], np.float32) for name in ("scale", "shift", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["other"])
        if shared == "weight"
        else helper.make_node("Identity", ["a"], ["other"]),
        helper.make_node("Add", ["b", "other"], ["heatmaps"]),
    ]
    model = graph(nodes, values, joints=2, channels=2)
    after = fold_network(model)
    assert kinds(after)["BatchNormalization"] == 1
    assert_same(model, after, image(1, 2, 6, 4))


def test_a_graph_that_does_not_stand_alone_is_rejected() -> None:
    model, _ = lightning()
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ExportError, match="inline them first"):
        fold_network(model)
    branch = helper.make_graph([], "branch", [], [])
    node = helper.make_node("If", ["image"], ["heatmaps"], then_branch=branch, else_branch=branch)
    with pytest.raises(ExportError, match="If, Loop or Scan"):
        fold_network(graph([node], {}, joints=1, channels=1))


def test_the_source_model_is_unchanged() -> None:
    model = exported(statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    before = model.SerializeToString()
    fold_network(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 6)])
def test_a_doubling_deconvolution_equals_its_convolution(
    bias: bool, relu: bool, size: tuple[int, int]
) -> None:
    """Up to the corners: also maps of one cell, where all but four kernel cells are outside."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(3, 5, 4, 2, 1, bias=bias)]
    if relu:
        layers.append(nn.ReLU())
    model = fold_network(exported(statistics(nn.Sequential(*layers, nn.Conv2d(5, 2, 1)))))
    after = onnx.ModelProto()
    after.CopyFrom(model)
    assert replace_deconvolutions(after) == 1
    assert "ConvTranspose" not in kinds(after)
    assert kinds(after)["Relu"] == int(relu)
    assert_same(model, after, image(2, 3, *size))


def test_two_in_a_row_and_a_result_that_two_read() -> None:
    """A ReLU that is not the only reader of its deconvolution stays where it is."""
    rng = np.random.default_rng(2)
    values = {name: rng.normal(size=(2, 2, 4, 4)).astype(np.float32) for name in ("v", "w")}
    same = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("ConvTranspose", ["image", "v"], ["a"], **same),
        helper.make_node("ConvTranspose", ["a", "w"], ["b"], **same),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["heatmaps"]),
    ]
    model = graph(nodes, values, joints=2, channels=2)
    after = fold_network(model)
    assert replace_deconvolutions(after) == 2
    assert_same(model, after, image(1, 2, 3, 4))


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 4, "stride": 1, "padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 0},
        {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 3},
        {"kernel_size": 4, "stride": 2, "padding": 1, "dilation": 2},
        {"kernel_size": 4, "stride": 2, "padding": 1, "output_padding": 1},
    ],
    ids=str,
)
def test_other_deconvolutions_stay(other: dict[str, Any]) -> None:
    model = fold_network(exported(statistics(nn.Sequential(nn.ConvTranspose2d(3, 3, **other)))))
    before = model.SerializeToString()
    assert replace_deconvolutions(model) == 0
    assert kinds(model) == {"ConvTranspose": 1}
    assert (
        output(model, image(1, 3, 5, 5)).shape
        == output(onnx.load_from_string(before), image(1, 3, 5, 5)).shape
    )


def test_the_network_is_the_nodes_between_image_and_maps() -> None:
    model, _ = lightning()
    found = network_nodes(fold_network(model).graph)
    count = Counter(node.op_type for node in found)
    assert count["Conv"] == kinds(model)["Conv"]
    assert count["ArgMax"] == count["Cast"] == 0
    assert all(not node.output[0].startswith(("crop/", "decode/")) for node in found)
    with pytest.raises(ExportError, match="tensors image and heatmaps"):
        network_nodes(helper.make_graph([], "none", [], []))
    maps = helper.make_graph([helper.make_node("Identity", ["x"], ["heatmaps"])], "maps", [], [])
    with pytest.raises(ExportError, match="tensors image and heatmaps"):
        network_nodes(maps)


@pytest.mark.parametrize("flip", [False, True])
def test_a_network_cut_out_of_its_heatmaps_graph_computes_the_same(flip: bool) -> None:
    """`heatmaps` of the graph around it are merged ones: the network's own have another name."""
    network = blurred(2)
    spec = bumps_spec()
    whole = heatmaps_graph(network, spec, flip=flip)
    before = whole.SerializeToString()
    alone = cut_network(whole, spec)
    assert whole.SerializeToString() == before
    assert kinds(alone) == kinds(network)
    assert_same(network, alone, image(2, 3, 24, 18))


def test_renaming_a_tensor_renames_it_for_writers_and_readers() -> None:
    model = blurred(3)
    rename_tensors(model.graph, "x1", "first")
    read = {name for node in model.graph.node for name in node.input}
    written = {name for node in model.graph.node for name in node.output}
    assert "first" in read & written
    assert "x1" not in read | written


def test_constants_are_folded_but_not_what_is_random_or_reads_inputs() -> None:
    values = {"a": np.float32(2), "b": np.float32(3)}
    nodes = [
        helper.make_node("Add", ["a", "b"], ["five"]),
        helper.make_node("Mul", ["five", "five"], ["square"]),
        helper.make_node("RandomNormalLike", ["square"], ["noise"]),
        helper.make_node("Mul", ["image", "square"], ["heatmaps"]),
    ]
    model = graph(nodes, {}, joints=3)
    fold_constants(model.graph, values)
    assert kinds(model) == {"RandomNormalLike": 1, "Mul": 1}
    assert values["square"] == 25
    some = graph(nodes, {}, joints=3)
    known = {"a": np.float32(2), "b": np.float32(3)}
    fold_constants(some.graph, known, {"Add"})
    assert kinds(some) == {"RandomNormalLike": 1, "Mul": 2}


def test_only_initializers_that_are_read_stay() -> None:
    model = blurred(1)
    values = {**initializers(model.graph), "idle": np.zeros(3, np.float32)}
    set_initializers(model.graph, values)
    assert set(initializers(model.graph)) == set(values) - {"idle"}
    assert readers(model.graph)["heatmaps"] == 1
    set_nodes(model.graph, list(model.graph.node)[:1])
    assert len(model.graph.node) == 1


def test_torch_agrees_with_the_folded_deconvolution() -> None:
    """Compared with an independent implementation: torch's transposed convolution."""
    torch.manual_seed(0)
    net = statistics(nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4)))
    model = fold_network(exported(net))
    replace_deconvolutions(model)
    given = image(2, 3, 5, 6)
    with torch.no_grad():
        wanted = net(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(output(model, given), wanted, atol=1e-5)
