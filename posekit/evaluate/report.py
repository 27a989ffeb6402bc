"""One HTML file that shows an evaluation: tables, curves, bars, and the worst persons."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from posekit.draw import DrawStyle, draw
from posekit.evaluate.charts import bars, lines
from posekit.evaluate.score import HEADLINES, Evaluation
from posekit.types import Boxes, Float32, Poses, Skeleton, UInt8
from posekit.video.images import read_image

WORST = 12
_SIDE_PX = 260
_EVERYTHING = DrawStyle(min_score=1e-6, ids=False)  # what scores 0 has no label
_CENTERS = (*(np.arange(10) / 10 + 0.05).tolist(), 1.0)
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
color:#1f2328;background:#fff}table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;
text-align:right;border-bottom:1px solid #d8dee4}td:first-child,th:first-child{text-align:left}
svg{margin:.5em 1em .5em 0;vertical-align:top}svg text{font:11px system-ui,sans-serif}
svg .t{font-weight:600;font-size:13px}svg .e{text-anchor:end}svg .m{text-anchor:middle}
svg .g{stroke:#d8dee4}svg .d{stroke:#8c959f;stroke-dasharray:4}
svg .c{fill:none;stroke-width:2}figure{display:inline-block;margin:.4em;font-size:12px}
figcaption{max-width:30em}.n{color:#59636e}"""


def reliability_page(title: str, report: Mapping[str, Any]) -> str:
    """HTML with a reliability diagram for each graph of `calibrate`'s report; all inside."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts.append(
        '<p class="n">Share of keypoints nearer than 0.1 of the person size, by what was promised; '
        "the dashed line is perfect. Each fold of images is measured with a fit to the others.</p>"
    )
    rows = []
    for name, entry in report.items():
        curves = {each: _bins(entry[each]["reliability"]) for each in ("raw", "calibrated")}
        parts.append(lines(name, _CENTERS, curves, label="promised", diagonal=True))
        rows += [
            [f"{name}, {e}", f"{entry[e]['ece']:.4f}", f"{entry[e]['brier']:.4f}"] for e in curves
        ]
    parts.append(_table(("", "expected calibration error", "Brier score"), rows))
    return _document(title, parts)


def _bins(rows: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Share of hits by bin, None where a bin is empty; the last place closes the axis."""
    shares: list[float | None] = [None] * len(_CENTERS)
    for row in rows:
        shares[min(int(row["chance"] * 10), 9)] = row["share"]
    return shares


def page(evaluation: Evaluation, report: Mapping[str, Any], skeleton: Skeleton) -> str:
    """HTML without a single reference to the outside; `report` is what `--json` prints.

    skeleton: the model's, whose bones the figures show. Raises SourceError.
    """
    figures = report["figures"]
    title = f"{report['model']['name']} on {figures['data']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="n">{html.escape(_summary(report))}</p>',
        _metrics(figures["metrics"]),
        _comparison(report.get("comparison")),
        "<h2>PCK by threshold</h2>",
        _curves(figures["curves"]),
        "<h2>Keypoints</h2>",
        _keypoints(figures["per_keypoint"]),
        "<h2>Size and visibility</h2>",
        _groups(figures["by_size"]),
        _groups(figures["by_visibility"]),
        f"<h2>The {WORST} persons with the lowest OKS</h2>",
        '<p class="n">Left the labels, right the prediction.</p>',
        *_worst(evaluation, skeleton),
    ]
    return _document(title, parts)


def _document(title: str, parts: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _summary(report: Mapping[str, Any]) -> str:
    figures, run = report["figures"], report["run"]
    unused = ", ".join(figures["unused_keypoints"])
    return (
        f"{figures['persons']} labelled persons ({figures['found']} found) in {figures['images']} "
        f"images; boxes: {run['boxes']}; {describe_augmentation(run)}; "
        f"{len(figures['keypoints'])} keypoints"
        + (f", not compared: {unused}" if unused else "")
        + f"; sha256 {report['model']['sha256'][:16]}. Intervals hold 95 %, images drawn "
        "with replacement."
    )


def describe_augmentation(run: Mapping[str, Any]) -> str:
    """The test-time augmentation, in a few words."""
    views = run.get("views")
    return f"{views} views" if views else f"flip {'on' if run['flip'] else 'off'}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _metrics(metrics: Mapping[str, Sequence[float | None]]) -> str:
    rows = [
        [name, _number(value), f"{_number(low)} to {_number(high)}"]
        for name, (value, low, high) in metrics.items()
        if value is not None
    ]
    return _table(("", "value", "95 % interval"), rows)


def _comparison(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    rows = [
        [name, f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}"]
        for name, (value, low, high) in comparison["difference"].items()
        if None not in (value, low, high)
    ]
    name = html.escape(comparison["model"]["name"])
    return f"<h2>Minus {name}, paired</h2>" + _table(("", "difference", "95 % interval"), rows)


def _curves(curves: Mapping[str, Any]) -> str:
    shown = {
        f"of {name}": values
        for name, values in curves.items()
        if name != "thresholds" and values[0] is not None
    }
    return lines("Share of keypoints nearer than", curves["thresholds"], shown, label="threshold")


def _keypoints(table: Mapping[str, Mapping[str, float | None]]) -> str:
    names = [name for name in HEADLINES if any(row[name] is not None for row in table.values())]
    shown = names[:1] + names[3:4] if len(names) > 3 else names[:2]
    return bars("PCK", {k: [row[name] for name in shown] for k, row in table.items()}, shown)


def _groups(groups: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(next(iter(groups.values())))
    used = [name for name in names if any(row[name] is not None for row in groups.values())]
    rows = [
        [group, *(str(row[used[0]]), *(_number(row[name]) for name in used[1:]))]
        for group, row in groups.items()
    ]
    return _table(("", *used), rows)


def _worst(evaluation: Evaluation, skeleton: Skeleton) -> list[str]:
    return [
        _figure(evaluation, int(n), skeleton)
        for n in np.argsort(evaluation.similarity, kind="stable")[:WORST]
    ]


def _figure(evaluation: Evaluation, n: int, skeleton: Skeleton) -> str:
    """Labels and prediction of a person, side by side, cut out of its image."""
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
    _, data = cv2.imencode(".jpg", np.concatenate(sides, 1)[:, :, ::-1])
    encoded = base64.b64encode(data.tobytes()).decode()
    text = f"{path.name}, OKS {evaluation.similarity[n]:.3f}"
    return (
        f'<figure><img alt="{html.escape(text)}" src="data:image/jpeg;base64,{encoded}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
    )


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
