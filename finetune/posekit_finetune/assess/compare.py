"""Two networks on the same held-out persons: each figure with its paired interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posekit.errors import InputError
from posekit.evaluate.bootstrap import draws, interval
from posekit.types import Int64
from posekit_finetune.assess.indicators import MEASURES, NEAR, Float64, Indicators, Measure, body


@dataclass(frozen=True)
class MetricChange:
    """One figure of two networks.

    better: 1 where larger is better, -1 where smaller, 0 neither.  low, high: 95 % interval of the
    difference; NaN where the figure is one of the whole set, or cannot be told.
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
    def known(self) -> bool:
        """Whether the figure could be told at all."""
        return bool(np.isfinite(self.difference))

    @property
    def gain(self) -> float:
        """The difference, above 0 where it is for the better."""
        return self.difference * self.better

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MetricChange:
        """The inverse of `to_dict`."""
        numbers = ("before", "after", "difference", "low", "high")
        told = {name: float("nan") if data[name] is None else data[name] for name in numbers}
        return cls(data["name"], data["about"], data["better"], **told)


CHANGED = Measure("changed", "body joints that are no longer where the source has them", 0)
DISTINCT = Measure("distinct", "different peak cells of a keypoint, as a share of the persons", 0)
BIAS = Measure("bias", "shift of all persons alike from the source, share of the crop", -1)


def agreement(found: Mapping[str, MetricChange]) -> MetricChange:
    """Agreement with the frozen teacher: with its turned views alone where they were asked.

    An ensemble that contains the upright view agrees with a weak source because it partly is the
    source, and less with whatever has learned from the other views.
    """
    turned = found.get("turned")
    return turned if turned is not None and turned.known else found["teacher"]


def compare(before: Indicators, after: Indicators, *, seed: int = 0) -> tuple[MetricChange, ...]:
    """A Finding for each of MEASURES, and for what is told of the two together.

    seed: of the groups that are drawn. Raises InputError where the persons differ.
    """
    if not np.array_equal(before.rows, after.rows) or before.seed != after.seed:
        raise InputError("compare: before and after were measured on other persons or views")
    found = [
        difference(
            measure,
            before.column(measure.name),
            after.column(measure.name),
            groups=before.groups,
            seed=seed,
        )
        for measure in MEASURES
    ]
    part = body(before.skeleton)
    moved = np.hypot(*np.moveaxis(after.points[:, part] - before.points[:, part], -1, 0))
    changed = (moved >= NEAR * before.side).mean(1)
    found.append(
        difference(CHANGED, np.zeros(len(changed)), changed, groups=before.groups, seed=seed)
    )
    found.append(_of_set(DISTINCT, before.distinct, after.distinct))
    found.append(_of_set(BIAS, 0.0, after.bias))
    return tuple(found)


def difference(
    measure: Measure, before: ArrayLike, after: ArrayLike, *, groups: Int64, seed: int
) -> MetricChange:
    """Means of two arrays (N,) or (N, K), NaN left out, and their difference with its interval.

    The same groups are drawn for both, so what they share drops out.
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
    """Mean of all, and of each round's draw of groups; NaN where there is none."""
    array = values.astype(np.float64).reshape(len(place), -1)
    known = ~np.isnan(array)
    sums, counts = (
        np.bincount(place, each.sum(1), minlength=drawn.shape[1])
        for each in (np.where(known, array, 0), known.astype(np.float64))
    )
    rows = np.concatenate([np.ones((1, drawn.shape[1])), drawn])
    totals, shares = rows @ sums, rows @ counts
    out = np.full(len(rows), np.nan)
    ratios = np.divide(totals, shares, out=out, where=shares > 0)
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
