"""Parity of both TensorRT engines with the source network's output, stored in the bundle.

`raw` runs in posekit's GPU runtime between its kernels; `points` runs alone, as in other runtimes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import BundleError, InputError
from posekit.geometry import Warp
from posekit.inputs.parsing import number, parse_json
from posekit.stats.parity import compare
from posekit.types import Float32, UInt8
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check.plans import PlanSource, open_gpu_runtime, plan_summary
from posekit_engines.options import BUDGETS
from posekit_engines.trt.plan import PlanOptions
from posekit_engines.trt.points_engine import PointsEngine

BUDGET = BUDGETS["fp16"]
"""The budget of `posekit export` for FP16."""


def parity(device: Device, bundle: Bundle, plans: PlanSource) -> dict[str, Any]:
    """Deviation of both engines from the source on the bundle's check crops, crop px.

    Raises InputError (a bundle without check crops), EngineError, DeviceError, MissingExtraError.
    """
    reference = bundle.reference
    if "crops" not in reference or "flip_points" not in reference:
        raise InputError(f"{bundle.name}: has no check crops with the source's output")
    crops = np.ascontiguousarray(reference["crops"])
    source = (reference["flip_points"], reference["flip_scores"])
    raw, raw_plan = _raw(device, bundle, crops, plans=plans)
    points, points_plan = _points(device, bundle, crops, plans=plans)
    return {
        "crops": len(crops),
        "budget_px": budget(bundle),
        "raw": {**raw_plan, **deviation(raw, source)},
        "points": {**points_plan, **deviation(points, source)},
        "points against raw": deviation(points, raw),
    }


def largest_mean_px(figures: dict[str, Any]) -> float:
    """The larger of both mean deviations from the source, or inf where one is NaN."""
    means = [figures[kind]["mean_px"] for kind in ("raw", "points")]
    return float(np.nan_to_num(np.max(means), nan=np.inf))


def budget(bundle: Bundle) -> dict[str, float]:
    """FP16's budget plus the bundle's own deviation from its source, px. Raises BundleError."""
    where = f"{bundle.name}: parity.json"
    stored = parse_json(bundle.extras.get("parity.json", b"{}"), name=where, error=BundleError)
    own = stored.get("flip", {}) if isinstance(stored, dict) else None
    if not isinstance(own, dict):
        raise BundleError(f"{where}: damaged: wanted a table of graphs")
    allowed = {"mean_px": BUDGET.mean_px, "p99_px": BUDGET.p99_px or BUDGET.mean_px}
    return {
        name: round(px + _deviation(own.get(name, 0.0), f"{where}: {name}", bundle), 5)
        for name, px in allowed.items()
    }


def _deviation(value: object, name: str, bundle: Bundle) -> float:
    """A stored deviation, px, at most the crop's diagonal. Raises BundleError."""
    diagonal = math.hypot(*bundle.spec.input_size)
    return number(value, name=name, low=0, high=diagonal, error=BundleError)


def over_budget(figures: dict[str, Any]) -> str:
    """The first deviation over its budget, in a sentence, or ""."""
    for kind in ("raw", "points"):
        for name, allowed in figures["budget_px"].items():
            measured = figures[kind][name]
            if not measured <= allowed:
                return f"the engine `{kind}` deviates: {name} {measured}, wanted <= {allowed}"
    return ""


def deviation(
    found: tuple[Float32, Float32], source: tuple[NDArray[Any], NDArray[Any]]
) -> dict[str, Any]:
    """Deviation of the source's high-confidence keypoints, px, and of all scores.

    Raises InputError where it has none.
    """
    compared = compare(found[0], found[1], source, crops=len(found[0])).to_dict()
    if not compared["points"]:
        raise InputError("check crops: the source has no high-confidence keypoint in them")
    return {name: value for name, value in compared.items() if name != "crops"}


def _raw(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: PlanSource
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    runtime, plan = open_gpu_runtime(device, bundle, plans)
    identity = [Warp(np.eye(2, 3)[None]) for _ in crops]  # each crop is a frame
    output = runtime.infer(runtime.crops(list(crops), identity))
    return output, {**plan_summary(plan), "notes": list(runtime.notes)}


def _points(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: PlanSource
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    plan = plans.find(bundle, device, PlanOptions(kind="points"))
    engine = PointsEngine(plans.trt, plan.data, device)
    outputs = [
        engine(crops[start : start + engine.max_crops])
        for start in range(0, len(crops), engine.max_crops)
    ]
    points, scores = (np.concatenate(each) for each in zip(*outputs, strict=True))
    return (points, scores), plan_summary(plan)
