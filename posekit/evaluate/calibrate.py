"""Fitting score -> P(keypoint nearer than 0.1 of the person's size), keypoint by keypoint.

A logistic curve over the logit of the score (Platt, 1999), drawn towards the curve of all
keypoints together where a keypoint has few samples, and where that predicts held-out images
better, followed by one isotonic step for all keypoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.bundle import Bundle
from posekit.errors import DataError
from posekit.evaluate.annotations import Annotations
from posekit.evaluate.metrics import calibration_error, reliability
from posekit.evaluate.score import Evaluation
from posekit.stats.calibration import TOLERANCE, Calibration

Float64 = NDArray[np.float64]

PART = "calibration.json"
FOLDS = 5
LEAST = 200
"""Labeled keypoints, and a tenth of it right and wrong ones, without which nothing is fitted."""

_KNOTS = np.linspace(0.0, 1.0, 41)
_STRENGTHS = (1.0, 10.0, 100.0, np.inf)  # of the pull towards the pooled curve; inf: only that
_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Samples:
    """Predictions that are known to be right or wrong, N persons with K keypoints.

    scores: (N, K).  hits: (N, K), 1 where nearer than the tolerance, 0, NaN where not labeled.
    groups: (N,), the image of each person: folds are made of images.
    """

    scores: Float64
    hits: Float64
    groups: NDArray[np.int64]

    def select(self, rows: NDArray[np.bool_]) -> Samples:
        """The persons that `rows` names."""
        return Samples(self.scores[rows], self.hits[rows], self.groups[rows])

    @property
    def flat(self) -> tuple[Float64, Float64]:
        """Scores and hits of the labeled keypoints, (M,) each."""
        known = ~np.isnan(self.hits)
        return self.scores[known], self.hits[known]


@dataclass(frozen=True)
class Recipe:
    """One way to fit: the pull towards the pooled curve, and whether an isotonic step follows."""

    strength: float
    isotonic: bool


RECIPES = tuple(Recipe(each, step) for each in _STRENGTHS for step in (False, True))


def samples(evaluation: Evaluation, count: int) -> Samples:
    """Scores and hits of an evaluation in the model's own order of `count` keypoints."""
    scores = np.zeros((len(evaluation.persons), count))
    hits = np.full(scores.shape, np.nan)
    distances = evaluation.scaled("size")
    scores[:, evaluation.columns] = evaluation.scores
    hits[:, evaluation.columns] = np.where(np.isnan(distances), np.nan, distances < TOLERANCE)
    return Samples(scores, hits, evaluation.persons.image_of)


def fit(data: Samples, seed: int = 0) -> tuple[Calibration, Recipe]:
    """The recipe that predicts held-out images best (log loss), fitted to all of `data`.

    Raises DataError where there are too few samples.
    """
    _, hits = data.flat
    if len(hits) < LEAST or min(hits.sum(), (1 - hits).sum()) < LEAST / 10:
        raise DataError(
            f"calibration: {len(hits)} labeled keypoints, {int(hits.sum())} of them right; wanted "
            f"{LEAST} or more, {LEAST // 10} of them right and {LEAST // 10} wrong: label more "
            "images"
        )
    losses = [_held_out_loss(data, recipe, seed) for recipe in RECIPES]
    recipe = RECIPES[int(np.argmin(losses))]
    return _fitted(data, recipe), recipe


def cross_fitted(data: Samples, seed: int = 0) -> Float64:
    """Probabilities (N, K) of persons whose images neither the fit nor its recipe used.

    Raises DataError.
    """
    probabilities = np.empty_like(data.scores)
    for fold in _folds(data.groups, seed):
        calibration, _ = fit(data.select(~fold), seed + 1)
        probabilities[fold] = calibration(data.scores[fold].astype(np.float32))
    return probabilities


def summary(probabilities: ArrayLike, data: Samples) -> dict[str, Any]:
    """Expected calibration error, Brier score and reliability of `probabilities` (N, K)."""
    known = ~np.isnan(data.hits)
    values, hits = np.asarray(probabilities, np.float64)[known], data.hits[known]
    return {
        "keypoints": int(known.sum()),
        "ece": round(calibration_error(values, hits), 4),
        "brier": round(float(((np.clip(values, 0, 1) - hits) ** 2).mean()), 4),
        "reliability": [
            {"chance": round(a, 4), "share": round(b, 4), "count": n}
            for a, b, n in reliability(values, hits)
        ],
    }


def calibrated(
    bundle: Bundle, curves: Mapping[str, Calibration], data: Mapping[str, Any]
) -> Bundle:
    """The bundle with a curve for each graph (flip, plain); `data`: what they were fitted to."""
    content = {"data": dict(data), "graphs": {name: c.to_dict() for name, c in curves.items()}}
    part = (json.dumps(content, sort_keys=True) + "\n").encode()
    return dataclasses.replace(bundle, extras={**bundle.extras, PART: part}, sha256="")


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Curves by graph, and the calibration error of raw scores and held-out probabilities."""

    curves: Mapping[str, Calibration]
    report: Mapping[str, Any]


def calibrate(data: Mapping[str, Samples], seed: int = 0) -> Calibrated:
    """Fit each graph's samples; its report comes from persons that the fit did not use.

    Raises DataError.
    """
    curves, report = {}, {}
    for name, each in data.items():
        curves[name], recipe = fit(each, seed)
        report[name] = {
            "raw": summary(each.scores, each),
            "calibrated": summary(cross_fitted(each, seed), each),
            "recipe": {
                "pull": recipe.strength if np.isfinite(recipe.strength) else None,
                "isotonic": recipe.isotonic,
            },
        }
    return Calibrated(curves, report)


def fingerprint(labels: Annotations, file: Path) -> dict[str, Any]:
    """What a fit was made from, for the bundle; `file` is where `labels` were read from."""
    persons = labels.labeled
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "persons": int(persons.sum()),
        "images": len(np.unique(labels.image_of[persons])),
        "boxes": "labelled",
    }


def _folds(groups: NDArray[np.int64], seed: int) -> list[NDArray[np.bool_]]:
    """Which persons each of FOLDS parts of the images holds."""
    names = np.unique(groups)
    order = np.random.default_rng(seed).permutation(names)
    return [np.isin(groups, part) for part in np.array_split(order, FOLDS) if len(part)]


def _held_out_loss(data: Samples, recipe: Recipe, seed: int) -> float:
    total, count = 0.0, 0
    for fold in _folds(data.groups, seed):
        train, held = data.select(~fold), data.select(fold)
        known = ~np.isnan(held.hits)
        probabilities = _fitted(train, recipe)(held.scores.astype(np.float32))[known]
        hits = held.hits[known]
        clipped = np.clip(probabilities.astype(np.float64), 0.005, 0.995)
        total -= float((hits * np.log(clipped) + (1 - hits) * np.log(1 - clipped)).sum())
        count += int(known.sum())
    return total / max(count, 1)


def _fitted(data: Samples, recipe: Recipe) -> Calibration:
    scores, hits = data.flat
    pooled = _logistic(_logit(scores), hits, (0.0, 1.0), strength=1e-3)
    curves = []
    for k in range(data.scores.shape[1]):
        known = ~np.isnan(data.hits[:, k])
        own = pooled
        if np.isfinite(recipe.strength) and known.any():
            x, right = _logit(data.scores[known, k]), data.hits[known, k]
            own = _logistic(x, right, pooled, strength=recipe.strength)
        curves.append(own)
    lines = np.array(curves)
    probabilities = _sigmoid(lines[:, :1] + lines[:, 1:] * _logit(_KNOTS)[None])
    if recipe.isotonic:
        probabilities = np.interp(probabilities, *_steps(lines, data))
    rising = np.maximum.accumulate(np.clip(probabilities, 0, 1), 1)
    return Calibration(_KNOTS.astype(np.float32), rising.astype(np.float32))


def _logistic(
    x: Float64, hits: Float64, prior: tuple[float, float], *, strength: float
) -> tuple[float, float]:
    """a, b of sigmoid(a + b x) with b >= 0, pulled towards `prior` by `strength` samples or so."""
    line = _newton(np.stack([np.ones_like(x), x], 1), hits, np.array(prior), strength=strength)
    if line[1] >= 0:
        return float(line[0]), float(line[1])
    (level,) = _newton(np.ones((len(x), 1)), hits, np.array(prior[:1]), strength=strength)
    return float(level), 0.0


def _newton(columns: Float64, hits: Float64, prior: Float64, *, strength: float) -> Float64:
    """Penalized logistic regression: convex, so Newton's steps, bounded, end at the optimum.

    Not scipy.optimize: equal within 2e-8, but `root` misses the optimum of 1 % of separable
    samples, and `minimize` takes 4 (trust-exact) to 40 times (L-BFGS-B) as long.
    """
    line = prior.copy()
    for _ in range(50):
        probabilities = _sigmoid(columns @ line)
        slope = columns.T @ (probabilities - hits) + strength * (line - prior)
        weights = np.maximum(probabilities * (1 - probabilities), 1e-9)
        bend = (columns.T * weights) @ columns + strength * np.eye(len(line))
        step = np.linalg.solve(bend, slope)
        line = line - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return line


def _steps(lines: Float64, data: Samples) -> tuple[Float64, Float64]:
    """A rising step function of probability, fitted to all keypoints together: its x and y."""
    from scipy.optimize import isotonic_regression

    known = ~np.isnan(data.hits)
    column = np.broadcast_to(np.arange(data.hits.shape[1]), data.hits.shape)[known]
    probabilities = _sigmoid(lines[column, 0] + lines[column, 1] * _logit(data.scores[known]))
    order = np.argsort(probabilities, kind="stable")
    return probabilities[order], np.clip(isotonic_regression(data.hits[known][order]).x, 0.01, 0.99)


def _logit(scores: ArrayLike) -> Float64:
    inside = np.clip(np.asarray(scores, np.float64), _FLOOR, 1 - _FLOOR)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def _sigmoid(z: Float64) -> Float64:
    from scipy.special import expit

    return np.asarray(expit(z), np.float64)
