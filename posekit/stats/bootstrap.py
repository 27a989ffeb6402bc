"""Uncertainty of a figure: intervals by drawing images with replacement.

Persons of one image are alike, so images are drawn, not persons (a cluster bootstrap).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Int64

Float64 = NDArray[np.float64]

ROUNDS = 1000
LEVEL = 95.0


def draws(count: int, seed: int, rounds: int = ROUNDS) -> Int64:
    """How often each of `count` images is drawn in each round: int64 (rounds, count)."""
    shares = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, shares, size=rounds)


def interval(values: Float64) -> tuple[float, float]:
    """The middle 95 % of the rounds' values; NaN where a round has none."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.percentile(kept, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, groups: ArrayLike, seed: int) -> tuple[float, float, float]:
    """Mean of `values` (N,) or (N, K), NaN left out, and its interval: (mean, low, high).

    groups: (N,), what each row is drawn with, such as its image. Raises InputError.
    """
    array, drawn, place = _prepared(values, groups, seed)
    sums, counts = _by_group(array, place, drawn.shape[1])
    return (_ratio(sums.sum(), counts.sum()), *interval(_ratios(drawn @ sums, drawn @ counts)))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, groups: ArrayLike, *, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `b` minus mean of `a`, measured on the same samples: (difference, low, high).

    a, b: (N,) or (N, K), NaN where a sample does not count, in both or neither.  groups: (N,).
    An interval that excludes 0 means a difference at 95 %. Raises InputError.
    """
    first, drawn, place = _prepared(a, groups, seed)
    second = np.asarray(b, np.float64).reshape(len(place), -1)
    if first.shape != second.shape or (np.isnan(first) != np.isnan(second)).any():
        raise InputError(
            f"paired samples: {first.shape} and {second.shape}; wanted as many, and NaN in the "
            "same places"
        )
    sums, counts = _by_group(second - first, place, drawn.shape[1])
    return (_ratio(sums.sum(), counts.sum()), *interval(_ratios(drawn @ sums, drawn @ counts)))


def _prepared(values: ArrayLike, groups: ArrayLike, seed: int) -> tuple[Float64, Int64, Int64]:
    """Values as (N, K), the draws (rounds, G) and each row's place among the G groups."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or len(array) != len(place) or not len(array):
        raise InputError(
            f"values {array.shape}, groups {place.shape}: wanted N rows of both, N above 0"
        )
    if np.isinf(array).any():
        raise InputError("values: wanted finite numbers or NaN, got infinite ones")
    return array.reshape(len(place), -1), draws(int(place.max()) + 1, seed), place.astype(np.int64)


def _by_group(array: Float64, place: Int64, count: int) -> tuple[Float64, Float64]:
    """Sum and count of each group's numbers, (G,)."""
    valid = ~np.isnan(array)
    sums = np.bincount(place, np.where(valid, array, 0).sum(1), minlength=count)
    counts = np.bincount(place, valid.sum(1).astype(np.float64), minlength=count)
    return sums.astype(np.float64), counts.astype(np.float64)


def _ratio(total: float, count: float) -> float:
    return float(total / count) if count else float("nan")


def _ratios(totals: Float64, counts: Float64) -> Float64:
    out = np.full(len(totals), np.nan)
    return np.asarray(np.divide(totals, counts, out=out, where=counts > 0), np.float64)
