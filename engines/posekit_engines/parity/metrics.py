"""The whole report of an export: every way in which it may stray from the torch network."""

from __future__ import annotations

from typing import Any

import numpy as np

from posekit import geometry
from posekit.types import Float32, ModelSpec
from posekit_engines.parity.answers import TIMED_RUNS, ExportOutputs, SourceOutputs
from posekit_engines.parity.crops import LEAST, CheckCrops
from posekit_engines.parity.source import SURE, Parity, compare

_FLIP_CELLS = 2.0


def report(
    given: ExportOutputs, source: SourceOutputs, checks: CheckCrops, *, spec: ModelSpec
) -> tuple[Parity, dict[str, Any]]:
    """The numbers of `Parity`, and with them all others by name, for JSON."""
    parity = compare(given.points, given.scores, (source.points, source.scores), crops=len(checks))
    sure = source.scores > SURE
    shift = np.linalg.norm(given.points - source.points, axis=2)
    frame = _frame_shift(given, source, checks)
    far = np.where(sure, shift, -1)
    order = np.argsort(-far.max(1), kind="stable")
    worst = [_worst(int(n), far, checks, spec=spec) for n in order[:LEAST]]
    difference = np.abs(given.scores - source.scores)
    found = {
        "crops": len(checks),
        "crops_from": checks.where,
        "points": parity.points,
        "sure_above": SURE,
        "crop_px": _spread(shift[sure]),
        "frame_px": _spread(frame[sure]),
        "worst": worst,
        "oks": _oks(given, source, sure, spec=spec),
        "score": {"mean": _round(difference.mean()), "max": _round(difference.max())},
        "flips": _flips(given, source, sure, spec=spec),
        "maps": maps_relative(given, source),
        "not_finite": given.not_finite,
        "time": {
            "source_ms": round(source.crop_s * 1e3, 2),
            "export_ms": round(given.crop_s * 1e3, 2),
            "ratio": round(given.crop_s / max(source.crop_s, 1e-9), 3),
            "note": f"a crop, least of {TIMED_RUNS} runs on this machine: noisy",
        },
    }
    return parity, found


def maps_relative(given: ExportOutputs, source: SourceOutputs) -> float:
    """Largest difference of a heatmap, as a share of the source's highest peak."""
    wanted = source.maps[list(given.tapped)]
    peak = float(np.abs(wanted).max()) or 1.0
    return _round(np.abs(given.maps - wanted).max() / peak, 8)


def _frame_shift(given: ExportOutputs, source: SourceOutputs, checks: CheckCrops) -> Float32:
    """(N, K), frame px."""
    ends = [checks.warp.to_frame(each) for each in (given.points, source.points)]
    shift: Float32 = np.linalg.norm(ends[0] - ends[1], axis=2)
    return shift


def _spread(shift: Float32) -> dict[str, float]:
    if not shift.size:
        return {"mean": 0.0, "p99": 0.0, "max": 0.0}
    p99 = np.percentile(shift, 99)
    return {"mean": _round(shift.mean()), "p99": _round(p99), "max": _round(shift.max())}


def _worst(n: int, far: Float32, checks: CheckCrops, *, spec: ModelSpec) -> dict[str, Any]:
    """The keypoint of crop n that moved most."""
    k = int(far[n].argmax())
    px = max(0.0, _round(far[n, k]))
    return {"crop": n, "name": checks.names[n], "keypoint": spec.skeleton.keypoints[k], "px": px}


def _oks(
    given: ExportOutputs, source: SourceOutputs, sure: np.ndarray[Any, Any], *, spec: ModelSpec
) -> dict[str, float | None]:
    """Between both, of crops with a sure keypoint; a person's area is half of the unpadded box."""
    width, height = spec.input_size
    areas = np.full(len(sure), 0.5 * width * height / spec.padding**2, np.float32)
    pairs = geometry.oks(
        source.points, given.points, areas, sigmas=spec.skeleton.sigmas, visible=sure
    )
    own = np.diagonal(pairs)[sure.any(1)]
    if not own.size:
        return {"mean": None, "min": None}
    return {"mean": _round(own.mean()), "min": _round(own.min())}


def _flips(
    given: ExportOutputs, source: SourceOutputs, sure: np.ndarray[Any, Any], *, spec: ModelSpec
) -> dict[str, float]:
    """Keypoints that lie on another peak: more than 2 cells away.

    gap: by how much the source's peak stands above the source's own map where the export's point
    lies; largest of all flips. Near 0, two peaks were equal and either may win.
    """
    places, wanted = (
        spec.crop_to_cells(each.points.astype(np.float64)) for each in (given, source)
    )
    flipped = np.argwhere((np.linalg.norm(places - wanted, axis=2) > _FLIP_CELLS) & sure)
    gaps = [0.0]
    width, height = spec.heatmap_size
    for n, k in flipped:
        x, y = np.round(places[n, k]).astype(int)
        x, y = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        around = source.maps[n, k, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        gaps.append(float(source.maps[n, k].max() - around.max()))
    share = len(flipped) / max(1, int(sure.sum()))
    return {"count": len(flipped), "share": _round(share), "gap": _round(max(gaps), 8)}


def _round(value: Any, digits: int = 6) -> float:
    return round(float(value), digits)
