"""The collapse monitor: looks at held-out persons during learning, and stops what goes wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from posekit.errors import CollapsedError, DivergedError
from posekit_finetune.assess.compare import MetricChange, agreement, compare
from posekit_finetune.assess.indicators import NEAR, Indicators

RESPONSE_FLOOR = 0.5
"""Of the response at the start. A peak that lost half of its height is on its way to the
background: recipes that keep working stayed above 0.69 of it, those that died passed 0.5 within 50
steps. Source: the pilot's ladder of 24 runs on LSPET."""

RESPONSE_USUAL = (0.7, 1.3)
"""Beyond this a warning: in the pilot 29 of 33 checkpoints that lost over 2 points lay outside."""

DISTINCT_FLOOR = 0.5
"""Of the number of different peak cells at the start: a network that answers with a constant has
next to none, whatever its response. People in pictures do not lose half their variety."""

AGREEMENT_FLOOR = 0.03
"""How far agreement with the frozen teacher may fall. In the pilot this caught all 33 checkpoints
that lost over 2 points, quiet ones too, with one false alarm among 31 improved ones."""

TWINS = NEAR / 10
"""Mean distance of two networks' answers under which they are one: 1 px of 192."""

ALIKE = 0.01
"""Scores that lie no further apart are one: 200 held-out persons tell two looks of a run apart by
no less. Of such looks the last is kept. While the rate is high the student pays for its gain with
what it knew, and gets that back as the rate falls: of a run on LSPET steps 350 and 1,400 scored
.035 and .030, and had lost 2.9 and 0.7 points of AR on COCO."""

NOTHING = 0.05
"""A response under which a network had not learned to answer when the watch began: it can only
rise, so the floors do not hold it."""


_PERCENT = {
    "stays mirrored": "flip",
    "turned": "turn",
    "smaller": "zoom",
    "agrees with teacher": "teacher",
    "with its turned views": "turned",
    "swaps": "swaps",
    "faint": "faint",
    "networks apart": "apart",
}
"""What is shown live as shares, and its name among the values."""


@dataclass(frozen=True)
class MonitorReading:
    """One look at the held-out persons.

    values: means by name (`Indicators.summary`); `bin_0_ratio` to `bin_4_ratio`, each fifth of the
        maps' values against its share at the start; of two networks `apart`, how far their answers
        lie from each other, share of the crop.  losses: of the step before.
    score: how good the network seems without labels, above 0 better than at the start.
    warnings: sentences.
    """

    step: int
    values: Mapping[str, float]
    losses: Mapping[str, float]
    score: float
    warnings: tuple[str, ...] = ()

    def told(self) -> str:
        """What the look found, in a line; what could not be told is left out."""
        values = self.values
        known = {name: values.get(key, math.nan) for name, key in _PERCENT.items()}
        parts = [f"{name} {value:.1%}" for name, value in known.items() if math.isfinite(value)]
        bins = [values.get(f"bin_{n}_ratio", math.nan) for n in range(5)]
        against = "/".join(f"{each:.2f}" if math.isfinite(each) else "-" for each in bins)
        head = f"peaks {values['response']:.3f}, values by fifths {against} of the start"
        return ", ".join([head, f"places {values['distinct']:.2f}", *parts])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{**data, "warnings": tuple(data["warnings"])})


@dataclass(eq=False)
class Monitor:
    """Compares each look with the network's own state at the start.

    baseline: measured before learning, on the same persons.  history: readings so far, those that
    stopped the run included.  best: the last reading whose score is the highest or ALIKE; None
    while none is above the start's.  labeled: whether labels teach as well; then leaving the
    frozen teacher is no fault, and the last look is the one to keep.
    """

    baseline: Indicators
    labeled: bool = False
    history: list[MonitorReading] = field(default_factory=list)
    best: MonitorReading | None = None

    def watch(
        self,
        step: int,
        seen: Indicators,
        losses: Mapping[str, float],
        *,
        apart: float | None = None,
    ) -> MonitorReading:
        """Note a look after `step` steps, and say what it tells.

        apart: of two networks, the mean distance of their answers.
        Raises DivergedError where a loss or a figure is not finite, CollapsedError where the
        network stops answering, answers with a constant, or without labels leaves its frozen
        teacher.
        """
        found = {each.name: each for each in compare(self.baseline, seen)}
        score = score_of(found)
        values = {**seen.summary(), **_against(self.baseline, seen)}
        told = _warnings(found)
        if apart is not None:
            values["apart"] = apart
            told += _twins(apart)
        reading = MonitorReading(step, values, dict(losses), score, told)
        self.history.append(reading)
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise DivergedError(
                f"step {step}: the loss is no longer finite ({', '.join(bad)}); the best weights "
                "so far are kept. Lower the rate (--set rate=...)"
            )
        if not math.isfinite(found["response"].after):
            raise DivergedError(
                f"step {step}: heatmaps are no longer finite; the best weights so far are kept. "
                "Lower the rate (--set rate=...)"
            )
        if reason := _collapse(found) or ("" if self.labeled else _drift(found)):
            raise CollapsedError(
                f"step {step}: {reason}; the best weights so far are kept. Take another recipe, "
                "or a lower rate (--set rate=...)"
            )
        self._rank(reading)
        return reading

    def recall(self, history: Sequence[MonitorReading]) -> None:
        """Go on after these readings of a run that was cut off."""
        for reading in history:
            self.history.append(reading)
            self._rank(reading)

    def _rank(self, reading: MonitorReading) -> None:
        highest = max(each.score for each in self.history)
        if reading.score > 0 and reading.score >= highest - ALIKE:
            self.best = reading


def score_of(found: Mapping[str, MetricChange]) -> float:
    """Gain in agreement with the frozen teacher's turned views.

    Views that the source has part in flatter the source: agreement with an ensemble that contains
    the upright one hardly moves while the student learns. Where the turned views were not asked,
    gain in flip equivariance plus gain in agreement with the teacher, or without a teacher with
    the source's sure joints: over 79 checkpoints of the pilot that sum ordered true accuracy with
    a Spearman correlation of 0.97.
    """
    if found["turned"].known:
        return found["turned"].difference
    near = found["teacher"] if found["teacher"].known else found["source"]
    return sum(each.difference for each in (found["flip"], near) if each.known)


def _collapse(found: Mapping[str, MetricChange]) -> str:
    """Why the network is lost, or nothing."""
    response, distinct = found["response"], found["distinct"]
    if response.before < NOTHING:
        return ""
    if response.after < RESPONSE_FLOOR * response.before:
        return (
            f"collapse: the mean peak fell from {response.before:.3f} to {response.after:.3f}, "
            "nearly all of every map is background"
        )
    if distinct.after < DISTINCT_FLOOR * distinct.before:
        return (
            f"collapse: a keypoint has {distinct.after:.2f} different places a person, "
            f"{distinct.before:.2f} before; the network answers with a constant"
        )
    return ""


def _drift(found: Mapping[str, MetricChange]) -> str:
    """How far the network has left its frozen teacher, or nothing."""
    response, teacher = found["response"], agreement(found)
    # `high`: with few held-out persons a fall of 3 points can be chance
    if response.before < NOTHING or not teacher.known or teacher.high >= 0:
        return ""
    if teacher.difference >= -AGREEMENT_FLOOR:
        return ""
    return (
        f"drift: agreement with the frozen teacher fell from {teacher.before:.3f} to "
        f"{teacher.after:.3f}, whatever the response ({response.after:.3f})"
    )


def _against(before: Indicators, after: Indicators) -> dict[str, float]:
    """Each bin of the histogram against its share at the start; NaN where that was empty."""
    start, now = (each.histogram.mean(0) for each in (before, after))
    out = np.full(len(start), np.nan)
    ratios = np.divide(now, start, out=out, where=start > 0)
    return {f"bin_{n}_ratio": float(ratio) for n, ratio in enumerate(ratios)}


def _twins(apart: float) -> tuple[str, ...]:
    if apart >= TWINS:
        return ()
    return (
        f"the two networks' answers lie {apart:.2%} of the crop apart: effectively a single "
        "network; give another by --second, or more noise by --set head_noise=...",
    )


def _warnings(found: Mapping[str, MetricChange]) -> tuple[str, ...]:
    response = found["response"]
    low, high = (share * response.before for share in RESPONSE_USUAL)
    told = []
    if response.before >= NOTHING and not low <= response.after <= high:
        told.append(f"the mean peak went from {response.before:.3f} to {response.after:.3f}")
    swaps = found["swaps"]
    if swaps.known and swaps.low > 0:
        told.append(f"left and right change places more often: {swaps.after:.1%}")
    return tuple(told)
