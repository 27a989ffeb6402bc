"""The report of an adaptation, as one self-contained HTML page and as JSON."""

from __future__ import annotations

import base64
import dataclasses
import html
import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posekit.atomic import write_atomic
from posekit.draw import DrawStyle, draw
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
_COLORS = ("#1f6feb", "#d9730d", "#2da44e", "#8250df", "#bf3989")
_CURVES = (
    ("Joints that stay in place in other views, held-out persons", PROBE_VIEWS),
    ("Agreement, held-out persons", ("teacher", "source")),
    ("Distance, share of the crop", ("teacher_away", "source_away", "away", "apart")),
    ("Response, held-out persons", ("response", "faint")),
    ("Heatmap values by fifths, relative to the start", tuple(f"bin_{n}_ratio" for n in range(5))),
    ("Different peak cells, share of the persons", ("distinct",)),
    ("Left/right swaps, crossed pairs, implausible bones", ("swaps", "crossed", "bones")),
)
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
color:#1f2328;background:#fff}table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;
text-align:right;border-bottom:1px solid #d8dee4;vertical-align:top}td:first-child,
th:first-child,.l td{text-align:left}svg{margin:.5em 1em .5em 0;vertical-align:top}
svg text{font:11px system-ui,sans-serif}svg .t{font-weight:600;font-size:13px}
svg .e{text-anchor:end}svg .m{text-anchor:middle}svg .g{stroke:#d8dee4}
svg .c{fill:none;stroke-width:2}figure{display:inline-block;margin:.4em;font-size:12px}
figcaption{max-width:34em}.n{color:#59636e}.ok{color:#1a7f37}.no{color:#cf222e}
.w{background:#fff8c5}"""


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
    title = html.escape(f"posekit adapt: {run.title}")
    labels = str(run.facts.get("labels used", "none"))
    parts = [
        f"<h1>{title}</h1>",
        _verdict(run),
        f"<p>Labels used: <b>{html.escape(labels)}</b>. Compared on {len(run.before)} "
        "held-out persons that it was not trained on.</p>",
        _changes(run.verdict.findings if run.verdict else ()),
        "<h2>Distribution of heatmap values</h2>",
        _histogram(run),
        "<h2>During training</h2>",
        *_curves(run),
        *(_figures(run) if images else ["<p class='n'>Images were left out.</p>"]),
        "<h2>Recipe</h2>",
        _recipe(run.recipe),
        "<h2>Data, time, machine</h2>",
        _table(("", ""), [[k, _format(v)] for k, v in _flat(run.facts)], left=True),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _verdict(run: Run) -> str:
    if run.verdict is None:
        return f"<p><b>{html.escape(run.reason)}</b></p>"
    title, kind = (
        ("Passed", "ok") if run.verdict.passed else ("Refused: the old model stands", "no")
    )
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in run.verdict.reasons)
    return f'<h2 class="{kind}">{title}</h2><ul>{reasons}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: bool = False) -> str:
    top = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    body_rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return f'<table class="{"l" if left else "r"}"><tr>{top}</tr>{body_rows}</table>'


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
    return _table(head, rows) if rows else ""


def _histogram(run: Run) -> str:
    """Table of the share of the maps' values in fifths of [0, 1]."""
    bins = ("0 to .2", ".2 to .4", ".4 to .6", ".6 to .8", ".8 to 1")
    before = run.before.histogram.mean(0)
    if run.after is None:
        return _table(("", *bins), [["before", *(f"{v:.5f}" for v in before)]])
    after = run.after.histogram.mean(0)
    ratios = [f"{b / a:.2f}" if a > 0 else "-" for a, b in zip(before, after, strict=True)]
    rows = [
        ["before", *(f"{v:.5f}" for v in before)],
        ["after", *(f"{v:.5f}" for v in after)],
        ["after / before", *ratios],
    ]
    return _table(("", *bins), rows)


def _curves(run: Run) -> list[str]:
    if not run.history:
        return ['<p class="n">No training took place.</p>']
    steps = [0, *(reading.step for reading in run.history)]
    values = [run.before.summary(), *(reading.values for reading in run.history)]
    charts = [
        chart(title, steps, {name: [each.get(name, math.nan) for each in values] for name in names})
        for title, names in _CURVES
    ]
    names = sorted({name for reading in run.history for name in reading.losses})
    losses = {name: [r.losses.get(name, math.nan) for r in run.history] for name in names}
    warnings = [
        f"<li>step {reading.step}: {html.escape(warning)}</li>"
        for reading in run.history
        for warning in reading.warnings
    ]
    notes = [f'<ul class="w">{"".join(warnings)}</ul>'] if warnings else []
    return [*charts, chart("Loss", steps[1:], losses), *notes]


def chart(title: str, x: Sequence[float], curves: Mapping[str, Sequence[float]]) -> str:
    """Curves as an SVG; y from 0, or from the smallest value below it; NaN is left out."""
    finite = {
        name: [(a, b) for a, b in zip(x, values, strict=True) if math.isfinite(b)]
        for name, values in curves.items()
    }
    finite = {name: points for name, points in finite.items() if points}
    values = [b for points in finite.values() for _, b in points]
    if not values:
        return ""
    low, high = min(0.0, *values), max(1e-9, *values) * 1.05
    right = max(x) or 1
    wide, tall = 400.0, 190.0

    def place(a: float, b: float) -> tuple[float, float]:
        return 46 + wide * a / right, 26 + tall * (1 - (b - low) / (high - low))

    lines = [f'<text x="8" y="15" class="t">{html.escape(title)}</text>']
    for n in range(5):
        level = low + (high - low) * n / 4
        across, y = place(0, level)
        lines.append(f'<path d="M{across:.0f} {y:.1f}h{wide:.0f}" class="g"/>')
        lines.append(f'<text x="{across - 4:.0f}" y="{y + 4:.0f}" class="e">{level:.3g}</text>')
        lines.append(
            f'<text x="{46 + wide * n / 4:.0f}" y="232" class="m">{right * n / 4:g}</text>'
        )
    for n, (name, points) in enumerate(finite.items()):
        color = _COLORS[n % len(_COLORS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in points)
        lines.append(f'<polyline points="{path}" stroke="{color}" class="c"/>')
        lines.append(f'<text x="{50 + 80 * n}" y="248" fill="{color}">{html.escape(name)}</text>')
    return f'<svg viewBox="0 0 470 254" width="470" height="254" role="img">{"".join(lines)}</svg>'


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
    head = f"<h2>The {len(figures)} persons whose predictions changed most</h2>"
    return [head, '<p class="n">Left before, right after; held out.</p>', *figures]


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
    _, data = cv2.imencode(".jpg", np.concatenate(drawn, 1)[:, :, ::-1])
    name = run.persons.sources[int(run.before.rows[n])]
    text = html.escape(f"{name}: joints moved by {moved:.1%} of the crop on average")
    coded = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{coded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _recipe(recipe: Recipe) -> str:
    """Table of every number with its default, meaning and source."""
    notes = notes_of(type(recipe))
    defaults = dict(_flat(Recipe().to_dict()))
    rows = []
    for name, value in _flat(recipe.to_dict()):
        default = "" if defaults.get(name) == value else _format(defaults.get(name))
        rows.append([name, _format(value), default, notes.get(name.partition(".")[0], "")])
    intro = inspect.getdoc(Recipe) or ""
    sources = " ".join(intro.split("\n\n", 1)[0].split())
    return f'<p class="n">{html.escape(sources)}</p>' + _table(
        ("number", "value", "default", "meaning and source"), rows, left=True
    )


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
