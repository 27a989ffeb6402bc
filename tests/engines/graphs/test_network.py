"""Exported networks compute what torch does, with external weights by name."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posekit.errors import ExportError
from posekit.inference.session import open_cpu_session, open_session
from posekit.nets import build
from posekit.nets.nanodet import NanoDet
from posekit.skeletons import COCO_17
from posekit.types import DetectorSpec, ModelSpec
from posekit_engines.graphs.network import detector_graph, network_graph
from posekit_engines.graphs.weights import bundle_weights, inline_weights


class ConvBatchNorm(nn.Module):
    """Strided, padded on one side, with batch norm and two layers of equal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.equal = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 17, 1)
        for norm in (self.norm, self.equal):
            norm.running_mean = torch.linspace(-1, 1, 8)
            norm.running_var = torch.linspace(0.5, 2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(nn.functional.pad(x, (0, 1, 0, 1))))
        return self.last(torch.relu(self.equal(self.second(x))))


def small_spec() -> ModelSpec:
    return ModelSpec("small", (64, 32), (16, 8), COCO_17)


def small() -> nn.Module:
    torch.manual_seed(0)
    return as_float16(ConvBatchNorm())


def as_float16(net: nn.Module) -> nn.Module:
    """`net` with the weights that a bundle can hold."""
    return net.half().float().eval()


def run(graph: onnx.ModelProto, weights: dict[str, Any], image: Tensor) -> list[NDArray[Any]]:
    session = open_session(graph.SerializeToString(), weights, device="cpu", threads=1)
    outputs: list[NDArray[Any]] = session.run(None, {"image": image.numpy()})
    return outputs


def movenet_spec(gate: float) -> ModelSpec:
    return ModelSpec("movenet-lightning", (96, 96), (24, 24), COCO_17, gate=gate)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_movenet_equals_torch_for_any_number_of_images(gate: float, count: int) -> None:
    torch.manual_seed(0)
    spec = movenet_spec(gate)
    net = as_float16(build(spec))
    image = torch.randn(count, 3, 96, 96)
    with torch.no_grad():
        wanted = net(image).numpy()
    assert wanted.std() > 1e-3
    graph = network_graph(net, spec)
    np.testing.assert_allclose(run(graph, bundle_weights(net), image)[0], wanted, atol=1e-4)


def test_batch_norm_stays_and_equal_tensors_stay_apart() -> None:
    net = small()
    graph = network_graph(net, small_spec())
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("BatchNormalization") == 2
    assert "Identity" not in operators
    floating = [name for name, v in net.state_dict().items() if v.is_floating_point()]
    assert [tensor.name for tensor in graph.graph.initializer] == floating
    image = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        wanted = net(image).numpy()
    np.testing.assert_allclose(run(graph, bundle_weights(net), image)[0], wanted, atol=1e-4)


def test_new_weights_need_no_new_graph() -> None:
    """Also where tensors that were equal at export no longer are."""
    graph = network_graph(small(), small_spec())
    net = small()
    for value in net.parameters():
        value.data += torch.randn_like(value).half().float() / 8
    net = as_float16(net)
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        wanted = net(image).numpy()
    np.testing.assert_allclose(run(graph, bundle_weights(net), image)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("half", [[], ["first.weight"], None])
def test_weights_are_external_in_their_own_type_and_only_float16_is_cast(
    half: list[str] | None,
) -> None:
    stored = bundle_weights(small())
    half = list(stored) if half is None else half
    stored |= {name: stored[name].astype(np.float16) for name in half}
    graph = network_graph(small(), small_spec(), stored).graph
    casts = {node.input[0] for node in graph.node if node.op_type == "Cast"}
    assert casts == set(half)
    for tensor in graph.initializer:
        wanted = onnx.TensorProto.FLOAT16 if tensor.name in half else onnx.TensorProto.FLOAT
        assert tensor.data_type == wanted
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert not tensor.raw_data


def test_padding_on_one_side_becomes_the_convolution_s_own() -> None:
    graph = network_graph(small(), small_spec()).graph
    assert "Pad" not in [node.op_type for node in graph.node]
    first = next(node for node in graph.node if node.op_type == "Conv")
    pads = next(list(attribute.ints) for attribute in first.attribute if attribute.name == "pads")
    assert pads == [0, 0, 1, 1]


class Padded(nn.Module):
    """Padding that a convolution itself cannot do."""

    def __init__(self, mode: str, value: float | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 17, 5, stride=4)  # the last window reaches into the padding
        self.mode, self.value = mode, value

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1), mode=self.mode, value=self.value))


@pytest.mark.parametrize(("mode", "value"), [("reflect", None), ("constant", 0.5)])
def test_other_padding_is_kept(mode: str, value: float | None) -> None:
    net = as_float16(Padded(mode, value))
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        wanted = net(image).numpy()
    graph = network_graph(net, small_spec())
    np.testing.assert_allclose(run(graph, bundle_weights(net), image)[0], wanted, atol=1e-4)


def test_the_same_network_gives_the_same_bytes_without_paths_or_producer() -> None:
    net = small()
    first, second = (network_graph(net, small_spec()).SerializeToString() for _ in range(2))
    assert first == second
    assert b".py" not in first
    model = onnx.load_from_string(first)
    assert not model.producer_name
    assert not any(node.doc_string for node in model.graph.node)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_detector_takes_images_and_gives_boxes_and_scores() -> None:
    torch.manual_seed(0)
    net = as_float16(NanoDet())
    spec = DetectorSpec("nanodet-g", (96, 64))
    image = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        wanted = [value.numpy() for value in net(image)]
    graph = detector_graph(net, spec)
    assert [output.name for output in graph.graph.output] == ["boxes", "scores"]
    for got, want in zip(run(graph, bundle_weights(net), image), wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_inline_weights_stand_alone() -> None:
    net = small()
    whole = inline_weights(network_graph(net, small_spec()), bundle_weights(net))
    onnx.checker.check_model(whole, full_check=True)
    session = open_cpu_session(whole.SerializeToString())
    image = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        wanted = net(image).numpy()
    got = session.run(None, {"image": image.numpy()})[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_inline_weights_reject_others() -> None:
    net = small()
    graph, weights = network_graph(net, small_spec()), bundle_weights(net)
    missing = {name: value for name, value in weights.items() if name != "last.bias"}
    with pytest.raises(ExportError, match=r"last\.bias.*\[17\].*nothing"):
        inline_weights(graph, missing)
    with pytest.raises(ExportError, match=r"last\.bias.*\[17\].*\[3\]"):
        inline_weights(graph, {**weights, "last.bias": np.zeros(3, np.float16)})


def test_maps_of_another_size_than_the_spec_s_are_rejected() -> None:
    spec = ModelSpec("small", (64, 32), (32, 16), COCO_17)
    with pytest.raises(ExportError, match=r"\[17, 8, 16\].*\[17, 16, 32\]"):
        network_graph(small(), spec)


class Idle(ConvBatchNorm):
    """Has a weight that its output does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(3))


def test_a_weight_that_no_node_uses_is_rejected() -> None:
    with pytest.raises(ExportError, match="spare"):
        network_graph(Idle(), small_spec())


class Strange(nn.Module):
    """Uses an operator without an ONNX form."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(x)[0]


def test_a_network_without_an_onnx_form_is_an_error() -> None:
    with pytest.raises(ExportError, match="Strange has no ONNX form"):
        network_graph(Strange(), small_spec())
