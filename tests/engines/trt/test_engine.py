"""The TensorRT engine's checks, on a strict stand-in; the names it calls, in the real modules."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import EngineError
from posekit_engines.cuda.device import Device
from posekit_engines.runtime.engine import check_fits
from posekit_engines.trt import engine as trt_engine
from posekit_engines.trt.engine import TensorRTEngine
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.engines.cuda_emulation.emulated import emulated_device
from tests.engines.tensorrt_tools import bindings

pytestmark = [pytest.mark.verifies("TensorRT engines", "host code driven"), pytest.mark.tools]


@pytest.fixture(scope="module")
def model() -> Bundle:
    return Bundle.open(bundle.embedded()["movenet-lightning"])


@pytest.fixture(scope="module")
def device() -> Device:
    return emulated_device()


@pytest.fixture(scope="module")
def plan(model: Bundle) -> bytes:
    return trt.plan_of(model, max_images=8)


def test_it_reports_shapes_types_and_profile(model: Bundle, device: Device, plan: bytes) -> None:
    engine = TensorRTEngine(trt, plan, device)
    assert (engine.image, engine.heatmaps) == ((3, 192, 192), (17, 48, 48))
    assert engine.image_dtype == engine.heatmaps_dtype == np.float16
    assert (engine.min_images, engine.max_images) == (1, 8)
    assert engine.name == f"TensorRT {trt.__version__}"
    check_fits(engine, model.pose_spec)
    single = TensorRTEngine(trt, trt.plan_of(model, half=False), device)
    assert single.image_dtype == single.heatmaps_dtype == np.float32


def test_a_network_of_another_size_is_refused(model: Bundle, device: Device, plan: bytes) -> None:
    spec = dataclasses.replace(model.pose_spec, input_size=(192, 256))
    with pytest.raises(EngineError, match=r"has \(3, 256, 192\)"):
        check_fits(TensorRTEngine(trt, plan, device), spec)


def test_a_plan_that_does_not_load_names_the_fix(device: Device, plan: bytes) -> None:
    with pytest.raises(EngineError, match=r"does not load on this CPU.*posekit build"):
        TensorRTEngine(trt, plan[5:], device)


def test_a_plan_of_points_is_refused(
    device: Device, plan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.Engine, "get_tensor_name", lambda self, n: ("crops", "points")[n])
    with pytest.raises(EngineError, match="has crops, points; wanted image and heatmaps"):
        TensorRTEngine(trt, plan, device)


def test_int8_ends_are_refused(
    device: Device, plan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.Engine, "get_tensor_dtype", lambda self, name: trt.DataType.INT8)
    with pytest.raises(EngineError, match="wanted FP16 or FP32"):
        TensorRTEngine(trt, plan, device)


@pytest.mark.parametrize("count", [0, 9])
def test_batches_beyond_the_profile_are_refused(device: Device, plan: bytes, count: int) -> None:
    engine = TensorRTEngine(trt, plan, device)
    with pytest.raises(EngineError, match="the engine takes 1 to 8"):
        engine.prepare(16, 32, count=count)


def test_a_run_that_tensorrt_refuses_is_an_error(
    device: Device, plan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TensorRTEngine(trt, plan, device)
    engine.prepare(16, 32, count=2)
    monkeypatch.setattr(trt.Context, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(EngineError, match="cannot run 2 images"):
        engine.enqueue(2, 1)


def test_capturable_is_queried_where_tensorrt_has_it(
    device: Device, plan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TensorRTEngine(trt, plan, device)
    engine.prepare(16, 32, count=2)
    assert engine.capturable(2, 1) == ""  # TensorRT has no such method
    for capturable, reason in ((True, ""), (False, "cannot be recorded yet")):
        method = lambda self, stream, result=capturable: result  # noqa: E731
        monkeypatch.setattr(trt.Context, "is_stream_capturable", method, raising=False)
        assert reason in engine.capturable(2, 1)
        assert bool(engine.capturable(2, 1)) != capturable


def called() -> Iterator[str]:
    """Every attribute of TensorRT's objects that trt/engine.py reads."""
    tree = ast.parse(Path(trt_engine.__file__).read_text(encoding="utf-8"))
    holders = ("trt", "self._trt", "self._engine", "self._runtime", "context")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in holders:
            yield node.attr
    yield from ("HALF", "FLOAT", "INPUT", "OUTPUT", "USER_MANAGED", "WARNING")
    yield "execute_async_v3"


@pytest.mark.parametrize("name", ["rtx", "10", "11"])
def test_tensorrt_has_every_name_that_is_called(name: str) -> None:
    """In the real bindings' bytes: only TensorRT for RTX can be imported without a GPU."""
    text = b"".join(each.read_bytes() for each in bindings(name))
    names = set(called()) - {"__version__", "__name__"}
    assert len(names) > 20
    assert not [each for each in sorted(names) if each.encode() not in text]


def test_the_stand_in_has_no_name_that_tensorrt_lacks() -> None:
    """The stand-in of the tests above has only real methods."""
    (library,) = bindings("10")
    text = library.read_bytes()
    kinds: tuple[Any, ...] = (trt.Runtime, trt.Engine, trt.Context)
    names = {name for kind in kinds for name in vars(kind) if name[0] != "_"}
    assert not [each for each in sorted(names) if each.encode() not in text]
