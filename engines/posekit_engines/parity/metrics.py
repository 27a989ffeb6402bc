"""Every figure of an export's parity report: its deviation from the torch network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit import geometry
from posekit.stats.parity import HIGH_CONFIDENCE, Parity, compare, deviations_px
from posekit.types import Float32, ModelSpec
from posekit_engines.parity.crops import MIN_CROPS, CheckCrops
from posekit_engines.parity.outputs import TIMED_RUNS, ExportOutputs, SourceOutputs

Bools = NDArray[np.bool_]
_FLIP_CELLS = 2.0


def report(
    export: ExportOutputs, source: SourceOutputs, checks: CheckCrops, *, spec: ModelSpec
) -> tuple[Parity, dict[str, Any]]:
    """The figures of `Parity`, and all others by name, for JSON."""
    parity = compare(
        export.points, export.scores, (source.points, source.scores), crops=len(checks)
    )
    confident = source.scores > HIGH_CONFIDENCE
    distances: Float32 = np.linalg.norm(export.points - source.points, axis=2)
    compared = np.where(confident, distances, -1)
    order = np.argsort(-compared.max(1), kind="stable")
    difference = np.abs(export.scores - source.scores)
    figures = {
        "crops": len(checks),
        "crops_from": checks.where,
        "points": parity.points,
        "sure_above": HIGH_CONFIDENCE,
        "crop_px": {"mean": parity.mean_px, "p99": parity.p99_px, "max": parity.max_px},
        "frame_px": _frame_px(export, source, checks),
        "worst": [_worst(int(n), compared, checks, spec=spec) for n in order[:MIN_CROPS]],
        "oks": _oks(export, source, confident, spec=spec),
        "score": {"mean": _round(difference.mean()), "max": _round(difference.max())},
        "flips": _flips(export, source, confident, spec=spec),
        "maps": maps_relative(export, source),
        "not_finite": export.not_finite,
        "time": _times(export, source),
    }
    return parity, figures


def _times(export: ExportOutputs, source: SourceOutputs) -> dict[str, Any]:
    return {
        "source_ms": round(source.crop_s * 1e3, 2),
        "export_ms": round(export.crop_s * 1e3, 2),
        "ratio": round(export.crop_s / max(source.crop_s, 1e-9), 3),
        "note": f"a crop, best of {TIMED_RUNS} runs on this machine: noisy",
    }


def maps_relative(export: ExportOutputs, source: SourceOutputs) -> float:
    """Largest difference of a heatmap, as a share of the source's highest peak."""
    wanted = source.maps[list(export.map_rows)]
    peak = float(np.abs(wanted).max()) or 1.0
    return _round(np.abs(export.maps - wanted).max() / peak, 8)


def _frame_px(export: ExportOutputs, source: SourceOutputs, checks: CheckCrops) -> dict[str, float]:
    """Deviation of the high-confidence keypoints in frame px."""
    points, wanted = (checks.warp.to_frame(each) for each in (export.points, source.points))
    moved = deviations_px(points, (wanted, source.scores))
    if not moved.size:
        return {"mean": 0.0, "p99": 0.0, "max": 0.0}
    p99 = np.percentile(moved, 99)
    return {"mean": _round(moved.mean()), "p99": _round(p99), "max": _round(moved.max())}


def _worst(n: int, compared: Float32, checks: CheckCrops, *, spec: ModelSpec) -> dict[str, Any]:
    """The keypoint of crop n that deviates most."""
    k = int(compared[n].argmax())
    px = max(0.0, _round(compared[n, k]))
    return {"crop": n, "name": checks.names[n], "keypoint": spec.skeleton.keypoints[k], "px": px}


def _oks(
    export: ExportOutputs, source: SourceOutputs, confident: Bools, *, spec: ModelSpec
) -> dict[str, float | None]:
    """Between both, for crops with a high-confidence keypoint.

    A person's area is taken as half of the unpadded box.
    """
    width, height = spec.input_size
    areas = np.full(len(confident), 0.5 * width * height / spec.padding**2, np.float32)
    pairs = geometry.oks(
        source.points, export.points, areas, sigmas=spec.skeleton.sigmas, visible=confident
    )
    own = np.diagonal(pairs)[confident.any(1)]
    if not own.size:
        return {"mean": None, "min": None}
    return {"mean": _round(own.mean()), "min": _round(own.min())}


def _flips(
    export: ExportOutputs, source: SourceOutputs, confident: Bools, *, spec: ModelSpec
) -> dict[str, float]:
    """Keypoints where the export took another peak: more than 2 cells away.

    gap: the source's peak minus the source's map around the export's point, the largest of all.
    Near 0, two peaks are nearly equal.
    """
    places, wanted = (
        spec.crop_to_cells(each.points.astype(np.float64)) for each in (export, source)
    )
    flipped = np.argwhere((np.linalg.norm(places - wanted, axis=2) > _FLIP_CELLS) & confident)
    gaps = [0.0]
    width, height = spec.heatmap_size
    for n, k in flipped:
        x, y = np.round(places[n, k]).astype(int)
        x, y = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        around = source.maps[n, k, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        gaps.append(float(source.maps[n, k].max() - around.max()))
    share = len(flipped) / max(1, int(confident.sum()))
    return {"count": len(flipped), "share": _round(share), "gap": _round(max(gaps), 8)}


def _round(value: Any, digits: int = 6) -> float:
    return round(float(value), digits)
