"""From predictions and annotations to the figures of `posekit eval`."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.evaluate import metrics
from posekit.evaluate.annotations import Annotations
from posekit.evaluate.average_precision import NAMES, Matched, match
from posekit.evaluate.keypoint_names import shared_keypoints
from posekit.evaluate.predict import Predictions, match_persons, oks_nms, rescore
from posekit.geometry import oks
from posekit.skeletons import plain
from posekit.stats.bootstrap import draws, interval, mean_interval, paired_bootstrap
from posekit.types import Float32, Int64, ModelSpec

Float64 = NDArray[np.float64]

CURVE = np.round(np.arange(0.01, 0.5001, 0.01), 2)
HEADLINES = {
    "PCK@0.2 torso": ("torso", 0.2),
    "PCK@0.1 torso": ("torso", 0.1),
    "PCK@0.1 box": ("box", 0.1),
    "PCK@0.05 box": ("box", 0.05),
    "PCKh@0.5": ("head", 0.5),
    "PCKh@0.1": ("head", 0.1),
}
AUC_LIMIT = 0.5
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions beside the labels, for the S keypoints that model and data share.

    persons: the N labeled persons.  keypoints: S names.  points: (N, S, 2) frame px, inf where
    no person was found.  scores: (N, S), 0 there.  similarity: OKS (N,).
    lengths: (N,) by name: torso, box, head (px; NaN where unknown).  matched: for AP.
    unused: keypoints that only one of the two has.  columns: (S,), their places in the model.
    """

    persons: Annotations
    keypoints: tuple[str, ...]
    points: Float32
    scores: Float32
    similarity: Float32
    lengths: dict[str, Float64]
    matched: Matched
    unused: tuple[str, ...]
    columns: Int64
    seed: int = 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which persons were found at all, (N,)."""
        return np.asarray(np.isfinite(self.points).all(axis=(1, 2)), np.bool_)

    def scaled(self, length: str) -> Float64:
        """`measures.errors` (N, S) by one of `lengths`."""
        truth, visible = self.persons.keypoints, self.persons.visibility
        lengths = self.lengths[length]
        return metrics.errors(self.points, truth, visible, reference_lengths=lengths)

    def figures(self) -> dict[str, Any]:
        """All that `posekit eval --json` reports of one model; undefined figures are None."""
        table: dict[str, Any] = {
            "persons": len(self.persons),
            "found": int(self.found.sum()),
            "images": len(self.persons.images),
            "data": self.persons.name,
            "keypoints": list(self.keypoints),
            "unused_keypoints": list(self.unused),
            "metrics": self._metrics(),
            "per_keypoint": self._per_keypoint(),
            "by_size": {name: self._subset(rows) for name, rows in self._sizes().items()},
            "by_visibility": self._by_visibility(),
            "curves": self._curves(),
        }
        cleaned: dict[str, Any] = _clean(table)
        return cleaned

    def hits(self, name: str) -> Float64:
        """One of HEADLINES for each keypoint, (N, S): 1, 0 or NaN."""
        length, threshold = HEADLINES[name]
        return _hits(self.scaled(length), threshold)

    def samples(self) -> dict[str, Float64]:
        """What each headline is the mean of, (N, S) or (N,): for intervals and pairs."""
        rows = {name: self.hits(name) for name in HEADLINES}
        for length in self.lengths:
            area = np.maximum(0, 1 - self.scaled(length) / AUC_LIMIT)
            rows[f"AUC {length}"] = np.where(np.isnan(self.scaled(length)), np.nan, area)
        rows["OKS"] = self.similarity.astype(np.float64)
        return {name: values for name, values in rows.items() if not np.isnan(values).all()}

    @functools.cached_property
    def average_precision(self) -> dict[str, Float64]:
        """AP and AR by name in each round of the bootstrap, (rounds,), the real one first."""
        weights = draws(self.matched.persons.shape[1], self.seed)
        rows = [self.matched.figures(), *(self.matched.figures(each) for each in weights)]
        return {name: np.array([row[name] for row in rows]) for name in NAMES}

    def _metrics(self) -> dict[str, list[float]]:
        """[value, low, high] by name."""
        table = {
            name: [float(values[0]), *interval(values[1:])]
            for name, values in self.average_precision.items()
        }
        for name, values in self.samples().items():
            table[name] = list(mean_interval(values, self.persons.image_of, self.seed))
        found = self.scaled("size")
        found[np.isinf(found)] = np.nan  # the mean error of what was found
        if not np.isnan(found).all():
            table["NME size"] = list(mean_interval(found, self.persons.image_of, self.seed))
        return table

    def _per_keypoint(self) -> dict[str, dict[str, float]]:
        hits = {name: self.hits(name) for name in HEADLINES}
        nme = self.scaled("size")
        return {
            keypoint: {
                "labelled": int((self.persons.visibility[:, k] > 0).sum()),
                **{name: _mean(values[:, k]) for name, values in hits.items()},
                "NME size": metrics.nme(nme[:, k]),
            }
            for k, keypoint in enumerate(self.keypoints)
        }

    def _sizes(self) -> dict[str, NDArray[np.bool_]]:
        areas = self.persons.areas
        return {name: (areas >= low) & (areas < high) for name, (low, high) in SIZES.items()}

    def _subset(self, rows: NDArray[np.bool_]) -> dict[str, float]:
        return {
            "persons": int(rows.sum()),
            **{name: _mean(values[rows]) for name, values in self.samples().items()},
        }

    def _by_visibility(self) -> dict[str, dict[str, float]]:
        visibility = self.persons.visibility
        return {
            name: {
                "keypoints": int((visibility == value).sum()),
                **{
                    headline: _mean(np.where(visibility == value, self.hits(headline), np.nan))
                    for headline in HEADLINES
                },
            }
            for name, value in (("visible", 2), ("hidden", 1))
        }

    def _curves(self) -> dict[str, Any]:
        curves = {n: metrics.hit_rate(self.scaled(n), CURVE).tolist() for n in self.lengths}
        return {"thresholds": CURVE.tolist(), **curves}


def score(
    predictions: Predictions, annotations: Annotations, spec: ModelSpec, *, seed: int = 0
) -> Evaluation:
    """Compare predictions with labels, on the keypoints that both have.

    AP: MSRA's rescoring and OKS-NMS, then COCO's protocol. Everything else: the prediction for each
    labeled person, a miss where there is none. Raises InputError, MissingExtraError.
    """
    shared = shared_keypoints(annotations.skeleton, spec.skeleton)
    persons = annotations.labeled & (annotations.visibility[:, shared[0]] > 0).any(1)
    if not persons.any():
        raise InputError("no labeled person has a keypoint that the model knows")
    row_of = match_persons(predictions, annotations, shared)[persons]
    mine = _narrowed(annotations.select(persons), shared[0])
    points = np.full((len(mine), len(shared[0]), 2), np.inf, np.float32)
    scores = np.zeros(points.shape[:2], np.float32)
    found = row_of >= 0
    points[found] = predictions.points[row_of[found]][:, shared[1]]
    scores[found] = predictions.scores[row_of[found]][:, shared[1]]
    return Evaluation(
        persons=mine,
        keypoints=mine.skeleton.keypoints,
        points=points,
        scores=scores,
        similarity=_similarity(points, mine),
        lengths=_lengths(annotations.select(persons)),
        matched=_match(predictions, annotations, spec, shared=shared),
        unused=_unused(annotations, spec),
        columns=shared[1],
        seed=seed,
    )


def _unused(annotations: Annotations, spec: ModelSpec) -> tuple[str, ...]:
    data, model = annotations.skeleton.keypoints, tuple(map(plain, spec.skeleton.keypoints))
    return tuple(n for n in (*data, *model) if (n in data) != (n in model))


def _narrowed(annotations: Annotations, index: Int64) -> Annotations:
    """The same persons with the keypoints of `index` only; bones and mirror pairs are dropped."""
    old = annotations.skeleton
    skeleton = dataclasses.replace(
        old,
        keypoints=tuple(old.keypoints[k] for k in index),
        bones=(),
        mirror=tuple(range(len(index))),
        sigmas=tuple(old.sigmas[k] for k in index),
    )
    return dataclasses.replace(
        annotations,
        skeleton=skeleton,
        keypoints=annotations.keypoints[:, index],
        visibility=annotations.visibility[:, index],
    )


def _similarity(points: Float32, persons: Annotations) -> Float32:
    """OKS of each person's prediction with its own labels, (N,)."""
    visible = (persons.visibility > 0).astype(np.float32)
    distant, areas = np.where(np.isfinite(points), points, 1e9), persons.areas.astype(np.float32)
    rows = [
        oks(
            persons.keypoints[n : n + 1],
            distant[n : n + 1],
            areas[n : n + 1],
            sigmas=persons.skeleton.sigmas,
            visible=visible[n : n + 1],
        )
        for n in range(len(points))
    ]
    return np.concatenate(rows)[:, 0]


def _lengths(persons: Annotations) -> dict[str, Float64]:
    """Reference lengths (N,): see `Evaluation`. PCKh's head is 0.6 of the head box's diagonal
    where the data has one, else from its top to the neck.
    """
    truth, visibility, skeleton = persons.keypoints, persons.visibility, persons.skeleton
    sides = persons.boxes.xyxy[:, 2:] - persons.boxes.xyxy[:, :2]
    by_points = metrics.head_lengths(truth, visibility, skeleton)
    return {
        "torso": metrics.torso_lengths(truth, visibility, skeleton),
        "box": sides.max(1).astype(np.float64),
        "head": np.where(np.isnan(persons.head_sizes), by_points, persons.head_sizes),
        "size": persons.sizes.astype(np.float64),
    }


def _match(
    predictions: Predictions,
    annotations: Annotations,
    spec: ModelSpec,
    *,
    shared: tuple[Int64, Int64],
) -> Matched:
    ranks = rescore(predictions)
    kept = oks_nms(predictions, ranks, spec)
    truth = coco_truth(_narrowed(annotations, shared[0]))
    found = coco_results(predictions.select(kept), ranks[kept], annotations, columns=shared[1])
    sigmas = [annotations.skeleton.sigmas[k] for k in shared[0]]
    return match(truth, found, annotations.image_ids, sigmas=sigmas)


def coco_truth(annotations: Annotations) -> list[dict[str, Any]]:
    """Labels as COCO's dicts, crowds and persons without keypoints included: those are ignored."""
    corner, size = _corners(annotations.boxes.xyxy)
    flags = annotations.visibility[:, :, None]
    flat = np.concatenate([annotations.keypoints, flags], 2, dtype=np.float64)
    return [
        {
            "id": n + 1,  # pycocotools takes 0 for unmatched
            "image_id": annotations.image_ids[annotations.image_of[n]],
            "category_id": 1,
            "keypoints": flat[n].ravel().tolist(),
            "num_keypoints": int((flags[n] > 0).sum()),
            "bbox": [*corner[n], *size[n]],
            "area": float(annotations.areas[n]),
            "iscrowd": int(annotations.crowds[n]),
        }
        for n in range(len(annotations))
    ]


def coco_results(
    predictions: Predictions, ranks: Float64, annotations: Annotations, *, columns: Int64
) -> list[dict[str, Any]]:
    """COCO's results with the keypoints of `columns`; `ranks` (P,) are the scores."""
    points, scores = predictions.points[:, columns], predictions.scores[:, columns, None]
    flat = np.concatenate([points, scores], 2, dtype=np.float64)
    return [
        {
            "image_id": annotations.image_ids[predictions.image_of[n]],
            "category_id": 1,
            "keypoints": flat[n].ravel().tolist(),
            "score": float(ranks[n]),
        }
        for n in range(len(flat))
    ]


def _corners(xyxy: Float32) -> tuple[list[list[float]], list[list[float]]]:
    return xyxy[:, :2].tolist(), (xyxy[:, 2:] - xyxy[:, :2]).tolist()


def compared(b: Evaluation, a: Evaluation) -> dict[str, Any]:
    """Each figure of `b` minus that of `a` on the same persons: [difference, low, high] by name.

    Both are drawn with the same images in each round of the bootstrap. Raises InputError.
    """
    if a.keypoints != b.keypoints or len(a.persons) != len(b.persons):
        raise InputError(
            f"the two models are measured on other keypoints or persons: {len(a.keypoints)} and "
            f"{len(b.keypoints)} keypoints, {len(a.persons)} and {len(b.persons)} persons"
        )
    first, second = a.average_precision, b.average_precision
    table: dict[str, Any] = {}
    for name in NAMES:
        difference = second[name] - first[name]
        table[name] = [float(difference[0]), *interval(difference[1:])]
    old, new, groups = a.samples(), b.samples(), a.persons.image_of
    for name in old:
        table[name] = list(paired_bootstrap(old[name], new[name], groups, seed=a.seed))
    cleaned: dict[str, Any] = _clean(table)
    return cleaned


def _hits(scaled: Float64, threshold: float) -> Float64:
    hits: Float64 = np.where(np.isnan(scaled), np.nan, scaled < threshold)
    return hits


def _mean(values: Float64) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _clean(value: Any) -> Any:
    """NaN as None and six digits, so that it is JSON and lines stay short."""
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
