"""Tracker in a closed loop: a generated world, a detector and a network that err like real ones."""

import dataclasses
import itertools

import numpy as np
import pytest

from posekit.errors import InputError
from posekit.geometry import box_iou
from posekit.skeletons import COCO_17, Skeleton
from posekit.tracking.track import Tracker, TrackOptions
from posekit.types import Boxes, Poses

# A standing person of height 1, feet at (0, 0), in COCO's order: nose, eyes, ears, shoulders, ...
PLACES = """0 -.93  .02 -.95  -.02 -.95  .04 -.94  -.04 -.94  .1 -.82  -.1 -.82  .13 -.65  -.13 -.65
.14 -.5  -.14 -.5  .06 -.5  -.06 -.5  .06 -.27  -.06 -.27  .06 -.04  -.06 -.04"""
STANDING = np.array(PLACES.split(), float).reshape(17, 2)
SWING = np.repeat([0.0, 0.02, 0.05, 0.1, 0.01, 0.06, 0.12], [5, 2, 2, 2, 2, 2, 2])
SIDES = np.array([1, *[1, -1] * 8])


def walker(x, speed, *, y=500.0, height=300.0):
    """A person who walks along x, px/s: a function from seconds to points (17, 2)."""

    def at(time_s):
        stride = SWING * SIDES * np.sin(2 * np.pi * 1.0 * time_s + x)
        points = STANDING + np.stack([stride, np.zeros(17)], 1)
        return points * height + [x + speed * time_s, y]

    return at


class World:
    """Persons, later ones in front; `detect` and `predict` act as a detector and a network."""

    def __init__(self, *persons, seed=0):
        self.persons, self.rng = persons, np.random.default_rng(seed)

    def boxes(self, time_s):
        points = np.stack([person(time_s) for person in self.persons])
        pad = 0.08 * (points.max(1) - points.min(1)).max(1)[:, None]
        return Boxes(np.concatenate([points.min(1) - pad, points.max(1) + pad], 1))

    def detect(self, time_s):
        """A box a person, jittered by 2 % of its height; none for those who are hidden."""
        true = self.boxes(time_s)
        hidden = np.triu(box_iou(true, true), 1).max(1) > 0.4
        height = true.xyxy[:, 3:] - true.xyxy[:, 1:2]
        noisy = true.xyxy + self.rng.normal(0, 0.02, true.xyxy.shape) * height
        return Boxes(noisy, np.full(len(noisy), 0.7)).select(~hidden)

    def predict(self, boxes, time_s):
        """In each box the person who fills it best, the front one if hidden; or low scores."""
        true = self.boxes(time_s)
        overlap, hides = box_iou(boxes, true), np.triu(box_iou(true, true), 1) > 0.4
        points = self.rng.uniform(0, 1, (len(boxes), 17, 2))
        points = boxes.xyxy[:, None, :2] + points * (
            boxes.xyxy[:, None, 2:] - boxes.xyxy[:, None, :2]
        )
        scores = self.rng.uniform(0.02, 0.2, (len(boxes), 17))
        for row in np.flatnonzero(overlap.max(1, initial=0) > 0.3):
            who = int(overlap[row].argmax())
            who = int(hides[who].argmax()) if hides[who].any() else who
            points[row] = self.persons[who](time_s) + self.rng.normal(0, 1.5, (17, 2))
            scores[row] = self.rng.uniform(0.4, 0.9, 17)
        return Poses(points, scores, boxes, COCO_17)

    def who(self, poses, time_s):
        """Which person each pose shows; -1 for no person (more than 15 px off on average)."""
        true = np.stack([person(time_s) for person in self.persons])
        far = np.linalg.norm(poses.points[:, None] - true[None], axis=3).mean(2)
        return np.where(far.min(1) < 15, far.argmin(1), -1)


def follow(world, times, *, every=4, tracker=None, predict=None):
    """One list a frame: (id, who it is, the pose), as `Tracker` gives it."""
    tracker = Tracker(COCO_17) if tracker is None else tracker
    frames = []
    for n, time_s in enumerate(map(float, times)):
        detected = world.detect(time_s) if n % every == 0 else None
        boxes = tracker.boxes(time_s, detected)
        found = (predict or world.predict)(boxes, time_s)
        poses = tracker.update(found, time_s, detected=detected is not None)
        who = world.who(poses, time_s).tolist()
        frames.append(list(zip(poses.ids.tolist(), who, strict=True)))
    return frames


def owners(frames):
    """{id: the persons that it was}."""
    ids = {}
    for key, who in itertools.chain(*frames):
        ids.setdefault(key, set()).add(who)
    return ids


def fits(box, true):
    """Whether a box holds 80 % of the tight one, and not much more: a stride's width is kept."""
    low, high = np.maximum(box[:2], true[:2]), np.minimum(box[2:], true[2:])
    area = (true[2:] - true[:2]).prod()
    return (high - low).clip(0).prod() > 0.8 * area and (box[2:] - box[:2]).prod() < 1.7 * area


@pytest.mark.parametrize(("fps", "every"), [(10, 1), (10, 4), (30, 1), (30, 4), (120, 4)])
def test_two_persons_who_cross_keep_their_ids(fps, every):
    # The boxes overlap by more than 0.4 for about 0.3 s: one is hidden behind the other.
    world = World(walker(300, 200), walker(900, -200))
    frames = follow(world, np.arange(3 * fps) / fps, every=every)
    assert owners(frames) == {1: {0}, 2: {1}} or owners(frames) == {1: {1}, 2: {0}}
    assert sum(len(frame) == 2 for frame in frames) > 0.75 * len(frames)
    assert len(frames[-1]) == 2


@pytest.mark.parametrize("missed", [1, 5, 20])
def test_a_person_missed_for_some_frames_keeps_the_id(missed):
    world = World(walker(300, 150))

    def predict(boxes, time_s):
        poses = world.predict(boxes, time_s)
        blind = 1.0 <= time_s < 1.0 + missed / 30 - 1e-6
        return dataclasses.replace(poses, scores=poses.scores * (0.1 if blind else 1.0))

    frames = follow(world, np.arange(90) / 30, predict=predict)
    assert owners(frames) == {1: {0}}
    assert sum(not frame for frame in frames) == missed


def test_someone_gone_for_long_comes_back_with_a_new_id():
    world = World(walker(300, 0))
    visit, pause = np.arange(30) / 30, 1 + TrackOptions().max_age_s
    frames = follow(world, np.r_[visit, visit + pause, visit + 2 * pause], every=1)
    assert [[key for key, _ in frames[n]] for n in (29, 59, 89)] == [[1], [2], [3]]
    assert owners(frames) == {1: {0}, 2: {0}, 3: {0}}


@pytest.mark.parametrize("every", [4, 12, 40])
def test_boxes_follow_a_runner_between_detections(every):
    # 600 px/s at a height of 300 px is about 3.5 m/s; in 40 frames he runs 800 px.
    world = World(walker(100, 600))
    tracker = Tracker(COCO_17)
    follow(world, np.arange(20) / 30, every=4, tracker=tracker)
    for n in range(20, 20 + every):
        boxes = tracker.boxes(n / 30)
        assert fits(boxes.xyxy[0], world.boxes(n / 30).xyxy[0])
        assert len(tracker.update(world.predict(boxes, n / 30), n / 30, detected=False)) == 1


def test_boxes_may_be_predicted_several_frames_ahead_and_change_nothing():
    world = World(walker(100, 600))
    tracker, other = Tracker(COCO_17), Tracker(COCO_17)
    times = np.arange(20) / 30
    follow(world, times, tracker=tracker)
    follow(World(*world.persons), times, tracker=other)
    for ahead in range(8):
        time_s = (20 + ahead) / 30
        boxes = tracker.boxes(time_s)
        assert fits(boxes.xyxy[0], world.boxes(time_s).xyxy[0])
        np.testing.assert_array_equal(boxes.xyxy, other.boxes(time_s).xyxy)


def test_a_detection_of_an_earlier_frame_is_moved_on_with_its_person():
    # Not moved on, the box lies 60 px behind after three frames.
    world, tracker = World(walker(100, 600)), Tracker(COCO_17)
    follow(world, np.arange(20) / 30, tracker=tracker)
    found = Boxes([*world.boxes(20 / 30).xyxy, [10, 10, 90, 210]], [1.0, 0.9])
    runner, stranger = tracker.boxes(23 / 30, found, 20 / 30).xyxy
    away = (runner - world.boxes(23 / 30).xyxy[0]).reshape(2, 2).mean(0)
    assert np.abs(away).max() < 12
    assert stranger.tolist() == [10, 10, 90, 210]


def test_uneven_time_stamps_and_skipped_frames_keep_ids():
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.choice([0.008, 0.033, 0.1, 0.25], 80))
    world = World(walker(100, 150), walker(4000, -150, height=200))
    frames = follow(world, times)
    assert owners(frames) == {1: {0}, 2: {1}} or owners(frames) == {1: {1}, 2: {0}}
    assert all(len(frame) == 2 for frame in frames)


def test_two_frames_with_one_time_stamp_do_no_harm():
    world = World(walker(300, 200))
    times = np.repeat(np.arange(30) / 30, 2)
    assert owners(follow(world, times)) == {1: {0}}


@pytest.mark.parametrize("strength", [0.1, 0.35])
def test_a_false_person_dies(strength):
    """A false detection: no person there (0.1), or something that resembles a person (0.35)."""
    world, tracker = World(walker(300, 100)), Tracker(COCO_17)
    ghost = Boxes([[1000, 100, 1100, 400]], [0.4])

    def predict(boxes, time_s):
        poses = world.predict(boxes, time_s)
        there = box_iou(boxes, ghost)[:, 0] > 0.3
        frozen = STANDING * 270 + [1050, 390]
        points = np.where(there[:, None, None], frozen, poses.points)
        scores = np.where(there[:, None], strength, poses.scores)
        return dataclasses.replace(poses, points=points, scores=scores)

    lives = []
    for n in range(120):
        time_s = n / 30
        detected = world.detect(time_s) if n % 4 == 0 else None
        if n == 8:
            detected = Boxes(
                np.concatenate([detected.xyxy, ghost.xyxy]),
                np.concatenate([detected.scores, ghost.scores]),
            )
        boxes = tracker.boxes(time_s, detected)
        lives.append(len(boxes) - 1)
        poses = tracker.update(predict(boxes, time_s), time_s, detected=detected is not None)
        assert poses.ids.tolist() == [1]
    # 0.4 halves every 0.5 s until it is below 0.15: gone 0.71 s after the detector stopped
    # seeing it, at the next detection; one that was never detected is not followed at all.
    assert sum(lives) <= (26 if strength > 0.2 else 1)


def test_a_track_without_a_person_ends_without_a_detector():
    world, tracker = World(walker(300, 0)), Tracker(COCO_17)
    follow(world, np.arange(20) / 30, tracker=tracker)
    empty = World(walker(5000, 0))
    counts = []
    for n in range(20, 80):
        boxes = tracker.boxes(n / 30)
        counts.append(len(boxes))
        assert len(tracker.update(empty.predict(boxes, n / 30), n / 30, detected=False)) == 0
    assert 29 <= sum(counts) <= 31  # max_age_s at 30 frames a second


@pytest.mark.parametrize("place", [(600, 900, 300), (990, 420, 300), (310, 600, 150)])
def test_after_a_cut_no_id_is_inherited(place):
    """Who comes next stands elsewhere, or overlaps a little, or is much smaller."""
    x, y, height = place
    before = World(walker(300, 0), walker(900, 0))
    after = World(walker(x, 0, y=y, height=height))
    tracker = Tracker(COCO_17)
    follow(before, np.arange(30) / 30, tracker=tracker)
    frames = follow(after, 1 + np.arange(60) / 30, tracker=tracker)
    assert owners(frames) == {3: {0}}
    assert len(frames[0]) == 1
    assert len(tracker.boxes(3.0)) == 1


def test_one_person_found_in_two_crops_is_one_track():
    world, tracker = World(walker(300, 100)), Tracker(COCO_17)
    for n in range(30):
        time_s = n / 30
        true = world.boxes(time_s).xyxy
        boxes = Boxes(np.concatenate([true, true + np.array([-40, -10, 10, 60])]))
        poses = tracker.update(world.predict(boxes, time_s), time_s, detected=True)
        assert poses.ids.tolist() == [1]


def test_of_two_tracks_on_one_person_the_younger_ends():
    """The second one is lost behind the first and its crop shows the first ever after."""
    first, second = walker(300, 100), walker(900, -400)
    together = World(second, first)
    tracker = Tracker(COCO_17)
    follow(together, np.arange(36) / 30, tracker=tracker)
    alone = World(first)
    frames = follow(alone, np.arange(36, 90) / 30, tracker=tracker, every=1000)
    mine = [key for key, _ in frames[-1]]
    assert len(mine) == 1
    assert len(tracker.boxes(3.0)) == 1
    assert owners(frames[:1]).keys() >= set(mine)


def test_an_unsure_person_gets_an_id_on_the_third_frame():
    world = World(walker(300, 0))

    def predict(boxes, time_s):
        return dataclasses.replace(
            world.predict(boxes, time_s), scores=np.full((len(boxes), 17), 0.45)
        )

    frames = follow(world, np.arange(5) / 30, predict=predict)
    assert [len(frame) for frame in frames] == [0, 0, 1, 1, 1]


def test_a_detection_brings_a_box_back_to_its_person():
    world, tracker = World(walker(300, 0)), Tracker(COCO_17)
    follow(world, np.arange(20) / 30, tracker=tracker)
    moved = World(walker(350, 0))
    time_s = 20 / 30
    detected = moved.detect(time_s)
    assert 0.3 < box_iou(tracker.boxes(time_s), detected).max() < 0.6
    boxes = tracker.boxes(time_s, detected)
    assert len(boxes) == 1
    assert box_iou(boxes, detected).max() > 0.75
    assert boxes.scores[0] == pytest.approx(0.7)


def test_a_lost_person_keeps_a_box_beside_another_only_where_detected():
    """Two in one place, one head down: when he is lost, his box is the other's over again."""
    up = walker(300, 0)
    down = up(0)[:, :1] * [1, 0] + (700 - up(0)[:, 1:]) * [0, 1]
    world, tracker = World(up, lambda _: down), Tracker(COCO_17)
    both = world.boxes(0.0)
    points = np.stack([person(0.0) for person in world.persons])
    poses = Poses(points, np.full((2, 17), 0.8), both, COCO_17)
    for n in range(6):
        assert len(tracker.update(poses, n / 30, detected=True)) == 2
    assert len(tracker.boxes(6 / 30)) == 2
    tracker.update(poses.select([0]), 6 / 30, detected=False)
    assert len(tracker.boxes(7 / 30)) == 1
    assert len(tracker.boxes(7 / 30, both)) == 2


def test_a_limb_that_is_lost_for_a_moment_stays_in_the_box():
    """The ankles go unseen for 0.2 s: the box keeps 9 tenths of its height."""
    world, tracker = World(walker(300, 0)), Tracker(COCO_17)
    follow(world, np.arange(20) / 30, tracker=tracker)
    height = np.diff(tracker.boxes(20 / 30).xyxy[0, 1::2])
    for n in range(20, 26):
        boxes = tracker.boxes(n / 30)
        poses = world.predict(boxes, n / 30)
        poses.scores[:, 13:] = 0.05
        tracker.update(poses, n / 30, detected=False)
    assert np.diff(tracker.boxes(26 / 30).xyxy[0, 1::2]) > 0.9 * height


def test_no_person_in_any_frame_and_in_some():
    tracker = Tracker(COCO_17)
    empty = Poses(np.zeros((0, 17, 2)), np.zeros((0, 17)), Boxes(np.zeros((0, 4))), COCO_17)
    for n in range(10):
        assert len(tracker.boxes(n / 30, Boxes(np.zeros((0, 4))))) == 0
        got = tracker.update(empty, n / 30, detected=True)
        assert len(got) == 0
        assert got.ids.tolist() == []
    world = World(walker(300, 0))
    assert owners(follow(world, np.arange(10, 20) / 30, tracker=tracker)) == {1: {0}}


def test_what_comes_back_are_the_poses_that_went_in():
    world = World(walker(300, 0), walker(600, 0), walker(900, 0))
    tracker = Tracker(COCO_17)
    first = world.predict(world.boxes(0.0), 0.0)
    tracker.update(first, 0.0, detected=True)
    order = [2, 0, 1]
    got = tracker.update(first.select(order), 1 / 30, detected=True)
    assert got.ids.tolist() == [1, 2, 3]
    rows = [int(np.abs(first.points - points).sum((1, 2)).argmin()) for points in got.points]
    assert sorted(rows) == [0, 1, 2]
    np.testing.assert_array_equal(got.points, first.points[rows])
    np.testing.assert_array_equal(got.scores, first.scores[rows])
    np.testing.assert_array_equal(got.boxes.xyxy, first.boxes.xyxy[rows])


def test_the_lowest_id_comes_first():
    world = World(walker(300, 0), walker(900, 0))

    def predict(boxes, time_s):
        poses = world.predict(boxes, time_s)
        unsure = (boxes.xyxy[:, 0] < 600) & (time_s < 0.05)
        return dataclasses.replace(poses, scores=np.where(unsure[:, None], 0.45, poses.scores))

    # The first is alone and weak; the second is confident at once and gets its id before.
    tracker, times = Tracker(COCO_17), np.arange(6) / 30
    follow(World(walker(300, 0)), times[:1], tracker=tracker, predict=predict)
    frames = follow(world, times[1:], tracker=tracker, predict=predict, every=1)
    assert frames[0] == [(1, 1)]
    assert frames[-1] == [(1, 1), (2, 0)]


def test_a_step_back_in_time_starts_anew_without_reusing_ids():
    world, tracker = World(walker(300, 0)), Tracker(COCO_17)
    follow(world, 5 + np.arange(10) / 30, tracker=tracker)
    assert owners(follow(world, np.arange(10) / 30, tracker=tracker)) == {2: {0}}


def test_the_same_frames_give_the_same_tracks():
    times = np.arange(90) / 30
    runs = [follow(World(walker(300, 200), walker(900, -200)), times) for _ in range(2)]
    assert runs[0] == runs[1]


def test_skeletons_of_one_keypoint_and_boxes_of_no_size_work():
    dot = Skeleton("dot", ("dot",), (), (0,), (0.1,))
    tracker = Tracker(dot)
    for n in range(5):
        poses = Poses([[[50 + n, 50]]], [[0.9]], Boxes([[40, 40, 60, 60]]), dot)
        assert tracker.update(poses, n / 30, detected=True).ids.tolist() == [1]
    point = Poses([[[50, 50]]], [[0.9]], Boxes([[50, 50, 50, 50]]), dot)
    assert np.isfinite(tracker.boxes(5 / 30, point.boxes).xyxy).all()
    tracker.update(point, 5 / 30, detected=True)


def test_bad_input_is_named():
    tracker = Tracker(COCO_17)
    with pytest.raises(InputError, match="finite"):
        tracker.boxes(float("nan"))
    dot = Skeleton("dot", ("dot",), (), (0,), (0.1,))
    with pytest.raises(InputError, match="dot, wanted coco_17"):
        tracker.update(
            Poses(np.zeros((0, 1, 2)), np.zeros((0, 1)), Boxes([]), dot), 0.0, detected=True
        )
    with pytest.raises(InputError, match="max_age_s"):
        TrackOptions(max_age_s=0.0)
