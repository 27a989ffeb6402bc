"""One HTML file that shows an evaluation: tables, curves, bars, and the people with lowest OKS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from posekit.drawing.draw import DrawStyle, draw
from posekit.evaluate.score import HEADLINES, Evaluation
from posekit.output import charts, html
from posekit.output.charts import Axis, Interval
from posekit.types import Boxes, Float32, Poses, Skeleton, UInt8
from posekit.video.images import read_image

WORST = 12
MAIN = ("AP", "AR", "PCK@0.2 torso", "PCK@0.1 box", "PCKh@0.5", "OKS")
"""Figures that are shown first; the others are folded. Larger is better."""

GLOSSARY = (
    "AP and AR: COCO's average precision and recall over OKS thresholds of 0.5 to 0.95. "
    "PCK@t: share of the keypoints nearer to their label than t times the torso, the box's longer "
    "side or the head. OKS: object keypoint similarity, 1 is perfect. AUC: mean of PCK over "
    "thresholds up to 0.5. NME: mean error relative to the person's size; smaller is better."
)

_SIDE_PX = 340
_EVERYTHING = DrawStyle(min_score=1e-6, ids=False)  # a score of 0: not labeled
_CENTERS = (*(np.arange(10) / 10 + 0.05).tolist(), 1.0)
_LENGTHS = {
    "torso": "torso length",
    "box": "longer side of the box",
    "head": "head size",
    "size": "person size",
}


def reliability_page(title: str, report: Mapping[str, Any]) -> str:
    """A self-contained HTML page: a reliability diagram for each graph of `calibrate`'s report."""
    text = (
        "Share of keypoints nearer than 0.1 of the person size, by predicted confidence; the "
        "dashed line is perfect. Each fold of images was scored with a fit to the others."
    )
    parts = [html.heading(title, 1), html.paragraph(text)]
    diagrams, rows = [], []
    for name, entry in report.items():
        curves = {each: _bins(entry[each]["reliability"]) for each in ("raw", "calibrated")}
        diagrams.append(
            charts.line_chart(
                name,
                _CENTERS,
                curves,
                x_axis=Axis("Predicted confidence", 0, 1),
                y_axis=Axis("Share of the keypoints that are right", 0, 1),
                diagonal=True,
            )
        )
        rows += [
            [f"{name}, {e}", f"{entry[e]['ece']:.4f}", f"{entry[e]['brier']:.4f}"] for e in curves
        ]
    parts.append(html.grid(diagrams))
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

    With a comparison the second model's figures and curves stand beside the first's.
    skeleton: the model's, whose bones the images show. Raises SourceError.
    """
    models = _models(report)
    title = f"{' and '.join(models)} on {report['figures']['data']}"
    groups = [
        _groups(title, {name: each[key] for name, each in models.items()})
        for title, key in (("By size", "by_size"), ("By visibility", "by_visibility"))
    ]
    parts = [
        html.heading(title, 1),
        html.verdict(*_result(report)),
        html.grid([_main_chart(report), html.paragraph(GLOSSARY)]),
        html.details("All figures with 95 % intervals", [_metrics(report)]),
        html.heading("Share of right keypoints by threshold"),
        html.grid(_curves(models)),
        html.heading("Share of right keypoints by keypoint"),
        html.grid(_keypoints(models)),
        html.details("By size of the person, and by visibility of the keypoint", groups),
        html.details("How it was measured", [_provenance(report)]),
        html.heading(
            _count(min(WORST, report["figures"]["persons"]), "person", "people")
            + " with the lowest OKS"
        ),
        html.paragraph(f"Left: labels. Right: predictions of {next(iter(models))}."),
        html.grid(_worst(evaluation, skeleton)),
    ]
    return html.page(title, parts)


def _models(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of each model by its name, the evaluated one first."""
    models = {report["model"]["name"]: report["figures"]}
    if comparison := report.get("comparison"):
        name = comparison["model"]["name"]
        models[f"{name} (compared)" if name in models else name] = comparison["figures"]
    return models


def _result(report: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The result in a sentence, and what it was measured on."""
    figures, comparison = report["figures"], report.get("comparison")
    name = report["model"]["name"]
    lines = [
        f"Measured on {_count(figures['persons'], 'labeled person', 'labeled people')} "
        f"({figures['found']} found) in {_count(figures['images'], 'image', 'images')}, on "
        f"{len(figures['keypoints'])} keypoints."
    ]
    unused = ", ".join(figures["unused_keypoints"])
    lines += [f"Not evaluated, since only one side has them: {unused}."] if unused else []
    if comparison is None:
        shown = [f"{each} {_cell(figures['metrics'].get(each))}" for each in _known(report)[:3]]
        return f"{name}: {', '.join(shown)}.", ["In brackets: 95 % intervals.", *lines]
    return _compared_result(report, comparison), [_counts(report, comparison), *lines]


def _compared_result(report: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Which model is better by the first of the main figures."""
    name, other = report["model"]["name"], comparison["model"]["name"]
    if not (known := _known(report)):
        return f"{name} was compared with {other}."
    value, low, high = comparison["difference"][known[0]]
    if report["figures"]["images"] < 2:
        apart = f"{known[0]} {value:+.3f}"
        return f"{name} and {other} differ by {apart} on one image, which decides nothing."
    relation = "better than" if low > 0 else "worse than" if high < 0 else "not clearly apart from"
    shown = f"{known[0]} {value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
    return f"{name} is {relation} {other}: {shown}."


def _counts(report: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """How many of the main figures are significantly better and worse."""
    if report["figures"]["images"] < 2:
        return "Intervals are over images: with one image there is none."
    cells = [comparison["difference"][name] for name in _known(report)]
    better, worse = sum(low > 0 for _, low, _ in cells), sum(high < 0 for _, _, high in cells)
    return (
        f"Of {len(cells)} main figures {better} are significantly better and {worse} worse; both "
        "models were measured on the same people."
    )


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _known(report: Mapping[str, Any]) -> list[str]:
    """Those of MAIN that are defined, also for the difference where there is one."""
    tables = [report["figures"]["metrics"]]
    if comparison := report.get("comparison"):
        tables.append(comparison["difference"])
    return [name for name in MAIN if all(_defined(table.get(name)) for table in tables)]


def _defined(cell: Sequence[float | None] | None) -> bool:
    return cell is not None and None not in cell


def describe_augmentation(run: Mapping[str, Any]) -> str:
    """The test-time augmentation, in a few words."""
    views = run.get("views")
    return f"{views} views" if views else f"flip {'on' if run['flip'] else 'off'}"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _cell(cell: Sequence[float | None] | None, sign: str = "") -> str:
    """A figure with its interval in brackets."""
    if cell is None or cell[0] is None:
        return "-"
    value, low, high = cell
    return f"{_number(value, sign)} ({_number(low, sign)} to {_number(high, sign)})"


def _main_chart(report: Mapping[str, Any]) -> str:
    """The main figures with their intervals; with a comparison, the differences."""
    comparison = report.get("comparison")
    if comparison is None:
        table = report["figures"]["metrics"]
        rows = [_interval(name, table[name], "") for name in _known(report)]
        return charts.interval_chart("Accuracy with 95 % intervals", rows, Axis("Value", 0, 1))
    table = comparison["difference"]
    rows = [_interval(name, table[name], "+") for name in _known(report)]
    axis = Axis(f"Difference; right of 0: {report['model']['name']} is better")
    return charts.interval_chart("Difference on the same people", rows, axis)


def _interval(name: str, cell: Sequence[float], sign: str) -> Interval:
    value, low, high = cell
    decided = None if not sign or low <= 0 <= high else low > 0
    return Interval(name, _cell(cell, sign), value, low=low, high=high, passed=decided)


def _metrics(report: Mapping[str, Any]) -> str:
    """Every figure of each model, and their difference."""
    models, comparison = _models(report), report.get("comparison")
    head = ["", *models, *(["difference, paired"] if comparison else [])]
    rows = []
    for name, (value, *_) in report["figures"]["metrics"].items():
        if value is None:
            continue
        row = [name, *(_cell(each["metrics"].get(name)) for each in models.values())]
        rows.append(
            [*row, *([_cell(comparison["difference"].get(name), "+")] if comparison else [])]
        )
    return html.table(head, rows)


def _curves(models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One chart of all lengths; with two models one chart a length."""
    first = next(iter(models.values()))["curves"]
    known = [name for name in _LENGTHS if name in first and first[name][0] is not None]
    y_axis = Axis("Right keypoints, %", 0, 1, percent=True)
    if len(models) == 1:
        curves = {_LENGTHS[name]: first[name] for name in known}
        x_axis = Axis("Threshold, share of the length", low=0)
        yield charts.line_chart("PCK", first["thresholds"], curves, x_axis=x_axis, y_axis=y_axis)
        return
    for name in known:
        yield charts.line_chart(
            f"PCK relative to the {_LENGTHS[name]}",
            first["thresholds"],
            {model: figures["curves"][name] for model, figures in models.items()},
            x_axis=Axis(f"Threshold, share of the {_LENGTHS[name]}", low=0),
            y_axis=y_axis,
        )


def _keypoints(models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Bars of two headlines for each keypoint, each model beside the other."""
    tables = [figures["per_keypoint"] for figures in models.values()]
    names = [name for name in HEADLINES if any(row[name] is not None for row in tables[0].values())]
    axis = Axis("Right keypoints, %", 0, 1, percent=True)
    for name in names[:1] + names[3:4] if len(names) > 3 else names[:2]:
        bars = {k.replace("_", " "): [table[k][name] for table in tables] for k in tables[0]}
        yield charts.bar_chart(name, bars, list(models), axis=axis)


def _groups(title: str, models: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    """Table of the figures of each group of people or keypoints, a row for each model."""
    first = next(iter(models.values()))
    names = list(next(iter(first.values())))
    used = [name for name in names if any(row[name] is not None for row in first.values())]
    rows = [
        [
            group if len(models) == 1 else f"{group}: {model}",
            str(groups[group][used[0]]),
            *(_number(groups[group][name]) for name in used[1:]),
        ]
        for group in first
        for model, groups in models.items()
    ]
    return html.heading(title, 3) + html.table(("", *used), rows)


def _provenance(report: Mapping[str, Any]) -> str:
    """Models, labels, boxes, and what was assumed, as a table."""
    run, comparison = report["run"], report.get("comparison")
    models = [report["model"], *([comparison["model"]] if comparison else [])]
    rows = [[f"model {each['name']}", f"sha256 {each['sha256']}"] for each in models]
    rows += [
        ["labels", str(run["annotations"])],
        ["boxes", str(run["boxes"])],
        ["test-time augmentation", describe_augmentation(run)],
        ["runs on", f"{run['provider']}, {run['threads']} threads"],
        ["intervals", f"95 %, bootstrap over images, seed {run['seed']}"],
        *(["note", note] for note in run["notes"]),
    ]
    return html.table((), rows, left=True)


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
    text = f"{path.name}: OKS {evaluation.similarity[n]:.3f}"
    gap = np.full((_SIDE_PX, 8, 3), 255, np.uint8)
    return html.figure(np.concatenate([sides[0], gap, sides[1]], 1), text)


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
