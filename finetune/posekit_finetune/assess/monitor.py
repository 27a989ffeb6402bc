"""The collapse monitor: evaluates held-out persons during training, and stops a failing run."""

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
"""Least response relative to the start. Maps with half the peak height are about to become
background: recipes that keep working stayed above 0.69, those that collapsed passed 0.5 within 50
steps. Source: the pilot's 24 runs on LSPET."""

TYPICAL_RESPONSE = (0.7, 1.3)
"""Outside this range a warning: in the pilot 29 of 33 checkpoints that lost over 2 points were."""

DISTINCT_FLOOR = 0.5
"""Least number of different peak cells relative to the start: a network with a constant output has
nearly none, whatever its response. The variety of persons does not fall by half."""

AGREEMENT_FLOOR = 0.03
"""Largest loss of agreement with the frozen teacher. In the pilot this detected all 33 checkpoints
that lost over 2 points, those with a full response too, with one false alarm among 31 improved."""

IDENTICAL = NEAR / 10
"""Mean distance of two networks' predictions under which they are one network: 1 px of 192."""

SCORE_TOLERANCE = 0.01
"""Scores within this are equal: 200 held-out persons cannot distinguish two evaluations of a run
more closely. Of equal ones the last is kept. While the rate is high the student forgets, and it
recovers as the rate falls: of a run on LSPET steps 350 and 1,400 scored .035 and .030, and had
lost 2.9 and 0.7 points of AR on COCO."""

UNTRAINED_RESPONSE = 0.05
"""Below this response at the start the network was not trained yet: it can only rise, so the floors
do not apply."""


@dataclass(frozen=True)
class MonitorReading:
    """One evaluation of the held-out persons.

    values: means by name (`Indicators.summary`); `bin_0_ratio` to `bin_4_ratio`, each fifth of the
        maps' values relative to its share at the start; with two networks `apart`, the distance of
        their predictions, share of the crop.  losses: of the last step.
    score: estimate of the quality without labels, above 0 better than at the start.
    warnings: sentences.  consistency: share of the body's joints that stay in place in the probe
        views, at the start and now; NaN in readings stored before it was recorded.
    """

    step: int
    values: Mapping[str, float]
    losses: Mapping[str, float]
    score: float
    warnings: tuple[str, ...] = ()
    consistency: tuple[float, float] = (math.nan, math.nan)

    def describe(self) -> str:
        """The result so far in words."""
        before, after = self.consistency
        parts = [f"held-out consistency {before:.2f} -> {after:.2f}"]
        teacher, apart = (self.values.get(name, math.nan) for name in ("teacher", "apart"))
        if math.isfinite(teacher):
            parts.append(f"agreement with the teacher {teacher:.2f}")
        if math.isfinite(apart):
            parts.append(f"distance of the networks {apart:.1%}")
        parts += [f"{name} loss {value:.3g}" for name, value in self.losses.items()]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        consistency = tuple(data.get("consistency", (math.nan, math.nan)))
        return cls(**{**data, "warnings": tuple(data["warnings"]), "consistency": consistency})


@dataclass(eq=False)
class Monitor:
    """Compares each evaluation with the network's own indicators at the start.

    baseline: measured before training, on the same persons.  history: readings so far, including
    one that stopped the run.  best: the last reading whose score is the highest within
    SCORE_TOLERANCE; None while none is above the start's.  labeled: labels are learned as well;
    then leaving the frozen teacher is no fault, and the last reading is the best.
    """

    baseline: Indicators
    labeled: bool = False
    history: list[MonitorReading] = field(default_factory=list)
    best: MonitorReading | None = None

    def watch(
        self,
        step: int,
        indicators: Indicators,
        losses: Mapping[str, float],
        *,
        distance: float | None = None,
    ) -> MonitorReading:
        """Record the indicators after `step` steps, and check them.

        distance: with two networks, the mean distance of their predictions.
        Raises DivergedError where a loss or an indicator is not finite, CollapsedError where the
        maps fade, become constant, or without labels leave the frozen teacher.
        """
        changes = {each.name: each for each in compare(self.baseline, indicators)}
        values = {**indicators.summary(), **_bin_ratios(self.baseline, indicators)}
        warnings = _warnings(changes)
        if distance is not None:
            values["apart"] = distance
            warnings += _identical(distance)
        both = self.baseline.consistency, indicators.consistency
        reading = MonitorReading(
            step, values, dict(losses), score_of(changes), warnings, consistency=both
        )
        self.history.append(reading)
        _check_finite(step, losses, changes)
        if reason := _collapse(changes) or ("" if self.labeled else _drift(changes)):
            raise CollapsedError(
                f"step {step}: {reason}; the best weights so far are kept. Use another recipe, or "
                "a lower rate (--set rate=...)"
            )
        self._rank(reading)
        return reading

    def recall(self, history: Sequence[MonitorReading]) -> None:
        """Continue after these readings of an interrupted run."""
        for reading in history:
            self.history.append(reading)
            self._rank(reading)

    def _rank(self, reading: MonitorReading) -> None:
        highest = max(each.score for each in self.history)
        if reading.score > 0 and reading.score >= highest - SCORE_TOLERANCE:
            self.best = reading


def score_of(changes: Mapping[str, MetricChange]) -> float:
    """Gain in agreement with the frozen teacher's rotated views.

    A teacher that contains the source's own view is biased towards the source: agreement with it
    hardly changes while the student learns. Without rotated views, gain in flip equivariance plus
    gain in agreement with the teacher, or without a teacher with the source's confident joints:
    over 79 checkpoints of the pilot the Spearman correlation of that sum with accuracy is 0.97.
    """
    if changes["turned"].defined:
        return changes["turned"].difference
    near = changes["teacher"] if changes["teacher"].defined else changes["source"]
    return sum(each.difference for each in (changes["flip"], near) if each.defined)


def _check_finite(
    step: int, losses: Mapping[str, float], changes: Mapping[str, MetricChange]
) -> None:
    """Raises DivergedError."""
    if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
        raise DivergedError(
            f"step {step}: the loss is no longer finite ({', '.join(bad)}); the best weights so "
            "far are kept. Lower the rate (--set rate=...)"
        )
    if not math.isfinite(changes["response"].after):
        raise DivergedError(
            f"step {step}: heatmaps are no longer finite; the best weights so far are kept. "
            "Lower the rate (--set rate=...)"
        )


def _collapse(changes: Mapping[str, MetricChange]) -> str:
    """Why the network has collapsed, or an empty string."""
    response, distinct = changes["response"], changes["distinct"]
    if response.before < UNTRAINED_RESPONSE:
        return ""
    if response.after < RESPONSE_FLOOR * response.before:
        return (
            f"collapse: the mean peak fell from {response.before:.3f} to {response.after:.3f}, "
            "the maps are nearly all background"
        )
    if distinct.after < DISTINCT_FLOOR * distinct.before:
        return (
            f"collapse: a keypoint has {distinct.after:.2f} different peak cells per person, "
            f"{distinct.before:.2f} before; the output is nearly constant"
        )
    return ""


def _drift(changes: Mapping[str, MetricChange]) -> str:
    """How far the network has left its frozen teacher, or an empty string."""
    response, teacher = changes["response"], agreement(changes)
    # `high`: with few held-out persons a fall of 3 points can be random
    if response.before < UNTRAINED_RESPONSE or not teacher.defined or teacher.high >= 0:
        return ""
    if teacher.difference >= -AGREEMENT_FLOOR:
        return ""
    return (
        f"drift: agreement with the frozen teacher fell from {teacher.before:.3f} to "
        f"{teacher.after:.3f} (response {response.after:.3f})"
    )


def _bin_ratios(before: Indicators, after: Indicators) -> dict[str, float]:
    """Each bin of the histogram relative to its share at the start; NaN where that was empty."""
    start, now = (each.histogram.mean(0) for each in (before, after))
    out = np.full(len(start), np.nan)
    ratios = np.divide(now, start, out=out, where=start > 0)
    return {f"bin_{n}_ratio": float(ratio) for n, ratio in enumerate(ratios)}


def _identical(distance: float) -> tuple[str, ...]:
    if distance >= IDENTICAL:
        return ()
    return (
        f"the two networks' predictions differ by {distance:.2%} of the crop: effectively a single "
        "network; pass another by --second, or more noise by --set head_noise=...",
    )


def _warnings(changes: Mapping[str, MetricChange]) -> tuple[str, ...]:
    response = changes["response"]
    low, high = (share * response.before for share in TYPICAL_RESPONSE)
    warnings = []
    if response.before >= UNTRAINED_RESPONSE and not low <= response.after <= high:
        warnings.append(f"the mean peak went from {response.before:.3f} to {response.after:.3f}")
    swaps = changes["swaps"]
    if swaps.defined and swaps.low > 0:
        warnings.append(f"left and right change places more often: {swaps.after:.1%}")
    return tuple(warnings)
