"""Predictions of a model on the images of annotations, and the labeled person of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posekit.detect import BoxFile
from posekit.evaluate.annotations import Annotations
from posekit.geometry import Warp, oks
from posekit.types import Boxes, Float32, Frame, Int64, ModelSpec, Poses, Skeleton
from posekit.video.images import read_image

Float64 = NDArray[np.float64]

VISIBLE_SCORE = 0.2  # MSRA's in_vis_thre
NMS_OKS = 0.9  # MSRA's oks_thre


class Estimate(Protocol):
    """What `posekit.Estimator` is: a frame and boxes to poses, in the boxes' order."""

    def __call__(self, image: Frame, boxes: Boxes) -> Poses:
        """Keypoints of the persons in `boxes`."""
        ...


@dataclass(frozen=True, eq=False)
class Predictions:
    """P predicted persons.

    image_of: (P,), index among the annotations' images.  person_of: (P,), the labeled person
    whose box was given, or -1.  points, scores: (P, K, 2) frame px, (P, K).  boxes: the crops'.
    """

    skeleton: Skeleton
    image_of: Int64
    person_of: Int64
    points: Float32
    scores: Float32
    boxes: Boxes

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Predictions:
        """The predictions that `index` (integers or booleans) names."""
        return Predictions(
            self.skeleton,
            self.image_of[index],
            self.person_of[index],
            self.points[index],
            self.scores[index],
            self.boxes.select(index),
        )


def predict(
    estimate: Estimate,
    annotations: Annotations,
    find: Callable[[Frame], Boxes] | None = None,
    *,
    skeleton: Skeleton,
    on_image: Callable[[int], None] = lambda _: None,
) -> Predictions:
    """Run a model over all images, in the boxes of labeled persons or those that `find` gives.

    `on_image` gets the number of images done. Raises SourceError.
    """
    labeled = np.flatnonzero(annotations.labeled)
    parts = []
    for index, path in enumerate(annotations.images):
        mine = labeled[annotations.image_of[labeled] == index]
        if find is not None or len(mine):
            frame = Frame(read_image(path), index, name=annotations.image_names[index])
            boxes = annotations.boxes.select(mine)
            if isinstance(find, BoxFile):
                boxes = find.boxes_of(annotations.image_ids[index], frame.name)
            elif find is not None:
                boxes = find(frame)
            persons = mine if find is None else np.full(len(boxes), -1, np.int64)
            if len(boxes):
                parts.append((index, persons, estimate(frame, boxes)))
        on_image(index + 1)
    return _joined(parts, skeleton)


def _joined(parts: list[tuple[int, Int64, Poses]], skeleton: Skeleton) -> Predictions:
    count = len(skeleton)
    none = np.zeros(0, np.int64)
    poses = [each[2] for each in parts]
    return Predictions(
        skeleton,
        np.concatenate([none, *(np.full(len(p), index) for index, _, p in parts)]),
        np.concatenate([none, *(persons for _, persons, _ in parts)]),
        np.concatenate([np.zeros((0, count, 2), np.float32), *(each.points for each in poses)]),
        np.concatenate([np.zeros((0, count), np.float32), *(each.scores for each in poses)]),
        Boxes(
            np.concatenate([np.zeros((0, 4), np.float32), *(each.boxes.xyxy for each in poses)]),
            np.concatenate([np.zeros(0, np.float32), *(each.boxes.scores for each in poses)]),
        ),
    )


def rescore(predictions: Predictions) -> Float64:
    """Box score times the mean keypoint score above 0.2: (P,). Source: MSRA's simple baselines."""
    confident = predictions.scores > VISIBLE_SCORE
    scores = predictions.scores.astype(np.float64)
    total, count = np.where(confident, scores, 0).sum(1), confident.sum(1)
    means = np.divide(total, count, out=np.zeros(len(total)), where=count > 0)
    final: Float64 = predictions.boxes.scores * means
    return final


def oks_nms(predictions: Predictions, ranks: Float64, spec: ModelSpec) -> Int64:
    """Rows that OKS-NMS keeps: no better-ranked one of the image has an OKS above 0.9 with it.

    The size of a person is the mean area of the two crops. Source: MSRA's simple baselines.
    """
    warp = Warp.from_boxes(predictions.boxes, spec)
    width, height = spec.input_size
    areas = width * height / np.linalg.det(warp.matrix[:, :, :2])
    kept: list[int] = []
    for image in np.unique(predictions.image_of):
        rows = np.flatnonzero(predictions.image_of == image)
        left = rows[np.argsort(-ranks[rows], kind="stable")]
        while len(left):
            best, left = int(left[0]), left[1:]
            kept.append(best)
            size = ((areas[best] + areas[left]) / 2).astype(np.float32)
            similarity = oks(
                predictions.points[left],
                predictions.points[best][None],
                size,
                sigmas=predictions.skeleton.sigmas,
            )
            left = left[similarity[:, 0] <= NMS_OKS]
    return np.sort(np.array(kept, np.int64))


def match_persons(
    predictions: Predictions, annotations: Annotations, shared: tuple[Int64, Int64]
) -> Int64:
    """Row of the prediction for each annotated person, or -1: (N,).

    Given boxes know their person; found ones are assigned so that the OKS of an image's persons
    is highest in sum, labeled persons only. `shared`: see `layouts.shared_keypoints`.
    """
    row_of = np.full(len(annotations), -1, np.int64)
    known = np.flatnonzero(predictions.person_of >= 0)
    row_of[predictions.person_of[known]] = known
    if len(known):
        return row_of
    labeled = np.flatnonzero(annotations.labeled)
    for image in np.unique(predictions.image_of):
        persons = labeled[annotations.image_of[labeled] == image]
        rows = np.flatnonzero(predictions.image_of == image)
        for person, row in _assigned(annotations, predictions, shared, persons=persons, rows=rows):
            row_of[person] = row
    return row_of


def _assigned(
    annotations: Annotations,
    predictions: Predictions,
    shared: tuple[Int64, Int64],
    *,
    persons: Int64,
    rows: Int64,
) -> list[tuple[int, int]]:
    from scipy.optimize import linear_sum_assignment

    data, model = shared
    similarity = oks(
        annotations.keypoints[persons][:, data],
        predictions.points[rows][:, model],
        annotations.areas[persons].astype(np.float32),
        sigmas=np.array(annotations.skeleton.sigmas)[data],
        visible=(annotations.visibility[persons][:, data] > 0).astype(np.float32),
    )
    first, second = linear_sum_assignment(-similarity)
    return [
        (int(persons[a]), int(rows[b]))
        for a, b in zip(first, second, strict=True)
        if similarity[a, b] > 0
    ]
