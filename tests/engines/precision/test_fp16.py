"""FP16 as a property of the graph: the types in the file, and how far its points deviate."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.stats.parity import compare
from posekit.types import ModelSpec
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.edit import network_nodes
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.weights import bundle_weights, inline_weights
from posekit_engines.parity.crops import embedded_crops
from posekit_engines.parity.source import normalize
from posekit_engines.precision.bf16 import emulate_bf16
from posekit_engines.precision.fp16 import HALF_LARGEST, MARGIN, to_fp16
from posekit_engines.precision.int8_error import int8_error, trial_outputs
from tests.engines.plain_graphs import (
    blurred,
    bumps_spec,
    graph,
    kinds,
    lightning,
    open_model,
    peaked,
)


def run(model: onnx.ModelProto, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, scores = open_model(model).run(["points", "scores"], {"crops": crops})
    return points, scores


def test_the_network_is_half_and_its_points_stay() -> None:
    """The bars of an FP16 export: mean 0.1 px and p99 0.3 px of keypoints scored above 0.3."""
    model, crops = lightning()
    half, report = to_fp16(model, [{"crops": crops}])
    onnx.checker.check_model(half, full_check=True)
    ends = [v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)]
    assert ends == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT]
    before, after = dtype_summary(model), dtype_summary(half)
    assert "float16" not in before["operators"]
    of_network = sum(node.op_type == "Conv" for node in network_nodes(model.graph))
    of_decoding = before["operators"]["float"] - of_network
    assert after["operators"] == {"float16": of_network, "float": of_decoding}
    assert after["weights"]["float16"] > 2_000_000
    assert report["half"] > 100
    points, scores = run(model, crops)
    half_points, half_scores = run(half, crops)
    parity = compare(half_points, half_scores, (points, scores), crops=len(crops))
    assert parity.points >= 30
    assert parity.mean_px <= 0.1
    assert parity.p99_px <= 0.3
    assert parity.max_score < 0.01


def gained(first: float, second: float) -> onnx.ModelProto:
    """heatmaps = image of `blurred` times `first` times `second`, through convolutions."""
    model = blurred(3)
    tensors = {each.name: each for each in model.graph.initializer}
    for name, gain in (("layer0.weight", first), ("layer1.weight", second)):
        value = numpy_helper.to_array(tensors[name]) * np.float32(gain)
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (2e5, 5e-6, "overflow"),  # the bumps become 200,000, more than float16 holds
        (
            1.5 * HALF_LARGEST / MARGIN,
            1e-4,
            "overflow",
        ),  # they fit; those of a brighter image would not
        (1e-5, 1e5, "underflow"),
    ],
)
def test_a_layer_whose_values_do_not_fit_stays_float32(
    first: float, second: float, reason: str
) -> None:
    """As recorded on the crops; in float16 its maps would be infinite, or coarse."""
    model = gained(first, second)
    feeds = [{"image": peaked(2)}]
    made, report = to_fp16(model, feeds)
    onnx.checker.check_model(made, full_check=True)
    kept = {each["operator"]: each for each in report["kept"]}
    assert "x1" in kept  # what layer0 gives
    assert kept["x1"]["reason"].startswith(reason)
    assert kept["x1"]["kind"] == "Conv"
    assert "heatmaps" not in kept
    assert dtype_summary(made)["operators"]["float16"] >= 1
    outputs, source = (trial_outputs(each, feeds, bumps_spec()) for each in (made, model))
    assert int8_error(outputs, source).maps < 2e-3  # two roundings: 2^-10


def test_every_operator_that_fits_is_half() -> None:
    made, report = to_fp16(blurred(3), [{"image": peaked(2)}])
    assert (report["half"], report["kept"], report["crops"]) == (3, [], 2)
    assert dtype_summary(made)["operators"] == {"float16": 3}
    assert dtype_summary(made)["weights"] == {"float16": 3 * (81 + 3)}
    assert kinds(made) == {"Cast": 2, "Conv": 3}  # one at each end


def test_sums_of_squares_and_exponentials_stay_float32() -> None:
    """A transformer's norms and softmax; its matrix products are still half."""
    torch.manual_seed(0)
    spec = ModelSpec("vitpose-s-simple", (32, 32), (8, 8), COCO_17)
    net = build(spec)
    whole = inline_weights(network_graph(net, spec), bundle_weights(net))
    feeds = [{"image": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}]
    made, report = to_fp16(whole, feeds)
    kept = {each["kind"] for each in report["kept"]}
    assert {"LayerNormalization", "Softmax"} <= kept | {"LayerNormalization"} - set(kinds(whole))
    assert not kept & {"Conv", "MatMul", "Gemm", "ConvTranspose"}
    operators = dtype_summary(made)["operators"]
    assert set(operators) == {"float16"}
    outputs, source = (trial_outputs(each, feeds, spec) for each in (made, whole))
    assert int8_error(outputs, source).maps <= 5e-3


def test_a_tensor_read_in_two_types_exists_in_both() -> None:
    """The output of a half node is read by a sum in float32 and by a half convolution."""
    one = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
    values = {"a": one, "b": np.float32(1e6) * one, "c": np.float32(1e-6) * one}
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"]),
        helper.make_node("Conv", ["x", "b"], ["y"]),
        helper.make_node("Conv", ["y", "c"], ["z"]),
        helper.make_node("Add", ["x", "z"], ["heatmaps"]),
    ]
    model = graph(nodes, values, joints=2, channels=2)
    feed = {"image": np.random.default_rng(0).uniform(size=(1, 2, 4, 4)).astype(np.float32)}
    made, report = to_fp16(model, [feed])
    assert {each["operator"] for each in report["kept"]} == {"y", "z"}
    (given,) = open_model(made).run(None, feed)
    np.testing.assert_allclose(given, 2 * feed["image"], rtol=2e-3)


def test_the_contents_of_a_file_are_counted_by_type() -> None:
    values = {"w": np.ones((2, 3, 1, 1), np.float32), "h": np.ones((2, 2, 1, 1), np.float16)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["x"]),
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["y", "h"], ["z"]),
        helper.make_node("Cast", ["z"], ["heatmaps"], to=TensorProto.FLOAT),
    ]
    assert dtype_summary(graph(nodes, values, joints=2)) == {
        "weights": {"float": 6, "float16": 4},
        "values": {"float": 3, "float16": 2},
        "operators": {"float": 1, "float16": 1},
    }


def test_bfloat16_is_emulated_by_a_rounded_copy() -> None:
    """8 bits of fraction: off by about 2^-9; the source network is unchanged."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    before = [weight.clone() for weight in net.parameters()]
    rounded = emulate_bf16(net)
    image = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        wanted, given = net(image), rounded(image)
    off = float((given - wanted).abs().max() / wanted.abs().max())
    assert 2**-12 < off < 2**-6
    assert given.dtype == torch.float32
    for weight, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(weight, old)
    for weight in rounded.parameters():
        assert torch.equal(weight, weight.bfloat16().float())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("simple-baseline-r50", 1.0),
        ("hrnet-w32", 0.3),  # at 1 its sums grow a million-fold, and nearly all stays float32
        ("vitpose-s-classic", 1.0),
        ("vitpose-s-simple", 1.0),
    ],
)
def test_random_networks_give_the_same_maps(name: str, scale: float) -> None:
    """The bars of architectures without public weights: 1e-4 of the peak in fp32, 5e-3 in fp16.

    Against torch in float32 on real crops. Fresh weights; batch norms scale by `scale`.
    """
    torch.manual_seed(0)
    spec = ModelSpec(name, (64, 96), (16, 24), COCO_17)
    net = build(spec)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, scale)
    image = torch.from_numpy(normalize(embedded_crops(spec).crops[:3], spec))
    with torch.no_grad():
        wanted = net(image).numpy()
    exact = {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}
    whole = inline_weights(network_graph(net, spec), exact)
    feeds = [{"image": image.numpy()}]
    half, report = to_fp16(whole, feeds)
    assert report["half"] > 4 * len(report["kept"])
    outputs = trial_outputs(whole, feeds, spec)
    source = dataclasses.replace(outputs, maps=wanted)
    assert int8_error(outputs, source).maps <= 1e-4
    error = int8_error(trial_outputs(half, feeds, spec), source)
    assert 0 < error.maps <= 5e-3
