"""One HTML file that shows an evaluation: tables, curves, bars, and the worst people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from posekit.drawing.draw import DrawStyle, draw
from posekit.evaluate.score import HEADLINES, Evaluation
from posekit.output import html
from posekit.types import Boxes, Float32, Poses, Skeleton, UInt8
from posekit.video.images import read_image

WORST = 12
_SIDE_PX = 260
_EVERYTHING = DrawStyle(min_score=1e-6, ids=False)  # a score of 0: not labeled
_CENTERS = (*(np.arange(10) / 10 + 0.05).tolist(), 1.0)


def reliability_page(title: str, report: Mapping[str, Any]) -> str:
    """A self-contained HTML page: a reliability diagram for each graph of `calibrate`'s report."""
    text = (
        "Share of keypoints nearer than 0.1 of the person size, by predicted confidence; the "
        "dashed line is perfect. Each fold of images was scored with a fit to the others."
    )
    parts = [html.heading(title, 1), html.paragraph(text)]
    rows = []
    for name, entry in report.items():
        curves = {each: _bins(entry[each]["reliability"]) for each in ("raw", "calibrated")}
        parts.append(
            html.line_chart(
                name, _CENTERS, curves, x_label="predicted", y_range=(0, 1), diagonal=True
            )
        )
        rows += [
            [f"{name}, {e}", f"{entry[e]['ece']:.4f}", f"{entry[e]['brier']:.4f}"] for e in curves
        ]
    parts.append(html.table(("", "expected calibration error", "Brier score"), rows))
    return html.page(title, parts)


def _bins(rows: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Share of hits by bin, None where a bin is empty; the last place closes the axis."""
    shares: list[float | None] = [None] * len(_CENTERS)
    for row in rows:
        shares[min(int(row["chance"] * 10), 9)] = row["share"]
    return shares


def page(evaluation: Evaluation, report: Mapping[str, Any], skeleton: Skeleton) -> str:
    """One self-contained HTML page; `report` is what `--json` prints.

    skeleton: the model's, whose bones the images show. Raises SourceError.
    """
    figures = report["figures"]
    title = f"{report['model']['name']} on {figures['data']}"
    parts = [
        html.heading(title, 1),
        html.paragraph(_summary(report)),
        _metrics(figures["metrics"]),
        _comparison(report.get("comparison")),
        html.heading("PCK by threshold"),
        _curves(figures["curves"]),
        html.heading("Keypoints"),
        _keypoints(figures["per_keypoint"]),
        html.heading("Size and visibility"),
        _groups(figures["by_size"]),
        _groups(figures["by_visibility"]),
        html.heading(f"The {WORST} people with the lowest OKS"),
        html.paragraph("Left: labels. Right: predictions."),
        *_worst(evaluation, skeleton),
    ]
    return html.page(title, parts)


def _summary(report: Mapping[str, Any]) -> str:
    figures, run = report["figures"], report["run"]
    unused = ", ".join(figures["unused_keypoints"])
    return (
        f"{figures['persons']} labeled people ({figures['found']} found) in {figures['images']} "
        f"images; boxes: {run['boxes']}; {describe_augmentation(run)}; "
        f"{len(figures['keypoints'])} keypoints"
        + (f", not evaluated: {unused}" if unused else "")
        + f"; sha256 {report['model']['sha256'][:16]}. "
        "95 % bootstrap intervals over images."
    )


def describe_augmentation(run: Mapping[str, Any]) -> str:
    """The test-time augmentation, in a few words."""
    views = run.get("views")
    return f"{views} views" if views else f"flip {'on' if run['flip'] else 'off'}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _metrics(metrics: Mapping[str, Sequence[float | None]]) -> str:
    rows = [
        [name, _number(value), f"{_number(low)} to {_number(high)}"]
        for name, (value, low, high) in metrics.items()
        if value is not None
    ]
    return html.table(("", "value", "95 % interval"), rows)


def _comparison(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    rows = [
        [name, f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}"]
        for name, (value, low, high) in comparison["difference"].items()
        if None not in (value, low, high)
    ]
    title = html.heading(f"Minus {comparison['model']['name']}, paired")
    return title + html.table(("", "difference", "95 % interval"), rows)


def _curves(curves: Mapping[str, Any]) -> str:
    shown = {
        f"of {name}": values
        for name, values in curves.items()
        if name != "thresholds" and values[0] is not None
    }
    return html.line_chart(
        "Share of keypoints nearer than",
        curves["thresholds"],
        shown,
        x_label="threshold",
        y_range=(0, 1),
    )


def _keypoints(table: Mapping[str, Mapping[str, float | None]]) -> str:
    names = [name for name in HEADLINES if any(row[name] is not None for row in table.values())]
    shown = names[:1] + names[3:4] if len(names) > 3 else names[:2]
    return html.bar_chart(
        "PCK", {k: [row[name] for name in shown] for k, row in table.items()}, shown
    )


def _groups(groups: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(next(iter(groups.values())))
    used = [name for name in names if any(row[name] is not None for row in groups.values())]
    rows = [
        [group, *(str(row[used[0]]), *(_number(row[name]) for name in used[1:]))]
        for group, row in groups.items()
    ]
    return html.table(("", *used), rows)


def _worst(evaluation: Evaluation, skeleton: Skeleton) -> list[str]:
    return [
        _figure(evaluation, int(n), skeleton)
        for n in np.argsort(evaluation.similarity, kind="stable")[:WORST]
    ]


def _figure(evaluation: Evaluation, n: int, skeleton: Skeleton) -> str:
    """Labels and predictions of a person, side by side, cut out of its image."""
    persons = evaluation.persons
    path = persons.images[persons.image_of[n]]
    image = read_image(path)
    box = persons.boxes.select([n])
    visible = (persons.visibility[n] > 0).astype(np.float32)
    columns = evaluation.columns.tolist()
    labels = _poses(persons.keypoints[n], visible, box, skeleton=skeleton, columns=columns)
    predicted = _poses(
        evaluation.points[n], evaluation.scores[n], box, skeleton=skeleton, columns=columns
    )
    sides = [_cut(draw(image, each, style=_EVERYTHING), box) for each in (labels, predicted)]
    text = f"{path.name}, OKS {evaluation.similarity[n]:.3f}"
    return html.figure(np.concatenate(sides, 1), text)


def _poses(
    points: Float32, scores: Float32, box: Boxes, *, skeleton: Skeleton, columns: Sequence[int]
) -> Poses:
    """One person with the model's skeleton; keypoints that the data lacks score 0."""
    full = np.zeros((1, len(skeleton), 2), np.float32)
    strength = np.zeros((1, len(skeleton)), np.float32)
    full[0, columns], strength[0, columns] = np.where(np.isfinite(points), points, 0), scores
    return Poses(full, strength, box, skeleton)


def _cut(image: UInt8, box: Boxes) -> UInt8:
    """The box, a fifth larger, scaled to `_SIDE_PX` lines."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box.xyxy[0])
    margin = 0.1 * max(x1 - x0, y1 - y0, 8)
    left, top = (max(0, int(v - margin)) for v in (x0, y0))
    right, bottom = int(min(width, x1 + margin)), int(min(height, y1 + margin))
    part = image[top : max(bottom, top + 2), left : max(right, left + 2)]
    scale = _SIDE_PX / part.shape[0]
    size = (max(1, min(2 * _SIDE_PX, round(part.shape[1] * scale))), _SIDE_PX)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
