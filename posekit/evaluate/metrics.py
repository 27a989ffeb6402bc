"""Accuracy of keypoints as pure functions of arrays: PCK, PCKh, AUC, NME, calibration error.

Everywhere N persons with K keypoints, pixels of the frame; a keypoint that was not found has
coordinates that are not finite and counts as a miss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.skeletons import plain
from posekit.types import Float32, Skeleton

Float64 = NDArray[np.float64]

DIAGONALS = (("right_shoulder", "left_hip"), ("left_shoulder", "right_hip"))
LEAST_TORSO_PX = 10.0
"""The diagonal of a person in profile nearly vanishes; it counts as at least this, px."""


def errors(
    points: ArrayLike, truth: ArrayLike, visible: ArrayLike, *, reference_lengths: ArrayLike
) -> Float64:
    """Distance of each keypoint from the truth over its person's reference length.

    points, truth: (N, K, 2).  visible: (N, K), above 0 where labeled.  reference_lengths: (N,).
    Returns float64 (N, K): NaN where not labeled or without a length, inf where not found.
    Raises InputError.
    """
    found, true = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    labeled, lengths = np.asarray(visible) > 0, np.asarray(reference_lengths, np.float64)
    if found.shape != true.shape or found.shape[:2] != labeled.shape or found.shape[-1:] != (2,):
        raise InputError(
            f"points {found.shape}, truth {true.shape}, visible {labeled.shape} differ"
        )
    if lengths.shape != found.shape[:1]:
        raise InputError(f"reference_lengths {lengths.shape}: wanted ({len(found)},)")
    usable = np.isfinite(lengths) & (lengths > 0)
    offset = np.where(np.isfinite(found), found, np.inf) - np.where(labeled[:, :, None], true, 0)
    distances = np.hypot(offset[:, :, 0], offset[:, :, 1]) / np.where(usable, lengths, 1)[:, None]
    scaled: Float64 = np.where(labeled & usable[:, None], distances, np.nan)
    return scaled


def pck(
    points: ArrayLike,
    truth: ArrayLike,
    visible: ArrayLike,
    *,
    reference_lengths: ArrayLike,
    thresholds: Sequence[float] | Float64,
) -> Float64:
    """Share of labeled keypoints nearer than each threshold, as a share of the reference length.

    Over all persons and keypoints together; arguments as for `errors`. Returns float64 (T,).
    Raises InputError.
    """
    scaled = errors(points, truth, visible, reference_lengths=reference_lengths)
    return hit_rate(scaled, thresholds)


def hit_rate(scaled: Float64, thresholds: Sequence[float] | Float64) -> Float64:
    """Share of `errors`' values below each threshold, (T,); NaN where there are none."""
    values = np.sort(scaled[~np.isnan(scaled)])
    if not len(values):
        return np.full(len(thresholds), np.nan)
    shares: Float64 = np.searchsorted(values, np.asarray(thresholds), side="left") / len(values)
    return shares


def auc(scaled: Float64, limit: float) -> float:
    """Area under the curve of PCK from 0 to `limit`, over `limit`: 1 is perfect; exact, no bins."""
    values = scaled[~np.isnan(scaled)]
    return float(np.maximum(0, 1 - values / limit).mean()) if len(values) else float("nan")


def nme(scaled: Float64) -> float:
    """Mean error in reference lengths over the keypoints that were found."""
    values = scaled[np.isfinite(scaled)]
    return float(values.mean()) if len(values) else float("nan")


def torso_lengths(truth: Float32, visible: ArrayLike, skeleton: Skeleton) -> Float64:
    """The longer labeled diagonal from shoulder to opposite hip, px, at least 10: (N,).

    NaN where neither diagonal is labeled.
    """
    labeled = np.asarray(visible) > 0
    found = [_span(truth, labeled, skeleton, ends=pair) for pair in DIAGONALS]
    longest = np.fmax(found[0], found[1])
    lengths: Float64 = np.where(np.isnan(longest), np.nan, np.maximum(longest, LEAST_TORSO_PX))
    return lengths


def head_lengths(truth: Float32, visible: ArrayLike, skeleton: Skeleton) -> Float64:
    """From the top of the head to the upper neck (else the neck), px: (N,); NaN without them."""
    labeled = np.asarray(visible) > 0
    upper = _span(truth, labeled, skeleton, ends=("head_top", "upper_neck"))
    lower = _span(truth, labeled, skeleton, ends=("head_top", "neck"))
    lengths: Float64 = np.where(np.isnan(upper), lower, upper)
    return lengths


def _span(
    truth: Float32, labeled: NDArray[np.bool_], skeleton: Skeleton, *, ends: tuple[str, str]
) -> Float64:
    names = [plain(name) for name in skeleton.keypoints]
    if not set(ends) <= set(names):
        return np.full(len(truth), np.nan)
    a, b = names.index(ends[0]), names.index(ends[1])
    offset = truth[:, a].astype(np.float64) - truth[:, b]
    distances: Float64 = np.where(
        labeled[:, a] & labeled[:, b], np.hypot(offset[:, 0], offset[:, 1]), np.nan
    )
    return distances


def reliability(
    probabilities: ArrayLike, hits: ArrayLike, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Mean probability, share of hits and count of equally wide bins, empty ones left out.

    probabilities: (M,), clipped to [0, 1].  hits: (M,), 0 or 1.
    """
    clipped = np.clip(np.asarray(probabilities, np.float64), 0, 1)
    right = np.asarray(hits, np.float64)
    place = np.minimum((clipped * bins).astype(int), bins - 1)
    rows = []
    for each in range(bins):
        inside = place == each
        if inside.any():
            rows.append(
                (float(clipped[inside].mean()), float(right[inside].mean()), int(inside.sum()))
            )
    return rows


def calibration_error(probabilities: ArrayLike, hits: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: |mean probability - share of hits| of bins, weighted by count.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    rows = reliability(probabilities, hits, bins)
    total = sum(count for _, _, count in rows)
    return sum(abs(probability - share) * count for probability, share, count in rows) / max(
        total, 1
    )
