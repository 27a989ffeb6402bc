"""The TensorRT plans that `gpu-check` measures, or stand-ins of a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posekit.bundle import Bundle
from posekit.inference.tta import TtaOptions
from posekit_engines.cuda.device import Device
from posekit_engines.runtime.open import find_plan, runtime_of_plan
from posekit_engines.runtime.runtime import GpuRuntime
from posekit_engines.trt.library import library
from posekit_engines.trt.plan import PlanFile, PlanOptions


@dataclass(frozen=True)
class PlanSource:
    """TensorRT and how its plans are obtained; a test passes stand-ins.

    trt: the module.  find: a bundle's plan for a GPU, found or built.
    """

    trt: Any
    find: Callable[[Bundle, Device, PlanOptions], PlanFile]

    @classmethod
    def installed(cls) -> PlanSource:
        """The installed TensorRT. Raises MissingExtraError."""
        trt = library()
        return cls(
            trt, lambda bundle, device, options: find_plan(bundle, device, trt, options=options)
        )


def plan_summary(plan: PlanFile) -> dict[str, Any]:
    """A plan's entry in the report."""
    names = ("library", "version", "precision", "profile", "read_back")
    return {"origin": plan.origin, **{n: plan.metadata[n] for n in names if n in plan.metadata}}


def open_gpu_runtime(
    device: Device, bundle: Bundle, plans: PlanSource
) -> tuple[GpuRuntime, PlanFile]:
    """The GPU runtime with a plan of kind `raw`, and the plan.

    Raises EngineError, DeviceError, MissingExtraError.
    """
    plan = plans.find(bundle, device, PlanOptions())
    return runtime_of_plan(bundle, device, plans.trt, plan=plan, tta=TtaOptions()), plan
