"""Tracking: poses of one frame after the other get ids, and give the boxes of the next.

Written here because no kept library fits: norfair (BSD-3) knows keypoints but counts frames, not
seconds, and caps rich below 15; trackers (Apache-2.0) knows boxes only and installs opencv-python
over the headless one; boxmot is AGPL. All of them only label what a detector found; this one also
gives boxes between two detections.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.geometry import box_iou, oks
from posekit.types import Boxes, Float32, Int64, Poses, Skeleton

Bools = NDArray[np.bool_]
Table = NDArray[np.void]


@dataclass(frozen=True)
class TrackOptions:
    """When a pose is a person, the same person, or gone. A pose's strength is the mean score
    of its better half of keypoints: persons half outside the image stay strong.
    """

    keep_strength: float = 0.25
    """A weaker pose is not a person. MoveNet: empty ground, median 0.12-0.19; persons, > 0.55."""
    start_strength: float = 0.4
    """A person earns an id with a pose this strong (empty ground: 90th percentile 0.36-0.42)."""
    confident_strength: float = 0.5
    """A pose this strong needs no further proof (empty ground: 95th percentile 0.41-0.52)."""
    visible: float = 0.2
    """Keypoints scored below this do not count for the body's extent."""
    min_hits: int = 3
    """Frames in which a person of lower strength must be found before it gets an id."""
    max_age_s: float = 1.0
    """A person not found for longer is gone; found again sooner, the id stays (ByteTrack: 1 s)."""
    tentative_age_s: float = 0.2
    """The same for someone who has no id yet."""
    gate: float = 0.25
    """The least similarity, mean of OKS and box IoU, of a pose and the track that it continues."""
    slack: float = 2.0
    """OKS of a prediction allows distances this many times larger than COCO's of a labeller."""
    same_oks: float = 0.5
    """Two poses at least this alike are one person in two crops: the stronger is kept."""
    same_iou: float = 0.7
    """Two boxes at least this alike are one place: one without a detection is dropped."""
    match_iou: float = 0.3
    """A detection continues a track whose predicted box overlaps it at least this much."""
    box_score_half_life_s: float = 0.5
    """Detections that miss a track halve its box score in this time."""
    min_box_score: float = 0.15
    """A track whose box score fell below this ends, unless its pose is confident."""
    memory_half_life_s: float = 0.15
    """An undetected keypoint's last place counts half as much after this time."""
    velocity_s: float = 0.15
    """Time constant of the body's velocity."""
    coast_s: float = 1.0
    """Time constant with which the velocity of a person out of sight dies away."""
    grow_s: float = 0.05
    """Time constant of a box edge that moves outward: a limb must not be cut off."""
    shrink_s: float = 0.3
    """Time constant of a box edge that moves inward: a limb lost for a moment comes back."""
    margin: float = 0.08
    """From the outermost keypoints to a detector's box, share of the longer side (0.05-0.10)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"tracking: {field.name} must be above 0, got {value}")


def _layout(count: int) -> np.dtype[np.void]:
    """One row of the tracks' table, for skeletons of `count` keypoints."""
    return np.dtype(
        [
            ("id", np.int64),  # 0 until it has earned one
            ("points", np.float32, (count, 2)),  # each keypoint, or where the body carried it since
            ("weights", np.float32, (count,)),  # score, decaying while undetected
            ("velocity", np.float32, (2,)),  # px/s of the body
            ("box", np.float32, (4,)),
            ("used", np.float32, (4,)),  # the box in which it was found last
            ("box_score", np.float32),  # fades where detections miss it
            ("strength", np.float32),  # of the last pose
            ("hits", np.int64),  # frames in which it was found
            ("found_s", np.float64),  # when it was found last
            ("row", np.int64),  # its row in the poses of the last update, -1 where it was missed
        ]
    )


class Tracker:
    """Gives persons ids over the frames of one video, and the boxes of the next frame.

    Between detections a box follows its person's keypoints. Ids start at 1 and are never reused;
    a step back in time or a pause above `max_age_s` starts anew. It counts in seconds, so frame
    rate, skipped and uneven frames do not matter.
    """

    def __init__(self, skeleton: Skeleton, *, options: TrackOptions | None = None) -> None:
        self.skeleton = skeleton
        self.options = TrackOptions() if options is None else options
        self._tracks = np.zeros(0, _layout(len(skeleton)))
        self._time_s = self._detected_s = -math.inf
        self._next_id = 1
        self._frame_size: tuple[int, int] | None = None

    def enter(self, frame_size: tuple[int, int]) -> None:
        """Frames of `frame_size` (W, H) come next: where it is new, all tracks end; ids go on.

        What is remembered is in the pixels of the frames before.
        """
        if frame_size != self._frame_size:
            self._tracks = self._tracks[:0]
        self._frame_size = frame_size

    def boxes(
        self, time_s: float, detected: Boxes | None = None, detected_s: float | None = None
    ) -> Boxes:
        """The boxes at `time_s`, changing nothing: tracks, moved on, then new detections.

        detected: what a detector found at `detected_s` (None: in this frame); None: it was not run.
        A box's score is the detector's, or what is left of the track's last one. Asking for
        several frames ahead of `update` is fine: boxes follow the last known velocity.
        Raises InputError for a time that is not finite.
        """
        found_s = time_s if detected is None or detected_s is None else detected_s
        tracks = self._at(found_s, detected=detected is not None)
        boxes = Boxes(tracks["box"], tracks["box_score"])
        if detected is None:
            if (tracks["row"] >= 0).all():
                return boxes
            detected = Boxes(np.zeros((0, 4), np.float32))
        rows, columns = _assign(box_iou(boxes, detected), self.options.match_iou)
        _anchor(boxes, rows, detected.select(columns))
        boxes.xyxy[:] += self._displacement(tracks["velocity"], time_s - found_s)
        fresh = detected.select(_others(columns, len(detected)))
        candidates = np.concatenate([tracks["row"] < 0, np.ones(len(fresh), bool)])
        candidates[rows] = False
        boxes = Boxes(
            np.concatenate([boxes.xyxy, fresh.xyxy]), np.concatenate([boxes.scores, fresh.scores])
        )
        return boxes.select(
            _non_duplicates(box_iou(boxes, boxes), candidates, self.options.same_iou)
        )

    def update(self, poses: Poses, time_s: float, *, detected: bool) -> Poses:
        """The persons among `poses` with their ids, lowest id first; remembers them.

        poses: what was found in `boxes(time_s, ...)`, or in any other boxes.
        detected: whether a detection took part in these boxes; tracks that it missed fade.
        Poses that are not a person, duplicates and persons still without an id are left out.
        Raises InputError for another skeleton or a time that is not finite.
        """
        if poses.skeleton.keypoints != self.skeleton.keypoints:
            got, wanted = poses.skeleton.name, self.skeleton.name
            raise InputError(f"tracking: got poses of skeleton {got}, wanted {wanted}")
        tracks = self._at(time_s, detected=detected)
        found = _from_poses(poses, time_s, self.options)
        rows, columns = _assign(self._similarity(tracks, found), self.options.gate)
        tracks["row"] = -1
        tracks[rows] = self._merged(tracks[rows], found[columns], detected=detected)
        born = found[_others(columns, len(found))]
        if detected:
            born["box"] = born["used"]
        else:
            born = born[born["strength"] >= self.options.confident_strength]
        tracks = np.concatenate([tracks, born])
        tracks = tracks[self._alive(tracks, time_s)]
        self._assign_ids(tracks, detected=detected)
        self._tracks, self._time_s = tracks, time_s
        self._detected_s = time_s if detected else self._detected_s
        shown = tracks[(tracks["row"] >= 0) & (tracks["id"] > 0)]
        shown = shown[np.argsort(shown["id"])]
        return dataclasses.replace(poses.select(shown["row"]), ids=shown["id"])

    def _at(self, time_s: float, *, detected: bool) -> Table:
        """The tracks as expected at `time_s`, a copy; none where that is too far on, or back."""
        if not math.isfinite(time_s):
            raise InputError(f"tracking: time_s must be a finite number of seconds, got {time_s}")
        options, tracks = self.options, self._tracks.copy()
        step = time_s - self._time_s
        if not 0 <= step <= options.max_age_s:
            return tracks[:0]
        way = self._displacement(tracks["velocity"], step)
        tracks["points"] += way[:, None, :2]
        tracks["box"] += way
        tracks["velocity"] *= math.exp(-step / options.coast_s)
        tracks["weights"] *= 0.5 ** (step / options.memory_half_life_s)
        if detected and math.isfinite(self._detected_s):
            since = time_s - self._detected_s
            tracks["box_score"] *= 0.5 ** (since / options.box_score_half_life_s)
        return tracks

    def _displacement(self, velocity: Float32, step_s: float) -> Float32:
        """How far boxes (N, 4) with this velocity (N, 2) go in a step.

        A velocity dies away exponentially: two steps lead where one long one does.
        """
        coast_s = self.options.coast_s
        way: Float32 = np.tile(velocity * (coast_s * -math.expm1(-step_s / coast_s)), 2)
        return way

    def _similarity(self, tracks: Table, found: Table) -> Float32:
        """How well each pose continues each track, (T, N): the mean of OKS and box IoU."""
        near = _oks(tracks, found, self.skeleton, slack=self.options.slack)
        return np.float32(0.5) * (near + box_iou(Boxes(tracks["box"]), Boxes(found["box"])))

    def _merged(self, tracks: Table, found: Table, *, detected: bool) -> Table:
        """Tracks and the poses that continue them, row by row.

        A box starts from where it was predicted, or, with a detection in it, from where the
        person was found, and each edge goes some of the way to the keypoints' extent.
        """
        options, merged = self.options, found.copy()
        age = np.maximum(found["found_s"] - tracks["found_s"], 1e-3)[:, None]
        # The first steps average, so that a new track knows its velocity at once.
        gain = np.maximum(_gain(age, options.velocity_s), 1 / (tracks["hits"][:, None] + 1))
        # Had it coasted at this speed since it was found, it would have moved on at `coasted`.
        speed = tracks["velocity"] * np.exp(age / options.coast_s)
        coasted = speed * _gain(age, options.coast_s) * options.coast_s / age
        merged["velocity"] = speed + gain * (coasted + _shift(tracks, found) / age - speed)
        better = found["weights"] >= tracks["weights"]
        merged["points"] = np.where(better[..., None], found["points"], tracks["points"])
        merged["weights"] = np.where(better, found["weights"], tracks["weights"])
        anchor = found["used"] if detected else tracks["box"]
        move = _extent(merged["points"], merged["weights"], anchor, options=options) - anchor
        outward = move * np.array([-1, -1, 1, 1]) > 0
        edge_s = np.where(outward, options.grow_s, options.shrink_s)
        merged["box"] = anchor + _gain(age, edge_s) * move
        merged["box_score"] = (found if detected else tracks)["box_score"]
        merged["id"], merged["hits"] = tracks["id"], tracks["hits"] + 1
        return merged

    def _alive(self, tracks: Table, time_s: float) -> Bools:
        """Which were found recently, and are supported by a detector or a confident pose."""
        options = self.options
        limit = np.where(tracks["id"] > 0, options.max_age_s, options.tentative_age_s)
        backed = tracks["box_score"] >= options.min_box_score
        backed |= tracks["strength"] >= options.confident_strength
        alive: Bools = (time_s - tracks["found_s"] <= limit) & backed
        return alive

    def _assign_ids(self, tracks: Table, *, detected: bool) -> None:
        """Write ids for those that earned one: found often enough, or detected and confident."""
        options = self.options
        earned = tracks["hits"] >= options.min_hits
        earned &= tracks["strength"] >= options.start_strength
        if detected:
            earned |= tracks["strength"] >= options.confident_strength
        rows = np.flatnonzero(earned & (tracks["id"] == 0) & (tracks["row"] >= 0))
        tracks["id"][rows] = self._next_id + np.arange(len(rows))
        self._next_id += len(rows)


def strength_of(poses: Poses) -> Float32:
    """Confidence that each pose is a person, (N,): the mean score of its better half of keypoints.

    Persons half outside the image stay strong.
    """
    half = (poses.scores.shape[1] + 1) // 2
    strength: Float32 = np.sort(poses.scores, 1)[:, -half:].mean(1)
    return strength


def _from_poses(poses: Poses, time_s: float, options: TrackOptions) -> Table:
    """Each pose that is a person, strongest first, once: as a track that begins here."""
    strength = strength_of(poses)
    rows = np.argsort(-strength, kind="stable")
    rows = rows[strength[rows] >= options.keep_strength]
    found = np.zeros(len(rows), _layout(len(poses.skeleton)))
    found["points"], found["weights"] = poses.points[rows], poses.scores[rows]
    found["used"], found["box_score"] = poses.boxes.xyxy[rows], poses.boxes.scores[rows]
    found["box"] = _extent(found["points"], found["weights"], found["used"], options=options)
    found["strength"], found["row"] = strength[rows], rows
    found["hits"], found["found_s"] = 1, time_s
    if len(found) < 2:
        return found
    alike = _oks(found, found, poses.skeleton, slack=1.0)
    return found[_non_duplicates(alike, np.ones(len(found), bool), options.same_oks)]


def _oks(tracks: Table, found: Table, skeleton: Skeleton, *, slack: float) -> Float32:
    """OKS of every pair, (T, N), with distances divided by `slack`; both must see a keypoint."""
    area = _area(tracks) * slack**2
    both = tracks["weights"][:, None] * found["weights"][None]
    return oks(tracks["points"], found["points"], area, sigmas=skeleton.sigmas, visible=both)


def _area(tracks: Table) -> Float32:
    box = tracks["box"]
    area: Float32 = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return area


def _extent(
    points: Float32, scores: Float32, fallback: Float32, *, options: TrackOptions
) -> Float32:
    """The box (N, 4) around the visible keypoints, with the margin that detectors leave.

    `fallback` (N, 4) where there are none, or all in one place.
    """
    visible = (scores >= options.visible)[..., None]
    low = np.where(visible, points, np.inf).min(1)
    high = np.where(visible, points, -np.inf).max(1)
    side = (high - low).max(1)[:, None]
    pad = options.margin * side
    return np.where(side >= 1, np.concatenate([low - pad, high + pad], 1), fallback)


def _shift(tracks: Table, found: Table) -> Float32:
    """How far each body moved beyond its prediction, px (N, 2): a mean over keypoints.

    Keypoints that moved much more than a tenth of the body's size (swinging limbs, mistakes)
    count little.
    """
    move = found["points"] - tracks["points"]
    limit = np.maximum(0.01 * _area(tracks), 1e-6)[:, None]
    trust = tracks["weights"] * found["weights"] / (1 + (move**2).sum(2) / limit)
    total = np.maximum(trust.sum(1), 1e-6)[:, None]
    shift: Float32 = (trust[..., None] * move).sum(1) / total
    return shift


def _gain(step_s: Any, constant_s: Any) -> Any:
    """How much of the way to its target a quantity with this time constant goes in a step."""
    return -np.expm1(-step_s / constant_s)


def _anchor(boxes: Boxes, rows: Int64, detected: Boxes) -> None:
    """Move the boxes in `rows` toward their detections, the further the higher these score."""
    weight = detected.scores[:, None]
    boxes.xyxy[rows] += weight * (detected.xyxy - boxes.xyxy[rows])
    boxes.scores[rows] = np.maximum(boxes.scores[rows], detected.scores)


def _assign(similarity: Float32, least: float) -> tuple[Int64, Int64]:
    """Rows and columns of the pairs of greatest total similarity, each of at least `least`."""
    allowed = similarity >= least
    if (allowed.sum(0) <= 1).all() and (allowed.sum(1) <= 1).all():
        rows, columns = np.nonzero(allowed)  # no conflicts, as in most frames
        return rows.astype(np.int64), columns.astype(np.int64)
    # Imported here: it takes half a second, and a video of one person never needs it.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(allowed, similarity, 0), maximize=True)
    kept = allowed[rows, columns]
    return rows[kept].astype(np.int64), columns[kept].astype(np.int64)


def _others(rows: Int64, count: int) -> Bools:
    """A mask of length `count`, true for all but `rows`."""
    mask = np.ones(count, bool)
    mask[rows] = False
    return mask


def _non_duplicates(similarity: Float32, candidates: Bools, limit: float) -> Bools:
    """Which rows to keep: all that are not candidates, and candidates unlike any kept before."""
    kept = ~candidates
    for row in np.flatnonzero(candidates):
        kept[row] = not (similarity[kept, row] >= limit).any()
    return kept
