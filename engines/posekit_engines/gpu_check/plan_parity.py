"""Both TensorRT plans on the bundle's own check crops, against the source network's stored answer.

`raw` runs in posekit's GPU runtime between its kernels; `points` runs alone, as other runtimes
would run it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.parity import compare
from posekit.types import Float32, UInt8
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check.plans import Plans, open_gpu_runtime, plan_summary
from posekit_engines.options import BUDGETS
from posekit_engines.trt.plan import PlanOptions
from posekit_engines.trt.points_engine import PointsEngine

BUDGET = BUDGETS["fp16"]
"""What `posekit export` allows FP16."""


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
        "raw": {**told, **deviation(raw, source)},
        "points": {**told_points, **deviation(points, source)},
        "points against raw": deviation(points, raw),
    }


def deviates(figures: dict[str, Any]) -> float:
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


def deviation(
    found: tuple[Float32, Float32], source: tuple[NDArray[Any], NDArray[Any]]
) -> dict[str, Any]:
    """Shifts of the keypoints that the source is sure of, px, and of all scores.

    Raises InputError where it is sure of none.
    """
    compared = compare(found[0], found[1], source, crops=len(found[0])).to_dict()
    if not compared["points"]:
        raise InputError("check crops: the source is sure of no keypoint in them")
    return {name: value for name, value in compared.items() if name != "crops"}


def _raw(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: Plans
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    runtime, plan = open_gpu_runtime(device, bundle, plans)
    stay = [Warp(np.eye(2, 3)[None]) for _ in crops]  # a crop is a frame of its own
    answer = runtime.infer(runtime.crops(list(crops), stay))
    return answer, {**plan_summary(plan), "notes": list(runtime.notes)}


def _points(
    device: Device, bundle: Bundle, crops: UInt8, *, plans: Plans
) -> tuple[tuple[Float32, Float32], dict[str, Any]]:
    plan = plans.find(bundle, device, PlanOptions(kind="points"))
    engine = PointsEngine(plans.trt, plan.data, device)
    parts = [
        engine(crops[start : start + engine.most]) for start in range(0, len(crops), engine.most)
    ]
    points, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    return (points, scores), plan_summary(plan)
