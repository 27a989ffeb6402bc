"""Both TensorRT plans on the bundle's own check crops, against the source network's stored answer.

`raw` runs in posekit's GPU runtime between its kernels; `points` runs alone, as other runtimes
would run it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import DeviceError, EngineError, InputError
from posekit.geometry import Warp
from posekit.multiview import Look
from posekit.types import Float32, UInt8
from posekit_engines import engine_cache
from posekit_engines.cuda import Buffer, Device, Stream
from posekit_engines.engine_cache import PlanFile, PlanOptions
from posekit_engines.engine_tensorrt import TensorRTEngine
from posekit_engines.gpu_runtime import GpuRuntime
from posekit_engines.options import BUDGETS

BUDGET = BUDGETS["fp16"]
"""What `posekit export` allows FP16."""
SURE = 0.3
"""Keypoints that the source scores below this are none: their place may be anywhere."""


_OUT = ("points", "scores")


@dataclass(frozen=True)
class Plans:
    """TensorRT and where its plans come from; a test gives stand-ins.

    trt: the module.  find: the plan of a bundle for a GPU, found or built.
    """

    trt: Any
    find: Callable[[Bundle, Device, PlanOptions], PlanFile]

    @classmethod
    def installed(cls) -> Plans:
        """TensorRT as it is installed here. Raises MissingExtraError."""
        trt = engine_cache.library()

        def find(bundle: Bundle, device: Device, options: PlanOptions) -> PlanFile:
            with device.driver.current():
                return engine_cache.plan_for(bundle, device.info, trt=trt, options=options)

        return cls(trt, find)


def parity(device: Device, bundle: Bundle, plans: Plans) -> dict[str, Any]:
    """How far both plans stray from the source on the bundle's check crops, crop px.

    Raises InputError (a bundle without check crops), EngineError, DeviceError, MissingExtraError.
    """
    reference = bundle.reference
    if "crops" not in reference or "flip_points" not in reference:
        raise InputError(f"{bundle.name}: holds no check crops with the source's answer")
    crops = np.ascontiguousarray(reference["crops"])
    source = (reference["flip_points"], reference["flip_scores"])
    raw, told = _raw(device, bundle, crops, plans=plans)
    points, told_points = _points(device, bundle, crops, plans=plans)
    return {
        "crops": len(crops),
        "budget_px": budget(bundle),
        "raw": {**told, **strays(raw, source)},
        "points": {**told_points, **strays(points, source)},
        "points against raw": strays(points, raw),
    }


def strayed(figures: dict[str, Any]) -> float:
    """The largest mean shift from the source, or inf where one is no number."""
    means = [figures[kind]["mean_px"] for kind in ("raw", "points")]
    return float(np.nan_to_num(np.max(means), nan=np.inf))


def budget(bundle: Bundle) -> dict[str, float]:
    """What FP16 may add to the bundle's own stray from its source, px."""
    told = json.loads(bundle.extras.get("parity.json", b"{}")).get("flip", {})
    allowed = {"mean_px": BUDGET.mean_px, "p99_px": BUDGET.p99_px or BUDGET.mean_px}
    return {name: round(most + float(told.get(name, 0.0)), 5) for name, most in allowed.items()}


def over_budget(figures: dict[str, Any]) -> str:
    """What strays too far from the source, in a sentence, or "" where nothing does."""
    for kind in ("raw", "points"):
        for name, most in figures["budget_px"].items():
            far = figures[kind][name]
            if not far <= most:
                return f"the plan `{kind}` strays: {name} {far} of the source, wanted <= {most}"
    return ""


def strays(
    found: tuple[Float32, Float32], source: tuple[NDArray[Any], NDArray[Any]]
) -> dict[str, Any]:
    """Shifts of the keypoints that the source is sure of, px, and of all scores.

    Raises InputError where it is sure of none.
    """
    sure = source[1] > SURE
    shift = np.linalg.norm(found[0] - source[0], axis=2)[sure]
    if not shift.size:
        raise InputError("check crops: the source is sure of no keypoint in them")
    return {
        "mean_px": round(float(shift.mean()), 5),
        "p99_px": round(float(np.percentile(shift, 99)), 5),
        "max_px": round(float(shift.max()), 5),
        "max_score": round(float(np.abs(found[1] - source[1]).max()), 5),
        "points": int(sure.sum()),
    }


def told_of(plan: PlanFile) -> dict[str, Any]:
    """What the report says of a plan."""
    names = ("library", "version", "precision", "profile", "read_back")
    return {"origin": plan.origin, **{n: plan.metadata[n] for n in names if n in plan.metadata}}


def opened(device: Device, bundle: Bundle, plans: Plans) -> tuple[GpuRuntime, PlanFile]:
    """The GPU runtime on the plan `raw`. Raises EngineError, DeviceError, MissingExtraError."""
    plan = plans.find(bundle, device, PlanOptions())
    engine = TensorRTEngine(plans.trt, plan.data, device)
    return GpuRuntime(bundle, device, engine, look=Look()), plan


def _raw(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: Plans
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    runtime, plan = opened(device, bundle, plans)
    stay = [Warp(np.eye(2, 3)[None]) for _ in crops]  # a crop is a frame of its own
    answer = runtime.infer(runtime.crops(list(crops), stay))
    return answer, {**told_of(plan), "notes": list(runtime.notes)}


def _points(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: Plans
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    plan = plans.find(bundle, device, PlanOptions(kind="points"))
    engine = PointsEngine(plans.trt, plan.data, device)
    parts = [
        engine(crops[start : start + engine.most]) for start in range(0, len(crops), engine.most)
    ]
    points, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    return (points, scores), told_of(plan)


class PointsEngine:
    """The plan `points`: crops uint8 (N, h, w, 3) to points and scores; run and waited for.

    Raises EngineError (the plan does not load, or is another one), DeviceError.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self._device = device
        with device.driver.current():
            self._logger = trt.Logger(trt.Logger.WARNING)
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineError(f"the plan `points` does not load on {device.info.name}")
            names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
            if sorted(names) != ["crops", "points", "scores"]:
                raise EngineError(f"the plan `points` has {', '.join(names)}")
            given = {name: self._engine.get_tensor_dtype(name) for name in names}
            if given != {"crops": trt.DataType.UINT8, **dict.fromkeys(_OUT, trt.DataType.FLOAT)}:
                raise EngineError(f"the plan `points` has {given}; wanted uint8 crops, FP32 out")
            _, _, high = self._engine.get_tensor_profile_shape("crops", 0)
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError("TensorRT makes no context for the plan `points`: out of memory?")
        self.most = int(next(iter(high)))

    def __call__(self, crops: UInt8) -> tuple[Float32, Float32]:
        """Points (N, K, 2), crop px, and scores (N, K). Raises EngineError."""
        device, stream = self._device, self._device.stream()
        given = device.uploaded(np.ascontiguousarray(crops))
        with device.driver.current():
            if not self._context.set_input_shape("crops", tuple(crops.shape)):
                raise EngineError(f"the plan `points` refuses crops {crops.shape}")
            out = {
                name: device.buffer(tuple(self._context.get_tensor_shape(name)), np.float32)
                for name in _OUT
            }
            self._run({"crops": given, **out}, stream)
        return out["points"].download(), out["scores"].download()

    def _run(self, tensors: dict[str, Buffer], stream: Stream) -> None:
        for name, buffer in tensors.items():
            self._context.set_tensor_address(name, buffer.address)
        if not self._context.execute_async_v3(stream.handle):
            raise EngineError("the plan `points` cannot be run; TensorRT's log says why")
        stream.finish()
