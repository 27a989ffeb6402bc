"""Two networks on the same held-out persons: each indicator's change with its paired interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posekit.errors import InputError
from posekit.stats.bootstrap import draws, interval
from posekit.types import Int64
from posekit_finetune.assess.indicators import (
    MEASURES,
    NEAR,
    Float64,
    Indicators,
    Measure,
    body_keypoints,
)


@dataclass(frozen=True)
class MetricChange:
    """One metric of two networks.

    better: 1 where larger is better, -1 where smaller, 0 neither.  low, high: 95 % interval of the
    difference; NaN where the metric is one of the whole set, or undefined.
    """

    name: str
    about: str
    better: int
    before: float
    after: float
    difference: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether the metric is defined for both networks."""
        return bool(np.isfinite(self.difference))

    @property
    def gain(self) -> float:
        """The difference, above 0 where it is an improvement."""
        return self.difference * self.better

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MetricChange:
        """The inverse of `to_dict`."""
        names = ("before", "after", "difference", "low", "high")
        numbers = {name: float("nan") if data[name] is None else data[name] for name in names}
        return cls(data["name"], data["about"], data["better"], **numbers)


CHANGED = Measure("changed", "body joints that moved from where the source predicts them", 0)
DISTINCT = Measure("distinct", "different peak cells of a keypoint, as a share of the persons", 0)
BIAS = Measure("bias", "common shift of all persons from the source, share of the crop", -1)


def agreement(changes: Mapping[str, MetricChange]) -> MetricChange:
    """Agreement with the frozen teacher: with its rotated views alone where available.

    An ensemble that contains the upright view is biased towards the source, which is part of it,
    and agrees less with a network that has learned from the other views.
    """
    rotated = changes.get("turned")
    return rotated if rotated is not None and rotated.defined else changes["teacher"]


def compare(before: Indicators, after: Indicators, *, seed: int = 0) -> tuple[MetricChange, ...]:
    """The change of each of MEASURES, and of CHANGED, DISTINCT and BIAS.

    seed: of the bootstrap. Raises InputError where the persons differ.
    """
    if not np.array_equal(before.rows, after.rows) or before.seed != after.seed:
        raise InputError("compare: before and after were measured on other persons or views")
    changes = [
        difference(
            measure,
            before.column(measure.name),
            after.column(measure.name),
            groups=before.groups,
            seed=seed,
        )
        for measure in MEASURES
    ]
    part = body_keypoints(before.skeleton)
    distance = np.hypot(*np.moveaxis(after.points[:, part] - before.points[:, part], -1, 0))
    changed = (distance >= NEAR * before.side).mean(1)
    changes.append(
        difference(CHANGED, np.zeros(len(changed)), changed, groups=before.groups, seed=seed)
    )
    changes.append(_of_set(DISTINCT, before.distinct, after.distinct))
    changes.append(_of_set(BIAS, 0.0, after.bias))
    return tuple(changes)


def difference(
    measure: Measure, before: ArrayLike, after: ArrayLike, *, groups: Int64, seed: int
) -> MetricChange:
    """Means of two arrays (N,) or (N, K), without NaN, and their difference with its interval.

    Both use the same bootstrap draws of the groups, so common variation cancels.
    """
    _, place = np.unique(groups, return_inverse=True)
    count = int(place.max(initial=-1)) + 1
    drawn = draws(count, seed)
    (old, old_rounds), (new, new_rounds) = (
        _means(np.asarray(values), place, drawn) for values in (before, after)
    )
    low, high = interval(new_rounds - old_rounds)
    return MetricChange(
        measure.name, measure.about, measure.better, old, new, new - old, low=low, high=high
    )


def _means(values: Float64, place: Int64, drawn: Int64) -> tuple[float, Float64]:
    """Mean of all values, and of each bootstrap round; NaN without values."""
    array = values.astype(np.float64).reshape(len(place), -1)
    defined = ~np.isnan(array)
    sums, counts = (
        np.bincount(place, each.sum(1), minlength=drawn.shape[1])
        for each in (np.where(defined, array, 0), defined.astype(np.float64))
    )
    rows = np.concatenate([np.ones((1, drawn.shape[1])), drawn])
    totals, weights = rows @ sums, rows @ counts
    out = np.full(len(rows), np.nan)
    ratios = np.divide(totals, weights, out=out, where=weights > 0)
    return float(ratios[0]), ratios[1:]


def _of_set(measure: Measure, before: float, after: float) -> MetricChange:
    nan = float("nan")
    return MetricChange(
        measure.name,
        measure.about,
        measure.better,
        before,
        after,
        after - before,
        low=nan,
        high=nan,
    )
