"""Opens the GPU runtime or a person detector: the GPU, TensorRT, and a plan that matches both."""

from __future__ import annotations

from typing import Any

import numpy as np

from posekit.bundle import Bundle
from posekit.errors import EngineError
from posekit.inference.tta import TtaOptions
from posekit_engines.cuda.device import Device
from posekit_engines.cuda.open import open_device
from posekit_engines.runtime.runtime import GpuRuntime
from posekit_engines.trt import cache
from posekit_engines.trt.build import plan_for
from posekit_engines.trt.detector_engine import TensorRTDetector
from posekit_engines.trt.engine import TensorRTEngine
from posekit_engines.trt.library import library
from posekit_engines.trt.plan import DETECT, PlanFile, PlanOptions


def open_runtime(
    bundle: Bundle, *, tta: TtaOptions, index: int = 0, build: bool = True
) -> GpuRuntime:
    """A bundle on GPU number `index`, with an FP16 plan `raw` of the bundle or the cache.

    tta: as in GpuRuntime.  build: build a plan where none matches, which takes minutes.
    An empty batch has run when this returns.
    Raises DeviceError, EngineError, MissingExtraError, BundleError.
    """
    device, trt = open_device(index), library()
    plan = find_plan(bundle, device, trt, options=PlanOptions(), build=build)
    return runtime_of_plan(bundle, device, trt, plan=plan, tta=tta)


def runtime_of_plan(
    bundle: Bundle, device: Device, trt: Any, *, plan: PlanFile, tta: TtaOptions
) -> GpuRuntime:
    """The GPU runtime with a plan of kind `raw`. Raises DeviceError, EngineError, BundleError."""
    engine = TensorRTEngine(trt, plan.data, device)
    engine.name += _described(plan)
    runtime = GpuRuntime(bundle, device, engine, tta=tta)
    runtime.notes += [f"a plan that does not match was not used: {note}" for note in plan.notes]
    runtime.prepare([1])  # what fails does so now, not in the middle of a video
    return runtime


def open_detector(bundle: Bundle, *, index: int = 0, build: bool = True) -> TensorRTDetector:
    """A person detector on GPU number `index`, with a plan of its bundle or the cache.

    build: build a plan where none matches. It has run once when this returns.
    Raises DeviceError, EngineError, MissingExtraError, BundleError.
    """
    device, trt = open_device(index), library()
    plan = find_plan(bundle, device, trt, options=DETECT, build=build)
    detector = TensorRTDetector(trt, plan.data, device)
    detector.provider += _described(plan)
    width, height = detector.size
    detector.run({"image": np.zeros((1, height, width, 3), np.uint8)})
    return detector


def _described(plan: PlanFile) -> str:
    """A plan's precision and origin, for the name of what runs a model."""
    return f", {plan.metadata['precision']} engine ({plan.origin})"


def find_plan(
    bundle: Bundle, device: Device, trt: Any, *, options: PlanOptions, build: bool = True
) -> PlanFile:
    """A plan of the bundle that matches this GPU, or with `build` a new one.

    Raises EngineError (none matches, and build is False), MissingExtraError, DeviceError,
    ParityError.
    """
    find = plan_for if build else cache.find
    with device.driver.current():
        plan = find(bundle, device.info, trt=trt, options=options)
    if plan is None:
        raise EngineError(
            f"{bundle.name} has no TensorRT engine for {device.info.name} yet; --runtime native or "
            f"`posekit build {bundle.name}` makes one"
        )
    return plan
