"""Images of the held-out persons whose joints moved, before and after."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit.drawing.draw import DrawStyle, draw
from posekit.output import html
from posekit.types import Boxes, Float32, Int64, Poses, UInt8
from posekit_finetune.assess.indicators import (
    FAINT_PEAK,
    NEAR,
    Indicators,
    body_keypoints,
    clipped_distance,
)
from posekit_finetune.data.persons import Persons

SHOWN = 10
"""Maximum number of persons shown."""

_SIDE_PX, _GAP_PX = 400, 8
_OLD, _NEW = (218, 54, 51), (26, 160, 60)
_STYLE = DrawStyle(min_score=FAINT_PEAK, boxes=False, ids=False)


@dataclass(frozen=True, eq=False)
class Movement:
    """Which body joints moved, and how far.

    joints: bool (n, K), moved by NEAR of the crop or more, and detected before or after.
    distances: (n, K), share of the crop, clipped.  order: persons with a moved joint, the largest
    sum of distances first.
    """

    joints: NDArray[np.bool_]
    distances: NDArray[np.float64]
    order: Int64


def movement(before: Indicators, after: Indicators) -> Movement:
    """What moved between two networks on the same persons."""
    distances = clipped_distance(after.points, before.points, before.side)
    body = np.isin(np.arange(distances.shape[1]), body_keypoints(before.skeleton))
    detected = np.maximum(before.scores, after.scores) >= FAINT_PEAK
    joints: NDArray[np.bool_] = np.asarray(distances >= NEAR, np.bool_)
    joints &= np.asarray(detected & body, np.bool_)
    total = np.where(joints, distances, 0).sum(1)
    order = np.argsort(-total, kind="stable")
    moved = np.asarray(joints.any(axis=1))
    return Movement(joints, distances, order[moved[order]].astype(np.int64))


def section(before: Indicators, after: Indicators, persons: Persons) -> list[str]:
    """The heading, what the images show, and the figures, the largest movement first."""
    moved = movement(before, after)
    count = len(moved.order)
    parts = [html.heading("Persons whose joints moved")]
    if not count:
        text = f"No detected joint of the {len(before)} held-out persons moved by {NEAR:.0%}"
        return [*parts, html.paragraph(f"{text} of the crop or more.")]
    shown = moved.order[:SHOWN]
    first = "" if count <= SHOWN else f" The {SHOWN} that moved most are shown."
    text = (
        f"{count} of the {len(before)} held-out persons have a joint that moved by {NEAR:.0%} of "
        f"the crop or more.{first} Left: before, moved joints ringed in red. Right: after, ringed "
        "in green, with a line from the old place. These images have no labels: whether a joint "
        "moved to the right place is for you to see."
    )
    crops = persons.crops(before.rows[shown])
    figures = []
    for n, crop in zip(shown.tolist(), crops, strict=True):
        image = _side_by_side(crop, (before, after), n, joints=moved.joints[n])
        name = persons.sources[int(before.rows[n])]
        figures.append(html.figure(image, f"{name}: {_caption(moved, n, before)}"))
    return [*parts, html.paragraph(text), html.grid(figures)]


def _caption(moved: Movement, n: int, before: Indicators) -> str:
    joints = np.flatnonzero(moved.joints[n])
    joints = joints[np.argsort(-moved.distances[n, joints], kind="stable")]
    names = [before.skeleton.keypoints[k].replace("_", " ") for k in joints[:4].tolist()]
    more = f" and {len(joints) - 4} more" if len(joints) > 4 else ""
    word = "joint" if len(joints) == 1 else "joints"
    return f"{len(joints)} {word} moved: {', '.join(names)}{more}"


def _side_by_side(
    crop: UInt8, both: tuple[Indicators, Indicators], n: int, *, joints: NDArray[np.bool_]
) -> UInt8:
    """The crop twice, enlarged, with the poses of before and after and the moved joints ringed."""
    scale = _SIDE_PX / crop.shape[0]
    size = (round(crop.shape[1] * scale), _SIDE_PX)
    image = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    box = Boxes(np.array([[0, 0, size[0] - 1, size[1] - 1]], np.float32))
    places = [((each.points[n] + 0.5) * scale - 0.5).astype(np.float32) for each in both]
    drawn = []
    for each, points in zip(both, places, strict=True):
        poses = Poses(points[None], each.scores[n : n + 1], box, each.skeleton)
        drawn.append(np.ascontiguousarray(draw(image, poses, style=_STYLE)))
    _ring(drawn[0], places[0][joints], _OLD)
    for old, new in zip(places[0][joints], places[1][joints], strict=True):
        cv2.line(drawn[1], _pixel(old), _pixel(new), _NEW, 2, cv2.LINE_AA)
    _ring(drawn[1], places[1][joints], _NEW)
    gap = np.full((_SIDE_PX, _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([drawn[0], gap, drawn[1]], 1)


def _ring(image: UInt8, points: Float32, color: tuple[int, int, int]) -> None:
    for point in points:
        cv2.circle(image, _pixel(point), 11, (255, 255, 255), 4, cv2.LINE_AA)
        cv2.circle(image, _pixel(point), 11, color, 2, cv2.LINE_AA)


def _pixel(point: Float32) -> tuple[int, int]:
    x, y = np.clip(np.round(point), -1e4, 1e4)
    return int(x), int(y)
