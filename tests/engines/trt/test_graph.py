"""The graphs that engines are built from: outputs of the bundle's own, operators of TensorRT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from posekit import bundle
from posekit.bundle import Bundle
from posekit_engines.graphs.points import heatmaps_graph, points_graph
from posekit_engines.parity.source import normalize
from posekit_engines.precision.fp16 import to_fp16
from posekit_engines.trt.builder import BuilderSettings, build_engine
from posekit_engines.trt.graph import for_tensorrt, network_of, with_float_io
from tests.engines.tensorrt_tools import TURING, random_network, rtx, saved


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
@pytest.mark.parametrize(
    "decode",
    [
        "udp",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("argmax", "quarter", "quarter-axis", "dark")
        ),
    ],
)
def test_every_decode_builds_for_turing_with_the_same_points(
    decode: Any, lightning: Bundle, tmp_path: Path
) -> None:
    """A float32 matrix product would be refused; gathers and sums give the same points."""
    trt, spec = rtx(), replace(lightning.pose_spec, decode=decode, flip_shift=0.5)
    whole = points_graph(network_of(lightning), spec, flip=True, affine=True)
    graph = for_tensorrt(whole, half=False)
    onnx.checker.check_model(graph, full_check=True)
    assert not [node for node in graph.graph.node if node.op_type == "MatMul"]
    rng = np.random.default_rng(0)
    feed = {
        "crops": lightning.reference["crops"][:2],
        "warp": rng.normal(size=(2, 2, 3)).astype(np.float32),
    }
    before, after = (outputs_of(model, feed) for model in (whole, graph))
    assert np.abs(before[0] - after[0]).max() < 1e-3  # px of a crop of 192
    assert np.array_equal(before[1], after[1])
    file = saved(graph, tmp_path)
    assert build_engine(trt, file, BuilderSettings((1, 2, 4), capabilities=TURING)).data


def outputs_of(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def test_the_network_of_a_bundle_is_the_torch_network(lightning: Bundle) -> None:
    image = normalize(lightning.reference["crops"][:2], lightning.pose_spec)
    (got,) = outputs_of(network_of(lightning), {"image": image})
    graph = heatmaps_graph(network_of(lightning), lightning.pose_spec, flip=False)
    (whole,) = outputs_of(graph, {"crops": lightning.reference["crops"][:2]})
    net = random_network(lightning.pose_spec)
    with torch.no_grad():
        wanted = net(torch.from_numpy(image)).numpy()
    assert np.abs(got - wanted).max() < 1e-5
    assert np.abs(whole - wanted).max() < 1e-5


def test_half_ends_and_float_ends_are_the_same_arithmetic(lightning: Bundle) -> None:
    image = normalize(lightning.reference["crops"][:2], lightning.pose_spec)
    half, _ = to_fp16(network_of(lightning), [{"image": image}])
    ended = for_tensorrt(half, half=True)
    for model in (ended, with_float_io(ended)):
        onnx.checker.check_model(model, full_check=True)
    (wanted,) = outputs_of(half, {"image": image})
    (got,) = outputs_of(with_float_io(ended), {"image": image})
    (halved,) = outputs_of(ended, {"image": image.astype(np.float16)})
    assert np.array_equal(got, wanted)
    assert halved.dtype == np.float16
    # ONNX Runtime's CPU may compute in float32 between the casts: one step of float16 at 1
    assert np.abs(halved - wanted).max() <= 2.0**-10
