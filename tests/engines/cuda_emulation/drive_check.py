"""Drives all of gpu-check against the stand-in libcuda: run by test_gpu_check.py.

Arguments: the driver package, the parts (comma-separated, or nothing for all), and a plant out of
PLANTS. Prints one line of JSON. Its times are the CPU's and mean nothing; their logic is what is
looked at.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import PosekitError
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check import baselines, check
from posekit_engines.gpu_check.plans import Plans
from posekit_engines.gpu_check.timing import Effort
from posekit_engines.ops import reference
from posekit_engines.trt.plan import PlanFile, PlanOptions
from tests.engines.cuda_emulation import tensorrt_stand_in as trt

SMALL = Effort(persons=(1,), seconds=0.0, launches=3, pool_bytes=1 << 20)


def found(model: Bundle, device: Device, options: PlanOptions) -> PlanFile:
    """A stand-in's plan, as `engine_cache.plan_for` would give one."""
    data = trt.plan_of(model) if options.kind == "raw" else trt.points_plan_of(model)
    metadata = {"library": "tensorrt", "version": trt.__version__, "precision": "fp16"}
    return PlanFile("key", data, metadata, "built")


def shifted(model: Bundle, device: Device, options: PlanOptions) -> PlanFile:
    """A plan whose weights are not the bundle's: its bias is off."""
    weights = dict(model.weights)
    for name in weights:
        if name.endswith("bias"):
            weights[name] = weights[name] + np.asarray(0.2, weights[name].dtype)
    model.__dict__["weights"] = weights
    return found(model, device, options)


def no_numpy() -> None:
    """A rival's second answer is off: it may not be timed. The kernels' twin stays as it is."""
    calls = itertools.count()

    def wrong(*arguments: Any, **more: Any) -> Any:
        return reference.decode_flip(*arguments, **more) + (0.25 if next(calls) else 0)

    baselines.reference = SimpleNamespace(decode_flip=wrong)  # type: ignore[assignment]


PLANTS: dict[str, Callable[[], None]] = {"": lambda: None, "another decode": no_numpy}


def main() -> None:
    driver, only, plant = (*sys.argv[1:], "", "")[:3]
    PLANTS.get(plant, lambda: None)()
    parts = tuple(each for each in only.split(",") if each)
    options = check.CheckOptions(0, driver, parts, SMALL)  # type: ignore[arg-type]
    plans = Plans(trt, shifted if plant == "another network" else found)
    model = Bundle.open(bundle.embedded()["movenet-lightning"])
    result = check.check(model, options, plans=plans)
    try:
        check.raise_failures(result)
        verdict = {"code": 0, "said": ""}
    except PosekitError as error:
        verdict = {"code": error.exit_code, "said": str(error)}
    print(json.dumps({**result, "verdict": verdict}))


if __name__ == "__main__":
    main()
