"""The report of an adaptation, as one self-contained HTML page and as JSON."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posekit.atomic import write_atomic
from posekit.drawing.draw import DrawStyle, draw
from posekit.output import html
from posekit.types import Boxes, Poses, UInt8
from posekit_finetune.assess.compare import MetricChange
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.indicators import Indicators, body_keypoints, clipped_distance
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.assess.probe_views import PROBE_VIEWS
from posekit_finetune.data.persons import Persons
from posekit_finetune.recipe import Recipe

SHOWN = 12
"""Number of persons, those whose predictions changed most, that the page shows."""

_SIDE_PX = 220
_CURVES = (
    ("Joints that stay in place in other views, held-out persons", PROBE_VIEWS),
    ("Agreement, held-out persons", ("teacher", "source")),
    ("Distance, share of the crop", ("teacher_away", "source_away", "away", "apart")),
    ("Response, held-out persons", ("response", "faint")),
    ("Heatmap values by fifths, relative to the start", tuple(f"bin_{n}_ratio" for n in range(5))),
    ("Different peak cells, share of the persons", ("distinct",)),
    ("Left/right swaps, crossed pairs, implausible bones", ("swaps", "crossed", "bones")),
)


@dataclass(frozen=True, eq=False)
class Run:
    """The contents of a report.

    title: such as the model's name.  reason: the result, one sentence.
    facts: of data, time, memory, seed, versions and parent; plain values by name.
    verdict, after: None where training did not finish.
    before, after: on the held-out rows of `persons`.  history: readings during training.
    """

    title: str
    reason: str
    facts: Mapping[str, Any]
    recipe: Recipe
    before: Indicators
    persons: Persons
    after: Indicators | None = None
    verdict: Verdict | None = None
    history: Sequence[MonitorReading] = ()


def write(html_path: Path, json_path: Path, run: Run, *, images: bool = True) -> None:
    """Write both files, each atomically.

    images: of the persons whose predictions changed most; False keeps persons out of the file.
    Raises SourceError.
    """
    write_atomic(html_path, page(run, images=images))
    write_atomic(json_path, json.dumps(summary(run), indent=1, allow_nan=False) + "\n")


def summary(run: Run) -> dict[str, Any]:
    """The JSON; an undefined value is null."""
    contents = {
        "title": run.title,
        "result": run.reason,
        "labels_used": run.facts.get("labels used", "none"),
        "verdict": None if run.verdict is None else run.verdict.to_dict(),
        "facts": dict(run.facts),
        "recipe": run.recipe.to_dict(),
        "held_out_persons": len(run.before),
        "before": run.before.summary(),
        "after": None if run.after is None else run.after.summary(),
        "history": [dataclasses.asdict(reading) for reading in run.history],
    }
    result: dict[str, Any] = _to_json(contents)
    return result


def _to_json(value: Any) -> Any:
    """JSON's own types; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(each) for each in value]
    if isinstance(value, np.generic):
        return _to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def page(run: Run, *, images: bool = True) -> str:
    """The HTML page; images: as for `write`."""
    title = f"posekit adapt: {run.title}"
    labels = str(run.facts.get("labels used", "none"))
    compared = f"Compared on {len(run.before)} held-out persons that it was not trained on."
    parts = [
        html.heading(title, level=1),
        *_verdict(run),
        html.paragraph(f"Labels used: {labels}. {compared}", ""),
        _changes(run.verdict.findings if run.verdict else ()),
        html.heading("Distribution of heatmap values"),
        _histogram(run),
        html.heading("During training"),
        *_curves(run),
        *(_figures(run) if images else [html.paragraph("Images were left out.")]),
        html.heading("Recipe"),
        *_recipe(run.recipe),
        html.heading("Data, time, machine"),
        html.table((), [[k, _format(v)] for k, v in _flat(run.facts)], left=True),
    ]
    return html.page(title, parts)


def _verdict(run: Run) -> list[str]:
    if run.verdict is None:
        return [html.paragraph(run.reason, "")]
    passed = run.verdict.passed
    title, kind = ("Passed", "good") if passed else ("Refused: the old model stands", "bad")
    return [html.heading(title, kind=kind), html.bullets(run.verdict.reasons)]


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if math.isfinite(value) else "-"


def _changes(changes: Sequence[MetricChange]) -> str:
    better = {1: "larger", -1: "smaller", 0: ""}
    rows = [
        [
            f"{each.name}: {each.about}",
            better[each.better],
            _number(each.before),
            _number(each.after),
            _number(each.difference, "+"),
            f"{_number(each.low, '+')} to {_number(each.high, '+')}"
            if math.isfinite(each.low)
            else "-",
        ]
        for each in changes
        if each.defined
    ]
    head = ("indicator", "better is", "before", "after", "difference", "95 % interval")
    return html.table(head, rows) if rows else ""


def _histogram(run: Run) -> str:
    """Table of the share of the maps' values in fifths of [0, 1]."""
    bins = ("0 to .2", ".2 to .4", ".4 to .6", ".6 to .8", ".8 to 1")
    before = run.before.histogram.mean(0)
    rows = [["before", *(f"{v:.5f}" for v in before)]]
    if run.after is not None:
        after = run.after.histogram.mean(0)
        ratios = [f"{b / a:.2f}" if a > 0 else "-" for a, b in zip(before, after, strict=True)]
        rows += [["after", *(f"{v:.5f}" for v in after)], ["after / before", *ratios]]
    return html.table(("", *bins), rows)


def _curves(run: Run) -> list[str]:
    if not run.history:
        return [html.paragraph("No training took place.")]
    steps = [0, *(reading.step for reading in run.history)]
    values = [run.before.summary(), *(reading.values for reading in run.history)]
    charts = [
        html.line_chart(
            title, steps, {name: [each.get(name, math.nan) for each in values] for name in names}
        )
        for title, names in _CURVES
    ]
    names = sorted({name for reading in run.history for name in reading.losses})
    losses = {name: [r.losses.get(name, math.nan) for r in run.history] for name in names}
    warnings = [
        f"step {reading.step}: {text}" for reading in run.history for text in reading.warnings
    ]
    return [
        *charts,
        html.line_chart("Loss", steps[1:], losses),
        html.bullets(warnings, "warnings"),
    ]


def _figures(run: Run) -> list[str]:
    """Before and after, side by side, of the persons whose predictions changed most."""
    if run.after is None:
        return []
    part = body_keypoints(run.before.skeleton)
    after, before = (each.points[:, part] for each in (run.after, run.before))
    moved = clipped_distance(after, before, run.before.side).mean(1)
    order = np.argsort(-moved, kind="stable")[:SHOWN]
    crops = run.persons.crops(run.before.rows[order])
    figures = [
        _figure(run, int(n), crop, moved=float(moved[n]))
        for n, crop in zip(order, crops, strict=True)
    ]
    return [
        html.heading(f"The {len(figures)} persons whose predictions changed most"),
        html.paragraph("Left before, right after; held out."),
        *figures,
    ]


def _figure(run: Run, n: int, crop: UInt8, *, moved: float) -> str:
    if run.after is None:
        return ""
    height, width = crop.shape[:2]
    box = Boxes(np.array([[0, 0, width - 1, height - 1]], np.float32))
    style = DrawStyle(min_score=0.0, boxes=False, ids=False)
    size = (round(width * _SIDE_PX / height), _SIDE_PX)
    scale = (np.array(size) / (width, height)).astype(np.float32)
    image = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    drawn = []
    for each in (run.before, run.after):
        points = each.points[n : n + 1] * scale
        poses = Poses(points, each.scores[n : n + 1], box, each.skeleton)
        drawn.append(draw(image, poses, style=style))
    name = run.persons.sources[int(run.before.rows[n])]
    caption = f"{name}: joints moved by {moved:.1%} of the crop on average"
    return html.figure(np.concatenate(drawn, 1), caption)


def _recipe(recipe: Recipe) -> list[str]:
    """Table of every number with its default, meaning and source."""
    notes = notes_of(type(recipe))
    defaults = dict(_flat(Recipe().to_dict()))
    rows = []
    for name, value in _flat(recipe.to_dict()):
        default = "" if defaults.get(name) == value else _format(defaults.get(name))
        rows.append([name, _format(value), default, notes.get(name.partition(".")[0], "")])
    intro = inspect.getdoc(Recipe) or ""
    sources = " ".join(intro.split("\n\n", 1)[0].split())
    head = ("number", "value", "default", "meaning and source")
    return [html.paragraph(sources), html.table(head, rows, left=True)]


def notes_of(kind: type) -> dict[str, str]:
    """Description of each field, from a dataclass's docstring and the comments at its fields."""
    notes: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(kind) or "").splitlines():
        match = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if match:
            names = match[1].split(", ")
            notes.update(dict.fromkeys(names, match[2]))
        elif line.startswith(" "):
            notes.update({name: f"{notes[name]} {line.strip()}" for name in names})
        else:
            names = []
    for name, comment in re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(kind), re.M):
        notes[name] = "; ".join(filter(None, (notes.get(name), comment)))
    return notes


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested tables as rows with dotted names."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name}.")
        else:
            rows.append((f"{before}{name}", value))
    return rows


def _format(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_format, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
