"""One HTML page of an export's parity: a table, and images of the worst crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from posekit.output import charts, html
from posekit.stats.parity import HIGH_CONFIDENCE
from posekit.types import Float32, UInt8
from posekit_engines.parity.crops import CheckCrops
from posekit_engines.parity.outputs import ExportOutputs, SourceOutputs

_SIDE_PX = 440
_SOURCE, _EXPORT = (46, 160, 67), (218, 54, 51)


def page(
    report: Mapping[str, Any], export: ExportOutputs, source: SourceOutputs, *, checks: CheckCrops
) -> str:
    """One self-contained HTML page; `report` is what parity.json holds. Raises InputError."""
    title = f"{report['model']['name']} in {report['precision']}, against its source"
    figures = [_figure(each, export, source, checks=checks) for each in report["worst"]]
    text = (
        f"Green circles: source. Red crosses: export. Drawn where the source scores above "
        f"{HIGH_CONFIDENCE}. Below each image: the keypoint that deviates most."
    )
    parts = [
        html.heading(title, 1),
        html.verdict(*_result(report)),
        html.grid([_chart(report), html.paragraph(NOTE)]),
        html.heading("The crops that deviate most"),
        html.paragraph(text),
        html.grid(figures),
        html.heading("Details"),
        html.details("All figures", [html.table((), rows(report), left=True)]),
        html.details("What was compared", [html.table((), _compared(report), left=True)]),
    ]
    return html.page(title, parts)


NOTE = (
    "Distance between the keypoints of the export and those of the source network, in pixels of "
    "the crop, for keypoints in which the source is confident. The dashed mark is the budget that "
    "the export must keep. p99: 99 of 100 keypoints deviate less."
)


def _result(report: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """The verdict in a sentence, its evidence, and whether it is good or bad."""
    crop, kept = report["crop_px"], report["within_budget"]
    title = (
        f"The export deviates from its source by {crop['mean']:.3g} px on average: "
        f"{'within its budget' if kept else 'over its budget'} of {report['budget_px']:g} px."
    )
    if kept is False and crop["mean"] <= report["budget_px"]:
        title = f"The export deviates from its source by more than its budget: {_budget(report)}."
    flips, worst = report["flips"], report["worst"][0]
    lines = [
        f"Compared: {report['points']:,} keypoints of {report['crops']} crops "
        f"({report['crops_from']}).",
        f"Largest deviation: {worst['px']:.3g} px, the {worst['keypoint'].replace('_', ' ')} of "
        f"{worst['name']}.",
        f"Keypoints at another peak of the heatmap: {flips['count']} ({flips['share']:.2%}).",
        f"Size of the file: {report['bytes'] / 1e6:.2f} MB.",
    ]
    if report["not_finite"]:
        lines.append(f"{report['not_finite']:,} values are NaN or infinite.")
    if not kept:
        lines.append("Over its budget; written because --force was given.")
    return title, lines, "good" if kept else "bad"


def _chart(report: Mapping[str, Any]) -> str:
    """Mean, p99 and largest deviation with their budgets."""
    crop = report["crop_px"]
    limits = {"mean": report["budget_px"], "p99": report["budget_p99_px"], "max": None}
    names = {"mean": "Mean", "p99": "99th percentile (p99)", "max": "Largest"}
    found = [
        charts.Interval(
            name,
            f"{crop[key]:.4g} px" + (f", budget {limits[key]:g} px" if limits[key] else ""),
            crop[key],
            limit=limits[key] or None,
            passed=crop[key] <= limits[key] if limits[key] else None,
        )
        for key, name in names.items()
    ]
    return charts.interval_chart(
        "Deviation from the source", found, charts.Axis("Deviation, px of the crop", low=0)
    )


def _compared(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Source, export and where both ran."""
    return [
        ("model", f"{report['model']['name']}, sha256 {report['model']['sha256']}"),
        ("source", f"{report['architecture']} in torch, float32"),
        ("export", f"outputs {report['outputs']}, precision {report['precision']}"),
        ("flip test", "on" if report["flip"] else "off"),
        ("decode", str(report["decode"])),
        ("runs on", str(report["runtime"])),
        ("posekit", str(report["posekit"])),
    ]


def rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as rows of a table: a figure's name, and its value with the unit."""
    crop, frame, oks = report["crop_px"], report["frame_px"], report["oks"]
    score, flips, time = report["score"], report["flips"], report["time"]
    worst = report["worst"][0]
    return [
        ("check crops", f"{report['crops']} ({report['crops_from']})"),
        ("keypoints compared", f"{report['points']} (source above {report['sure_above']})"),
        ("deviation, crop px: mean, p99, max", _three(crop)),
        ("deviation, frame px: mean, p99, max", _three(frame)),
        ("worst", f"{worst['px']:.4f} px, {worst['keypoint']} of {worst['name']}"),
        ("OKS between both: mean, lowest", f"{_number(oks['mean'])}, {_number(oks['min'])}"),
        ("score difference: mean, max", f"{score['mean']:.5f}, {score['max']:.5f}"),
        ("other peak chosen", f"{flips['share']:.2%} ({flips['count']}), gap {flips['gap']:.2g}"),
        ("heatmap difference, share of the peak", f"{report['maps']:.2g}"),
        ("values that are NaN or infinite", str(report["not_finite"])),
        ("number types in the file", _type_counts(report["contained"])),
        ("size", f"{report['bytes'] / 1e6:.2f} MB"),
        ("time, export / source", f"{time['ratio']:.2f} ({time['note']})"),
        ("budget", _budget(report)),
    ]


def _three(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{figures[key]:.4f}" for key in ("mean", "p99", "max"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _type_counts(summary: Mapping[str, Any]) -> str:
    """The counts of `contents.dtype_summary` in one line."""
    texts = []
    for name, counts in summary.items():
        inner = counts.items() if isinstance(counts, Mapping) else [("", counts)]
        texts.append(f"{name}: " + ", ".join(f"{key} {n}".strip() for key, n in inner))
    return "; ".join(texts)


def _budget(report: Mapping[str, Any]) -> str:
    p99 = report["budget_p99_px"]
    bound = f"mean {report['budget_px']:g} px" + (f", p99 {p99:g} px" if p99 else "")
    result = "kept" if report["within_budget"] else "exceeded"
    return f"{bound}: {result}{', forced' if report['forced'] else ''}"


def _figure(
    worst: Mapping[str, Any], export: ExportOutputs, source: SourceOutputs, *, checks: CheckCrops
) -> str:
    n = int(worst["crop"])
    confident = source.scores[n] > HIGH_CONFIDENCE
    text = f"{worst['name']}: " + (
        f"{worst['px']:.3f} px, {worst['keypoint'].replace('_', ' ')}"
        if confident.any()
        else "no high-confidence keypoint"
    )
    image = mark_points(checks.crops[n], source.points[n][confident], export.points[n][confident])
    return html.figure(image, text)


def mark_points(crop: UInt8, source: Float32, export: Float32) -> UInt8:
    """The crop (h, w, 3), enlarged, with circles at `source` and crosses at `export` (M, 2), px."""
    scale = _SIDE_PX / crop.shape[0]
    size = (max(1, round(crop.shape[1] * scale)), _SIDE_PX)
    image = np.ascontiguousarray(cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR))
    for x, y in _pixels(source, scale):
        cv2.circle(image, (x, y), 7, _SOURCE, 2, cv2.LINE_AA)
    for x, y in _pixels(export, scale):
        cv2.drawMarker(image, (x, y), _EXPORT, cv2.MARKER_TILTED_CROSS, 9, 2, cv2.LINE_AA)
    return np.asarray(image, np.uint8)


def _pixels(points: Float32, scale: float) -> Sequence[tuple[int, int]]:
    scaled = np.clip((points + 0.5) * scale - 0.5, -1e4, 1e4)
    return [(int(x), int(y)) for x, y in np.round(scaled)]
