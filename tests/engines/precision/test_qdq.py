"""Where a quantized graph has int8, how exact it is, and that ONNX Runtime computes in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from posekit.inference.session import open_cpu_session, session_options
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.edit import initializers
from posekit_engines.graphs.fold import fold_network, replace_deconvolutions
from posekit_engines.precision import qdq
from posekit_engines.precision.activations import record_activations
from posekit_engines.precision.calibration import calibrate_ranges
from tests.engines.plain_graphs import exported, graph, kinds, open_model, statistics


def image(count: int = 4, channels: int = 3) -> np.ndarray:
    random = np.random.default_rng(5)
    return random.normal(size=(count, channels, 8, 6)).astype(np.float32)


class Joined(nn.Module):
    """A residual block, a pool and maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        early = torch.relu(self.first(image))
        whole = torch.relu(self.second(early) + early)
        maps: torch.Tensor = self.last(self.pool(whole))
        return maps


def quantized(
    net: nn.Module, *, kept: tuple[str, ...] = (), deconvolutions: bool = True
) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, qdq.Range]]:
    """The folded graph, the same in int8 except the weights `kept`, and the ranges."""
    torch.manual_seed(1)
    plain = fold_network(exported(statistics(net), image(1)))
    if deconvolutions:
        replace_deconvolutions(plain)
    ranges = calibrate_ranges(plain, [{"image": image()}])["largest values"]
    chosen = {n.output[0] for n in qdq.quantizable(plain) if qdq.label(n) not in kept}
    made = qdq.insert_qdq(plain, chosen, ranges)
    onnx.checker.check_model(made, full_check=True)
    return plain, made, ranges


def run_operators(model: onnx.ModelProto, folder: Path) -> dict[str, int]:
    """Counts of the operators in the graph that ONNX Runtime makes of the pairs, and runs."""
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "run.onnx")
    open_cpu_session(model.SerializeToString(), options)
    return kinds(onnx.load(str(folder / "run.onnx")))


def test_the_runtime_computes_in_int8_wherever_pairs_were_inserted(tmp_path: Path) -> None:
    """No operator between two quantized ones stays in float32: sums, pools and rectifiers."""
    _, made, _ = quantized(Joined())
    found = run_operators(made, tmp_path)
    assert found["QLinearConv"] == 3
    assert found["QLinearAdd"] == 1
    assert found["Conv"] == found["Relu"] == 0
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1  # the image, and the maps


def test_int8_in_the_file_is_counted() -> None:
    plain, made, _ = quantized(Joined())
    weights = sum(initializers(plain.graph)[n.input[1]].size for n in qdq.quantizable(plain))
    before, after = dtype_summary(plain), dtype_summary(made)
    assert before["operators"] == {"float": 3}
    assert after["operators"] == {"int8": 3}
    assert after["weights"]["int8"] == weights + 8 + 8 + 2  # and a zero point a channel
    assert after["weights"]["int32"] == 8 + 8 + 2  # biases
    assert after["values"]["uint8"] >= 6
    assert "int8" not in before["weights"]


def test_an_operator_that_is_kept_reads_and_multiplies_float(tmp_path: Path) -> None:
    plain, made, _ = quantized(Joined(), kept=("last.weight",))
    assert dtype_summary(made)["operators"] == {"int8": 2, "float": 1}
    values = initializers(made.graph)
    assert (values["last.weight"] == initializers(plain.graph)["last.weight"]).all()
    node = next(n for n in made.graph.node if n.op_type == "Conv" and "last.weight" in n.input)
    assert node.output[0] == "heatmaps"
    found = run_operators(made, tmp_path)
    assert (found["QLinearConv"], found["Conv"]) == (2, 1)


def test_a_sum_with_a_float_operand_stays_float() -> None:
    plain, made, _ = quantized(Joined(), kept=("first.weight",))
    outputs = {node.output[0]: node.op_type for node in made.graph.node}
    makers = {n.output[0]: n for n in made.graph.node}
    total = next(n for n in made.graph.node if n.op_type == "Add")
    assert "DequantizeLinear" in {makers[name].op_type for name in total.input}
    assert {makers[name].op_type for name in total.input} != {"DequantizeLinear"}
    assert kinds(plain)["Add"] == kinds(made)["Add"] == 1
    assert outputs["heatmaps"] == "DequantizeLinear"


def test_a_pair_stands_behind_the_rectifier_and_not_before_it() -> None:
    """A range from 0 up rectifies, so that no steps are spent on values that ReLU removes."""
    _, made, ranges = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    assert kinds(made)["Relu"] == 0
    first = next(n for n in made.graph.node if n.op_type == "Conv")
    (after,) = [n for n in made.graph.node if first.output[0] in n.input]
    assert after.op_type == "QuantizeLinear"
    values = initializers(made.graph)
    name = after.output[0].removesuffix(".q")
    assert values[f"{name}.zero"] == 0
    assert ranges[name][0] == 0
    assert values[f"{name}.scale"] == pytest.approx(ranges[name][1] / 255)


def test_pooling_moves_bytes() -> None:
    _, made, _ = quantized(Joined())
    pool = next(n for n in made.graph.node if n.op_type == "MaxPool")
    assert pool.input[0].endswith(".q")
    assert pool.output[0].endswith(".q")


def test_parts_of_different_scales_are_joined_as_floats() -> None:
    """The same byte is a different value in each tensor."""
    rng = np.random.default_rng(2)
    values = {
        "a": rng.normal(size=(2, 3, 1, 1)).astype(np.float32),
        "b": 50 * rng.normal(size=(2, 3, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"]),
        helper.make_node("Conv", ["image", "b"], ["y"]),
        helper.make_node("Concat", ["x", "y"], ["heatmaps"], axis=1),
    ]
    model = graph(nodes, values, joints=4)
    feed = {"image": image()}
    ranges = calibrate_ranges(model, [feed])["largest values"]
    made = qdq.insert_qdq(model, {"x", "y"}, ranges)
    wanted, given = (open_model(each).run(None, feed)[0] for each in (model, made))
    step = (ranges["heatmaps"][1] - ranges["heatmaps"][0]) / 255
    assert np.abs(given - wanted).max() < 4 * step


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_its_own_scale(axis: int) -> None:
    """Of channels 1000 times apart, the small one has the same relative error as the large one."""
    size = np.array([1e-3, 1, 50], np.float32)
    weight = np.random.default_rng(4).normal(size=(3, 3, 2, 2)).astype(np.float32)
    weight *= size.reshape((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
    steps, scales = qdq.quantize_weights(weight, axis)
    largest = np.abs(weight).max((1, 2, 3) if axis == 0 else (0, 2, 3))
    np.testing.assert_allclose(scales, largest / qdq.WEIGHT_LIMIT, rtol=1e-6)
    back = steps * scales.reshape((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
    half = (largest / qdq.WEIGHT_LIMIT / 2).reshape((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
    assert (np.abs(back - weight) <= half * (1 + 1e-5)).all()
    assert np.abs(steps).max() == qdq.WEIGHT_LIMIT


def test_weights_leave_room_for_the_sum_of_two_products() -> None:
    """The 16-bit sum on processors without VNNI must not overflow."""
    assert 2 * 255 * qdq.WEIGHT_LIMIT < 2**15
    steps, scales = qdq.quantize_weights(np.zeros((2, 1, 1, 1), np.float32), 0)
    assert not steps.any()
    assert np.isfinite(scales).all()


def test_the_whole_error_is_within_the_steps() -> None:
    """Of one layer: half a step of x times |w|, half a step of w times |x|, half of the result."""
    plain, made, ranges = quantized(nn.Sequential(nn.Conv2d(3, 4, 3)))
    node = qdq.quantizable(plain)[0]
    values, stored = initializers(plain.graph), initializers(made.graph)
    weight, steps = values[node.input[1]], stored[f"{node.input[1]}.scale"] / 2
    x = (ranges["image"][1] - ranges["image"][0]) / 255 / 2
    y = (ranges[node.output[0]][1] - ranges[node.output[0]][0]) / 255 / 2
    # The kernel adds the bias to the products as it is stored, so its step must be theirs.
    product = stored["image.scale"] * stored[f"{node.input[1]}.scale"]
    np.testing.assert_allclose(stored[f"{node.input[2]}.scale"], product, rtol=1e-6)
    feed = {"image": image()}
    wanted, given = (open_model(each).run(None, feed)[0] for each in (plain, made))
    largest = np.abs(feed["image"]).max() + x
    bound = x * np.abs(weight).sum((1, 2, 3)) + steps * largest * weight[0].size + y
    bound += x * steps  # the bias is rounded to half of both steps' product
    error = np.abs(given - wanted).max((0, 2, 3))
    assert (error <= 1.001 * bound).all()
    assert (error > 0).all()


@pytest.mark.parametrize("limits", [(2.0, 6.0), (-6.0, -2.0), (-1.0, 3.0), (0.0, 0.0)])
def test_zero_is_exact(limits: qdq.Range) -> None:
    """Padding is zeros, so zero must be one of the steps."""
    node = helper.make_node("Conv", ["image", "w"], ["heatmaps"])
    model = graph([node], {"w": np.ones((1, 3, 1, 1), np.float32)}, joints=1)
    made = qdq.insert_qdq(model, {"heatmaps"}, {"image": limits, "heatmaps": limits})
    feed = {"image": np.zeros((1, 3, 2, 2), np.float32)}
    (recorded,) = record_activations(made, [feed], ["image.dq"])
    assert not recorded["image.dq"].any()


@pytest.mark.parametrize("rewritten", [True, False])
def test_deconvolutions_compute_in_int8_only_as_convolutions(
    rewritten: bool, tmp_path: Path
) -> None:
    """As convolutions they compute in int8; ONNX Runtime has no int8 ConvTranspose."""
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 4, 2, 1),
        nn.Conv2d(4, 2, 1),
    )
    plain, made, ranges = quantized(net, deconvolutions=rewritten)
    found = run_operators(made, tmp_path)
    assert found["QLinearConv"] == (3 if rewritten else 1)
    assert found["ConvTranspose"] == (0 if rewritten else 2)
    assert dtype_summary(made)["operators"] == {"int8": 3}
    feed = {"image": image()}
    wanted, given = (open_model(each).run(None, feed)[0] for each in (plain, made))
    low, high = ranges["heatmaps"]
    assert np.abs(given - wanted).max() < 0.1 * (high - low)
