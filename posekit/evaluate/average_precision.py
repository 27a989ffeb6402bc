"""COCO's keypoint AP and AR: pycocotools matches, so the protocol is the official one.

The sums after the matching are done here with a weight for each image, so that bootstrap
intervals cost no second matching; with all weights 1 they equal pycocotools' own.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import MissingExtraError
from posekit.inputs.coco import ImageId
from posekit.types import Int64

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_RANGES = ("all", "medium", "large")
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_medium",
    "AP_large",
    "AR",
    "AR50",
    "AR75",
    "AR_medium",
    "AR_large",
)


@dataclass(frozen=True, eq=False)
class Matched:
    """D detections, best first, against the labels of I images in A = 3 ranges of area.

    image_of: (D,).  hits, ignored: bool (A, T, D), T OKS thresholds.  persons: (A, I), counts.
    """

    image_of: Int64
    hits: Bools
    ignored: Bools
    persons: Int64

    def figures(self, weights: ArrayLike | None = None) -> dict[str, float]:
        """AP and AR by name, each image counted `weights` (I,) times; NaN without persons.

        medium: 32² to 96² px² of person, large: above.
        """
        count = self.persons.shape[1]
        weight = np.ones(count) if weights is None else np.asarray(weights, np.float64)
        precision, recall = self._tables(weight)
        values = [
            *(precision[0].mean(), precision[0, 0], precision[0, 5]),
            *(precision[1].mean(), precision[2].mean()),
            *(recall[0].mean(), recall[0, 0], recall[0, 5], recall[1].mean(), recall[2].mean()),
        ]
        return dict(zip(NAMES, map(float, values), strict=True))

    def _tables(self, weight: Float64) -> tuple[Float64, Float64]:
        """Mean precision over 101 recalls and final recall, each (A, T); NaN without persons."""
        shape = self.hits.shape[:2]
        totals = (self.persons @ weight)[:, None].repeat(shape[1], 1)
        each = np.where(self.ignored, 0, weight[self.image_of])
        right = np.cumsum(each * self.hits, 2)
        wrong = np.cumsum(each, 2) - right
        precision = right / (right + wrong + np.spacing(1))
        best = np.maximum.accumulate(precision[:, :, ::-1], 2)[:, :, ::-1]
        means, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        for a, t in np.argwhere(totals > 0):
            # The first place that reaches each recall; beyond the last one precision is 0.
            recalls = right[a, t] / totals[a, t]
            place = np.searchsorted(recalls, _RECALLS, side="left")
            means[a, t] = np.append(best[a, t], 0.0)[place].mean()
            recall[a, t] = recalls[-1] if len(recalls) else 0.0
        return means, recall


def match(
    truth: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    image_ids: Sequence[ImageId],
    *,
    sigmas: Sequence[float],
) -> Matched:
    """Match results with labels, both as COCO's dicts with K keypoints; sigmas: (K,).

    Images are numbered for pycocotools, which sorts ids and wants all of one type.
    Raises MissingExtraError without pycocotools.
    """
    place = {key: n for n, key in enumerate(image_ids)}
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise MissingExtraError("AP needs pycocotools: pip install 'posekit[eval]'") from error
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        labels = COCO()
        labels.dataset = {
            "images": [{"id": n} for n in range(len(place))],
            "annotations": [{**each, "image_id": place[each["image_id"]]} for each in truth],
            "categories": [{"id": 1, "name": "person"}],
        }
        labels.createIndex()
        rows = [{**each, "image_id": place[each["image_id"]]} for each in results]
        found = labels.loadRes(rows) if rows else COCO()
        evaluator = COCOeval(labels, found, "keypoints")
        evaluator.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluator.params.imgIds = list(range(len(place)))
        evaluator.evaluate()
    return _matched(evaluator.evalImgs, len(image_ids))


def _matched(found: Sequence[Mapping[str, Any] | None], count: int) -> Matched:
    """pycocotools' matches, which come by range and then by image, as arrays."""
    rows = [found[a * count : (a + 1) * count] for a in range(len(_RANGES))]
    persons = np.zeros((len(_RANGES), count), np.int64)
    hits, ignored = [], []
    empty = np.zeros((len(THRESHOLDS), 0), bool)
    for a, row in enumerate(rows):
        persons[a] = [0 if r is None else int((np.asarray(r["gtIgnore"]) == 0).sum()) for r in row]
        hits.append(np.concatenate([empty, *(r["dtMatches"] > 0 for r in row if r)], 1))
        ignored.append(np.concatenate([empty, *(r["dtIgnore"] > 0 for r in row if r)], 1))
    scores = [[] if r is None else r["dtScores"] for r in rows[0]]
    image_of = np.repeat(np.arange(count), [len(each) for each in scores])
    order = np.argsort(-np.concatenate([[], *scores]), kind="mergesort")
    return Matched(
        image_of[order], np.stack(hits)[:, :, order], np.stack(ignored)[:, :, order], persons
    )
