"""The TensorRT plans that `gpu-check` measures, or what stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posekit.bundle import Bundle
from posekit.tta import TtaOptions
from posekit_engines.cuda.device import Device
from posekit_engines.runtime.runtime import GpuRuntime
from posekit_engines.trt.build import plan_for
from posekit_engines.trt.engine import TensorRTEngine
from posekit_engines.trt.library import library
from posekit_engines.trt.plan import PlanFile, PlanOptions


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
        trt = library()

        def find(bundle: Bundle, device: Device, options: PlanOptions) -> PlanFile:
            with device.driver.current():
                return plan_for(bundle, device.info, trt=trt, options=options)

        return cls(trt, find)


def plan_summary(plan: PlanFile) -> dict[str, Any]:
    """What the report says of a plan."""
    names = ("library", "version", "precision", "profile", "read_back")
    return {"origin": plan.origin, **{n: plan.metadata[n] for n in names if n in plan.metadata}}


def open_gpu_runtime(device: Device, bundle: Bundle, plans: Plans) -> tuple[GpuRuntime, PlanFile]:
    """The GPU runtime on the plan `raw`. Raises EngineError, DeviceError, MissingExtraError."""
    plan = plans.find(bundle, device, PlanOptions())
    engine = TensorRTEngine(plans.trt, plan.data, device)
    return GpuRuntime(bundle, device, engine, look=TtaOptions()), plan
