"""The report of an adaptation, as one self-contained HTML page and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posekit.atomic import write_atomic
from posekit.output import html
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.data.persons import Persons
from posekit_finetune.recipe import Recipe
from posekit_finetune.report import curves, decision, moved, recipe_table


@dataclass(frozen=True, eq=False)
class Run:
    """The contents of a report.

    title: such as the model's name.  reason: the result, one sentence.
    facts: of data, time, memory, seed, versions and parent; plain values by name.
    verdict, after: None where training did not finish.
    before, after: on the held-out rows of `persons`.  history: readings during training.
    headline: the status with steps, persons and time.
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
    headline: str = ""


def write(html_path: Path, json_path: Path, run: Run, *, images: bool = True) -> None:
    """Write both files, each atomically.

    images: of the persons whose joints moved; False keeps persons out of the file.
    Raises SourceError.
    """
    write_atomic(html_path, page(run, images=images))
    write_atomic(json_path, json.dumps(summary(run), indent=1, allow_nan=False) + "\n")


def summary(run: Run) -> dict[str, Any]:
    """The JSON; an undefined value is null."""
    contents = {
        "title": run.title,
        "result": run.reason,
        "headline": run.headline,
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
    verdict, after = run.verdict, run.after
    parts = [html.heading(title, level=1), _verdict(run)]
    parts.append(html.bullets(f"note: {note}" for note in run.facts.get("notes", ())))
    if verdict is not None:
        parts.append(html.grid([decision.chart(verdict), html.paragraph(decision.NOTE)]))
    parts += [html.heading("During training"), *_training(run)]
    if after is not None:
        parts += (
            moved.section(run.before, after, run.persons)
            if images
            else [html.paragraph("Images of persons were left out.")]
        )
    parts += [
        html.heading("Details"),
        html.details("All indicators, before and after", [_changes(verdict)]) if verdict else "",
        html.details("Distribution of heatmap values", [_histogram(run)]),
        recipe_table.section(run.recipe, str(run.facts.get("recipe", ""))),
        html.details("Data, time, machine and versions", [_facts(run.facts)]),
    ]
    return html.page(title, parts)


_TITLES = {
    "adapted": ("Passed: the adapted model was written.", "good"),
    "refused": ("Refused: the old model stands.", "bad"),
    "forced": ("Refused, and written only because --force was given.", "bad"),
    "stopped": ("Stopped: the old model stands.", "bad"),
    "learned too little": ("Learned too little: the old model stands.", ""),
    "nothing to learn": ("Nothing to learn: the old model stands.", ""),
}


def _verdict(run: Run) -> str:
    """The verdict in a sentence, what was done, and the evidence."""
    passed = run.verdict is not None and run.verdict.passed
    status = str(run.facts.get("status", "adapted" if passed else "refused"))
    title, kind = _TITLES[status]
    labels = str(run.facts.get("labels used", "none"))
    held = len(run.before)
    lines = [
        *([run.headline.partition(": ")[2]] if run.headline else []),
        *(run.verdict.reasons if run.verdict else [run.reason.partition(": ")[2] or run.reason]),
        f"compared on {held} held-out persons that it was not trained on; labels used: {labels}",
    ]
    return html.verdict(title, [_sentence(line) for line in lines], kind)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _training(run: Run) -> list[str]:
    if not run.history:
        return [html.paragraph("No training took place.")]
    warnings = [
        f"step {reading.step}: {text}" for reading in run.history for text in reading.warnings
    ]
    more = curves.draw(curves.MORE_CHARTS, run.before, run.history)
    return [
        html.bullets(warnings, "warnings"),
        html.paragraph("Measured on the held-out persons, at the start and during training."),
        html.grid(
            [*curves.draw(curves.CHARTS, run.before, run.history), curves.losses(run.history)]
        ),
        html.details("More curves", [html.grid(more)]),
    ]


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if math.isfinite(value) else "-"


def _changes(verdict: Verdict) -> str:
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
        for each in verdict.findings
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
    return html.table(("share of the values", *bins), rows)


def _facts(facts: Mapping[str, Any]) -> str:
    """All facts but the recipe's numbers, which have a section of their own."""
    shown = {name: value for name, value in facts.items() if name != "numbers"}
    rows = [[name, recipe_table.text_of(value)] for name, value in recipe_table.flat(shown)]
    return html.table((), rows, left=True)
