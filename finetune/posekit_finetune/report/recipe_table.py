"""The recipe in a report: changed values first, then every value by group, folded."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

from posekit.output import html
from posekit_finetune.recipe import Recipe
from posekit_finetune.views.warps import Strength

GROUPS = {
    "Networks and teacher": (
        *("networks", "teacher", "ensemble_views", "direction", "stop_gradient", "head_noise"),
        "ema",
    ),
    "Views of a person": ("easy", "hard", "hard_from_easy", "hard_views", "repeat_joints", "mask"),
    "Loss": (
        *("target", "loss", "power", "amplitude", "aim", "confidence", "keep", "agree_px"),
        *("dispute", "focus", "supervised", "consistency", "alone_steps"),
    ),
    "Against forgetting": ("retain", "far", "anchor", "learn", "batch_norm", "blend"),
    "Steps and rate": (
        *("optimizer", "rate", "warm_up", "schedule", "clip", "steps", "batch"),
        *("labelled_batch", "watch_every"),
    ),
}
"""Where each number of the recipe is shown."""


def section(recipe: Recipe, name: str) -> str:
    """A folded section: what differs from the default recipe, then all numbers by group."""
    values, defaults = dict(flat(recipe.to_dict())), dict(flat(Recipe().to_dict()))
    changed = [field for field, value in values.items() if defaults[field] != value]
    title = f"Recipe {name}: {len(changed)} of {len(values)} numbers differ from the default recipe"
    parts = []
    if changed:
        rows = [
            [field, text_of(values[field]), text_of(defaults[field]), _note(field)]
            for field in changed
        ]
        parts.append(html.table(("number", "value", "default", "meaning"), rows, left=True))
    for group, members in GROUPS.items():
        fields = [field for field in values if field.partition(".")[0] in members]
        rows = [[field, text_of(values[field]), _note(field)] for field in fields]
        table = html.table(("number", "value", "meaning"), rows, left=True)
        parts.append(html.details(f"{group} ({len(fields)})", [table]))
    intro = (inspect.getdoc(Recipe) or "").split("\n\n", 1)[0]
    parts.append(html.paragraph(" ".join(intro.split()).replace("`", "")))
    return html.details(title, parts)


def _note(field: str) -> str:
    """Meaning and source of a number of the recipe, or of one of its views."""
    name, _, part = field.partition(".")
    notes = notes_of(Strength) if part else notes_of(Recipe)
    return notes.get(part or name, "").replace("`", "")


@functools.cache
def notes_of(kind: type) -> dict[str, str]:
    """Description of each field, from a dataclass's docstring and the comments at its fields."""
    text = " ".join((inspect.getdoc(kind) or "").split())
    fields = "|".join(each.name for each in dataclasses.fields(kind))
    starts = [*re.finditer(rf"(?<= )((?:{fields})(?:, (?:{fields}))*): ", text)]
    ends = [*(each.start() for each in starts[1:]), len(text)]
    notes: dict[str, str] = {}
    for start, end in zip(starts, ends, strict=True):
        notes |= dict.fromkeys(start[1].split(", "), text[start.end() : end].strip())
    for name, comment in re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(kind), re.M):
        notes[name] = "; ".join(filter(None, (notes.get(name), comment)))
    return notes


def flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested tables as rows with dotted names."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{before}{name}.")
        else:
            rows.append((f"{before}{name}", value))
    return rows


def text_of(value: Any) -> str:
    """A value of a recipe or of a run's facts, for a table."""
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
