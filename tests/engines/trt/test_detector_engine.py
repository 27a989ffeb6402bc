"""A person detector as a TensorRT engine: its graph, its cache entry, its host code."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import BundleError, ParityError
from posekit.inference.session import open_session
from posekit_engines.build import BuildOptions
from posekit_engines.trt import cache, detector_graph
from posekit_engines.trt.build import plan_for
from posekit_engines.trt.builder import BuilderSettings, build_engine
from posekit_engines.trt.detector_graph import detector_of
from posekit_engines.trt.plan import DETECT, PlanOptions, key_of, requirements
from tests.engines.cuda_emulation import command_line, tools
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.engines.cuda_emulation.stand_ins import DRIVERS, run_traced
from tests.engines.tensorrt_tools import TURING, rtx, saved

CANVAS = 416


@pytest.fixture(scope="module")
def with_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins and bundles with plans."""
    return command_line.write_stand_ins(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def nanodet() -> Bundle:
    return Bundle.open(bundle.find("nanodet-person"))


@pytest.fixture(scope="module")
def graph(nanodet: Bundle) -> onnx.ModelProto:
    return detector_of(nanodet)


def test_the_engines_graph_has_the_outputs_of_the_bundles(
    nanodet: Bundle, graph: onnx.ModelProto
) -> None:
    """Up to rounding: boxes are some hundred px, which float32 rounds by 3e-5."""
    onnx.checker.check_model(graph, full_check=True)
    canvas = np.random.default_rng(0).integers(0, 256, (1, CANVAS, CANVAS, 3), np.uint8)
    own = open_session(nanodet.graphs["detect"], nanodet.weights, device="cpu", threads=1)
    new = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted, found = (each.run(["boxes", "scores"], {"image": canvas}) for each in (own, new))
    assert wanted[0].shape == found[0].shape == (1, 3549, 4)
    assert np.abs(wanted[0] - found[0]).max() < 1e-3
    assert np.abs(wanted[1] - found[1]).max() < 1e-5


def test_its_shapes_are_numbers_and_bytes_are_cast_first(graph: onnx.ModelProto) -> None:
    """TensorRT for RTX cannot transpose uint8; shapes that are computed would need a profile."""
    assert graph.graph.node[0].op_type == "Cast"
    assert not {"Shape", "Range", "Where", "Expand"} & {node.op_type for node in graph.graph.node}
    values = [*graph.graph.input, *graph.graph.output]
    sides = [side for value in values for side in value.type.tensor_type.shape.dim]
    assert all(side.dim_value > 0 for side in sides)
    assert [each.domain for each in graph.opset_import] == [""]


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
@pytest.mark.parametrize("capabilities", [(), TURING], ids=["default", "Turing"])
def test_tensorrt_for_rtx_builds_it(
    graph: onnx.ModelProto, tmp_path: Path, capabilities: tuple[str, ...]
) -> None:
    settings = BuilderSettings((1, 1, 1), capabilities=capabilities)
    engine = build_engine(rtx(), saved(graph, tmp_path), settings)
    assert engine.inputs == {"image": {"dtype": "uint8", "shape": [1, CANVAS, CANVAS, 3]}}
    assert engine.outputs == {
        "boxes": {"dtype": "float32", "shape": [1, 3549, 4]},
        "scores": {"dtype": "float32", "shape": [1, 3549]},
    }
    assert engine.layers == {"float32": 34}


def test_only_a_detector_has_such_a_graph() -> None:
    with pytest.raises(BundleError, match="no graph 'detect' of a person detector"):
        detector_of(Bundle.open(bundle.find("movenet-lightning")))


def test_a_graph_that_deviates_is_refused(nanodet: Bundle, tmp_path: Path) -> None:
    parity = detector_graph.write_detector_graph(nanodet, tmp_path / "right.onnx")
    assert parity["canvases"] >= 2
    assert parity["boxes"] >= 10
    assert parity["boxes_px"] < 1e-3
    wrong = detector_of(nanodet)
    (mean,) = (each for each in wrong.graph.initializer if each.name == "constant_0")
    mean.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(mean) + 20, mean.name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_graph, "detector_of", lambda _: wrong)
        with pytest.raises(ParityError, match="nanodet-person, the engine's graph: boxes deviate"):
            detector_graph.write_detector_graph(nanodet, tmp_path / "wrong.onnx")


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_it_is_built_kept_and_found_by_graph_and_weights(
    nanodet: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the calls of `posekit build`, with TensorRT for RTX and no GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = rtx()
    (wanted,) = BuildOptions(library="rtx").plans(nanodet)
    assert wanted == DETECT
    built = plan_for(nanodet, None, trt=module, options=wanted)
    assert built.origin == "built"
    assert built.metadata["kind"] == "detect"
    assert built.metadata["precision"] == "fp32"
    assert built.metadata["multiplies"] == {"float32": 34}
    assert built.metadata["parity"]["boxes_px"] < 1e-3
    assert "was not executed" in built.metadata["parity"]["note"]
    found = cache.find(nanodet, None, trt=module, options=wanted)
    assert found is not None
    assert (found.origin, found.data) == ("cache", built.data)
    other = {name: value + np.float16(1) for name, value in nanodet.weights.items()}
    trained = dataclasses.replace(nanodet, weights=other)
    other_graph = {"detect": nanodet.graphs["detect"] + b"\0"}
    other_source = dataclasses.replace(nanodet, graphs=other_graph)
    keys = [
        key_of(requirements(source, None, module, options=options))
        for source, options in (
            (nanodet, DETECT),
            (trained, DETECT),
            (other_source, DETECT),
            (nanodet, PlanOptions("points", "fp32", flip=False)),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert cache.find(trained, None, trt=module, options=DETECT) is None


@functools.cache
def drive(driver: str) -> tuple[dict[str, Any], list[str]]:
    """The result of drive_detect.py, and the driver's calls."""
    return run_traced(tools.HERE / "drive_detect.py", driver)


@pytest.mark.tools
@pytest.mark.verifies("detector_engine.py", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
def test_persons_are_those_that_onnx_runtime_finds(driver: str) -> None:
    """On the same canvas up to rounding; on a canvas without the empty part within 1 px."""
    result, lines = drive(driver)
    assert result["provider"] == f"TensorRT {trt.__version__}"
    assert result["size"] == [CANVAS, CANVAS]
    assert [len(each) for each in result["found"]] == [1, 2, 0, 1, 2]
    for found, whole, plain in zip(result["found"], result["whole"], result["plain"], strict=True):
        if found:
            np.testing.assert_allclose(found, whole, atol=2e-3)
            np.testing.assert_allclose(found, plain, atol=1)
    assert result["found"][:2] == result["found"][3:]
    calls = [line for line in lines if not line.startswith(("wait", "synchronize event"))]
    canvas = [f"upload {3 * CANVAS**2}", "host function", "download 56784", "download 14196"]
    start = calls.index(canvas[0])
    assert calls[start : start + 5] == [*canvas, "synchronize stream 1"]
    assert not any("pageable" in line or "refused" in line for line in lines)


@pytest.mark.tools
@pytest.mark.parametrize("driver", DRIVERS)
def test_other_plans_are_refused(driver: str) -> None:
    result, _ = drive(driver)
    assert result["damaged"].startswith("EngineError: TensorRT")
    assert "the detector's engine" in result["damaged"]
    assert "wanted image (uint8), boxes and scores" in result["pose"]
    assert "cannot run the detector" in result["no run"]


@pytest.mark.tools
@pytest.mark.verifies("detector_engine.py", "host code driven")
def test_without_a_plan_onnx_runtime_detects_and_the_summary_has_a_note(
    with_plan: Path, tmp_path: Path
) -> None:
    """`--runtime auto` builds nothing and uses what is there, for the detector alone too."""
    model = str(with_plan / command_line.MODEL)
    command = ["-m", model, "--device", "cuda", "--boxes", "nanodet-person"]
    done = command_line.infer_demo(with_plan, tmp_path / "out", *command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["runtime"]["provider"].startswith("TensorRT")
    assert summary["boxes"]["provider"] == "CPUExecutionProvider"
    (note,) = summary["boxes"]["notes"]
    assert "nanodet-person has no TensorRT engine for posekit's stand-in yet" in note


@pytest.mark.tools
@pytest.mark.slow
def test_a_build_that_fails_leaves_the_detector_to_onnx_runtime(
    with_plan: Path, tmp_path: Path
) -> None:
    model = str(with_plan / command_line.MODEL)
    command = ["-m", model, "--device", "cuda", "--runtime", "native", "--boxes", "nanodet-person"]
    done = command_line.infer_demo(with_plan, tmp_path / "out", *command)
    assert done.returncode == 0, done.stderr
    boxes = json.loads(done.stdout)["boxes"]
    assert boxes["provider"] == "CPUExecutionProvider"
    assert "cannot start here; it needs an NVIDIA GPU" in boxes["notes"][0]
