"""Runs all of gpu-check on the stand-in libcuda, for test_check.py.

Arguments: the driver package, the parts (comma-separated, or empty for all), and an error, a name
in PLANTS. Prints one line of JSON. Its times are the CPU's and mean nothing; only their logic is
tested.
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
from posekit_engines.gpu_check.plans import PlanSource
from posekit_engines.gpu_check.timing import Effort
from posekit_engines.ops import reference
from posekit_engines.trt.plan import PlanFile, PlanOptions
from tests.engines.cuda_emulation import tensorrt_stand_in as trt

SMALL = Effort(persons=(1,), seconds=0.0, launches=3, pool_bytes=1 << 20)


def found(model: Bundle, device: Device, options: PlanOptions) -> PlanFile:
    """A stand-in's plan, in place of `trt.build.plan_for`."""
    data = trt.plan_of(model) if options.kind == "raw" else trt.points_plan_of(model)
    metadata = {"library": "tensorrt", "version": trt.__version__, "precision": "fp16"}
    return PlanFile("key", data, metadata, "built")


def shifted(model: Bundle, device: Device, options: PlanOptions) -> PlanFile:
    """A plan whose weights are not the bundle's: its biases are shifted."""
    weights = dict(model.weights)
    for name in weights:
        if name.endswith("bias"):
            weights[name] = weights[name] + np.asarray(0.2, weights[name].dtype)
    model.__dict__["weights"] = weights
    return found(model, device, options)


def shift_baseline() -> None:
    """A baseline's second output is wrong, so it must not be timed; the reference is unchanged."""
    calls = itertools.count()

    def wrong(*arguments: Any, **named: Any) -> Any:
        return reference.decode_flip(*arguments, **named) + (0.25 if next(calls) else 0)

    baselines.reference = SimpleNamespace(decode_flip=wrong)  # type: ignore[assignment]


PLANTS: dict[str, Callable[[], None]] = {"": lambda: None, "another decode": shift_baseline}


def main() -> None:
    driver, only, plant = (*sys.argv[1:], "", "")[:3]
    PLANTS.get(plant, lambda: None)()
    parts = tuple(each for each in only.split(",") if each)
    options = check.GpuCheckOptions(
        driver,  # type: ignore[arg-type]
        parts,
        persons=SMALL.persons,
        seconds=SMALL.seconds,
        limits=SMALL,
    )
    plans = PlanSource(trt, shifted if plant == "another network" else found)
    model = Bundle.open(bundle.embedded()["movenet-lightning"])
    result = check.check(model, options, plans=plans)
    try:
        check.raise_failures(result)
        verdict = {"code": 0, "message": ""}
    except PosekitError as error:
        verdict = {"code": error.exit_code, "message": str(error)}
    print(json.dumps({**result, "verdict": verdict}))


if __name__ == "__main__":
    main()
