"""Opens the GPU runtime: the GPU, the plan that fits it, TensorRT; and a person detector's plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from posekit.bundle import Bundle
from posekit.errors import EngineError
from posekit.tta import TtaOptions
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
    bundle: Bundle, *, look: TtaOptions, index: int = 0, build: bool = True
) -> GpuRuntime:
    """A bundle on GPU number `index`, by the FP16 plan `raw` that the bundle or the cache holds.

    look: as in GpuRuntime.  build: where none fits, make one, which takes a while. What
    costs little is checked first; a batch of nobody has run when this returns.
    Raises DeviceError, EngineError, MissingExtraError, BundleError.
    """
    device, trt = open_device(index), library()
    plan = _plan(bundle, device, trt, options=PlanOptions(), build=build)
    engine = TensorRTEngine(trt, plan.data, device)
    engine.name += f", {plan.metadata['precision']} plan of the {plan.origin}"
    runtime = GpuRuntime(bundle, device, engine, look=look)
    runtime.notes += [f"a plan that does not fit was passed over: {note}" for note in plan.notes]
    runtime.prepare([1])  # whatever is missing is told now, not in the middle of a video
    return runtime


def open_detector(bundle: Bundle, *, index: int = 0, build: bool = True) -> TensorRTDetector:
    """A person detector on GPU number `index`, by the plan that its bundle or the cache holds.

    build: where none fits, make one. It has run once when this returns.
    Raises DeviceError, EngineError, MissingExtraError, BundleError.
    """
    device, trt = open_device(index), library()
    plan = _plan(bundle, device, trt, options=DETECT, build=build)
    detector = TensorRTDetector(trt, plan.data, device)
    detector.provider += f", {plan.metadata['precision']} plan of the {plan.origin}"
    width, height = detector.size
    detector.run({"image": np.zeros((1, height, width, 3), np.uint8)})
    return detector


def _plan(
    bundle: Bundle, device: Device, trt: Any, *, options: PlanOptions, build: bool
) -> PlanFile:
    """The plan that fits this GPU. Raises EngineError: there is none, and none is to be built."""
    find = plan_for if build else cache.find
    with device.driver.current():
        plan = find(bundle, device.info, trt=trt, options=options)
    if plan is None:
        raise EngineError(
            f"{bundle.name} has no TensorRT engine for {device.info.name} yet; --runtime native or "
            f"`posekit build {bundle.name}` makes one"
        )
    return plan
