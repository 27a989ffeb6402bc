"""The indicators that decided, as a chart with their intervals and the gate's limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from posekit.output import charts
from posekit_finetune.assess import gate
from posekit_finetune.assess.compare import MetricChange, agreement
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.indicators import NEAR
from posekit_finetune.assess.probe_views import UNTRAINED

TITLE = "What decided: gain of the adapted model"

NOTE = (
    "Each line is the 95 % interval of the change on the held-out persons, in percentage points; "
    "right of 0 is better. The dashed mark is the limit of the gate: a value to the left of it "
    "counts against the model. One of the first two must also be significant: its whole line right "
    "of 0, unless labels show a gain. A joint stays in place, or agrees, where the two predictions "
    f"are nearer than {NEAR:.0%} of the crop."
)

_EVIDENCE = ("flip", UNTRAINED)
_NAMES = {
    "flip": "Joints in place when mirrored",
    UNTRAINED: "Joints in place in an untrained view",
    "teacher": "Joints that agree with the teacher",
    "source": "Confident predictions kept",
    "swaps": "Left/right swaps between views",
    "bones": "Bones of implausible length",
    "asymmetry": "Left and right bones equally long",
    "jumps": "Joints that jump between frames",
}


def chart(verdict: Verdict) -> str:
    """The chart; empty where nothing was compared."""
    rows = list(_rows(verdict))
    return charts.interval_chart(
        TITLE, rows, charts.Axis("Change, percentage points", percent=True)
    )


def _rows(verdict: Verdict) -> Iterator[charts.Interval]:
    """Gains with their limits: those that always decide, labels, and others over their limit."""
    changes = {each.name: each for each in verdict.findings}
    compared = {**changes, "teacher": agreement(changes)}
    for name, limit in _limits(compared).items():
        change = compared[name]
        over = change.gain < limit
        if change.defined and (name in ("flip", UNTRAINED, "teacher", "source") or over):
            passed = change.gain > limit if name == UNTRAINED else not over
            doubted = name in _EVIDENCE and not verdict.passed and not gate.shows_gain(changes)
            title = f"{_NAMES[name]}: not significant" if doubted else _NAMES[name]
            yield _row(title, change, limit, passed=passed and not doubted)
    for change in verdict.findings:
        if change.about == "with labels" and change.defined:
            decides = change.name in verdict.labels
            yield _row(
                f"{change.name} with labels" if decides else change.name,
                change,
                0.0 if decides else None,
                passed=not change.high < 0 if decides else None,
            )


def _limits(compared: Mapping[str, MetricChange]) -> dict[str, float]:
    """Least gain of each indicator, in the order of the chart."""
    margins = {name: -margin for name, margin in gate.MARGINS.items() if name in compared}
    evidence = {"flip": gate.MIN_FLIP_GAIN, UNTRAINED: 0.0}
    kept = {"teacher": margins.pop("teacher"), "source": gate.MIN_SOURCE_AGREEMENT - 1}
    others = {name: limit for name, limit in margins.items() if name not in evidence}
    return {**evidence, **kept, **others}


def _row(
    name: str, change: MetricChange, limit: float | None, *, passed: bool | None
) -> charts.Interval:
    ends = sorted((change.low * change.better, change.high * change.better))
    low, high = ends if math.isfinite(change.low) else (None, None)
    shown = f"{change.before:.1%} → {change.after:.1%}"
    return charts.Interval(name, shown, change.gain, low=low, high=high, limit=limit, passed=passed)
