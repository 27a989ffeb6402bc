"""One HTML file that shows how far an export strays: a table, and pictures of the worst crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from posekit import html
from posekit.parity import SURE
from posekit.types import Float32, UInt8
from posekit_engines.parity.answers import ExportOutputs, SourceOutputs
from posekit_engines.parity.crops import CheckCrops

_SIDE_PX = 320
_SOURCE, _EXPORT = (46, 160, 67), (218, 54, 51)


def page(
    report: Mapping[str, Any], given: ExportOutputs, source: SourceOutputs, *, checks: CheckCrops
) -> str:
    """HTML without a single reference to the outside; `report` is what parity.json holds."""
    model = report["model"]
    title = f"{model['name']} in {report['precision']}, against its source"
    what = (
        f"Source: {report['architecture']} in torch float32. Export: {report['outputs']}, flip "
        f"{'on' if report['flip'] else 'off'}, decode {report['decode']}, run by "
        f"{report['runtime']}. {report['crops']} crops, {report['crops_from']}. sha256 of the "
        f"model {str(model['sha256'])[:16]}."
    )
    figures = [_figure(each, given, source, checks=checks) for each in report["worst"]]
    parts = [
        html.heading(title, 1),
        html.paragraph(what),
        _verdict(report),
        html.table((), rows(report)),
        html.heading("The crops that deviate most"),
        html.paragraph(
            f"Circles: source. Crosses: export. Shown where the source scores above {SURE}."
        ),
        *figures,
    ]
    return html.page(title, parts)


def rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as lines of a table: what, and its value with the unit."""
    crop, frame, oks = report["crop_px"], report["frame_px"], report["oks"]
    score, flips, time = report["score"], report["flips"], report["time"]
    worst = report["worst"][0]
    return [
        ("check crops", f"{report['crops']} ({report['crops_from']})"),
        ("keypoints compared", f"{report['points']} (source above {report['sure_above']})"),
        ("shift, crop px: mean, p99, max", _three(crop)),
        ("shift, frame px: mean, p99, max", _three(frame)),
        ("worst", f"{worst['px']:.4f} px, {worst['keypoint']} of {worst['name']}"),
        ("OKS between both: mean, least", f"{_number(oks['mean'])}, {_number(oks['min'])}"),
        ("score difference: mean, max", f"{score['mean']:.5f}, {score['max']:.5f}"),
        ("other peak chosen", f"{flips['share']:.2%} ({flips['count']}), gap {flips['gap']:.2g}"),
        ("heatmaps, of the peak", f"{report['maps']:.2g}"),
        ("numbers that are not finite", str(report["not_finite"])),
        ("really in the file", _contained(report["contained"])),
        ("size", f"{report['bytes'] / 1e6:.2f} MB"),
        ("time, export / source", f"{time['ratio']:.2f} ({time['note']})"),
        ("budget", _budget(report)),
    ]


def _three(shift: Mapping[str, float]) -> str:
    return ", ".join(f"{shift[key]:.4f}" for key in ("mean", "p99", "max"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _contained(found: Mapping[str, Any]) -> str:
    """The counts of the first level of `precision.contained`, in one line."""
    parts = []
    for what, counts in found.items():
        inside = counts.items() if isinstance(counts, Mapping) else [("", counts)]
        parts.append(f"{what}: " + ", ".join(f"{key} {n}".strip() for key, n in inside))
    return "; ".join(parts)


def _budget(report: Mapping[str, Any]) -> str:
    p99 = report["budget_p99_px"]
    bound = f"mean {report['budget_px']:g} px" + (f", p99 {p99:g} px" if p99 else "")
    kept = "kept" if report["within_budget"] else "over it"
    return f"{bound}: {kept}{', forced' if report['forced'] else ''}"


def _verdict(report: Mapping[str, Any]) -> str:
    if report["within_budget"]:
        return ""
    return html.paragraph("Over its budget; written because --force was given.", "bad")


def _figure(
    worst: Mapping[str, Any], given: ExportOutputs, source: SourceOutputs, *, checks: CheckCrops
) -> str:
    n = int(worst["crop"])
    sure = source.scores[n] > SURE
    crop = checks.crops[n]
    text = f"{worst['name']}: " + (
        f"{worst['px']:.3f} px at {worst['keypoint']}"
        if sure.any()
        else "no high-confidence keypoint"
    )
    return html.figure(marked(crop, source.points[n][sure], given.points[n][sure]), text)


def marked(crop: UInt8, source: Float32, export: Float32) -> UInt8:
    """The crop (h, w, 3), larger, with circles at `source` and crosses at `export` (M, 2)."""
    scale = _SIDE_PX / crop.shape[0]
    size = (max(1, round(crop.shape[1] * scale)), _SIDE_PX)
    picture = np.ascontiguousarray(cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR))
    for x, y in _pixels(source, scale):
        cv2.circle(picture, (x, y), 4, _SOURCE, 1, cv2.LINE_AA)
    for x, y in _pixels(export, scale):
        cv2.drawMarker(picture, (x, y), _EXPORT, cv2.MARKER_TILTED_CROSS, 7, 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _pixels(points: Float32, scale: float) -> Sequence[tuple[int, int]]:
    places = np.clip((points + 0.5) * scale - 0.5, -1e4, 1e4)
    return [(int(x), int(y)) for x, y in np.round(places)]
