"""OneEuro: jitter falls, lag and error do not grow; the same at any scale and frame rate."""

import dataclasses
import pickle

import numpy as np
import pytest

from posekit.errors import InputError
from posekit.skeletons import COCO_17
from posekit.tracking.smooth import OneEuro, SmoothOptions
from posekit.types import Boxes, Poses

SIZE = 300.0  # px, square root of the box's area
# How far a keypoint swings, share of the ankle's swing: face, shoulders, elbows, wrists, ...
SWING = np.repeat([0.05, 0.08, 0.4, 1.0, 0.08, 0.5, 1.0], [5, 2, 2, 2, 2, 2, 2])
# Swing of the ankle in body sizes, its Hz, and the body's speed in body sizes a second.
MOTIONS = {
    "rest": (0.0, 1.0, 0.0),
    "walk": (0.2, 1.0, 1.0),
    "run": (0.35, 1.5, 2.5),
    "jacks": (0.6, 1.0, 0.0),
}
# Heavy-tailed, as measured on sports2d_demo with Thunder: second differences of resting keypoints
# have a median of 0.012 body sizes; Student's t with 3 degrees and this scale gives 0.011.
NOISE = 0.0035 * SIZE


def motion(name, times, seed=0):
    """True points (T, K, 2) and what a network sees of them."""
    rng = np.random.default_rng(seed)
    swing, hertz, speed = MOTIONS[name]
    base = rng.uniform(-0.5, 0.5, (17, 2)) * [0.5, 1.6]
    phase = rng.uniform(0, 2 * np.pi, (17, 2))
    t = np.asarray(times)[:, None, None]
    true = base + swing * SWING[:, None] * [1, 0.6] * np.sin(2 * np.pi * hertz * t + phase)
    true = (true + speed * t * [1, 0]) * SIZE + 500
    return true, true + NOISE * rng.standard_t(3, true.shape)


def run(points, times, *, smooth=None, scores=0.7, scale=1.0):
    """The smoothed points (T, K, 2) of one person."""
    smooth = OneEuro() if smooth is None else smooth
    scores = np.broadcast_to(scores, points.shape[:2])
    smoothed = []
    for at, score, time_s in zip(points, scores, times, strict=True):
        center = at.mean(0)
        box = np.concatenate([center - SIZE * scale / 2, center + SIZE * scale / 2])
        poses = Poses(at[None], score[None], Boxes(box[None]), COCO_17, ids=np.array([7]))
        smoothed.append(smooth(poses, float(time_s)).points[0])
    return np.stack(smoothed).astype(np.float64)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def jitter(points):
    return float(np.median(np.linalg.norm(np.diff(points, 2, axis=0), axis=2)))


@pytest.mark.parametrize("fps", [30, 60, 120])
def test_a_resting_person_trembles_less_than_half_as_much(fps):
    times = np.arange(4 * fps) / fps
    true, noisy = motion("rest", times)
    smoothed = run(noisy, times)
    assert jitter(smoothed) < 0.5 * jitter(noisy)
    assert rms(smoothed - true) < 0.9 * rms(noisy - true)


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("fps", [15, 30, 120])
def test_the_error_against_a_known_motion_does_not_grow(name, fps):
    times = np.arange(5 * fps) / fps
    true, noisy = motion(name, times)
    after = slice(fps // 3, None)
    # 2 %: a run at 15 fps gives its speed away in no more than ten frames a stride.
    assert rms((run(noisy, times) - true)[after]) <= 1.02 * rms((noisy - true)[after])


@pytest.mark.parametrize("name", ["walk", "run", "jacks"])
def test_a_fast_wrist_lags_less_than_half_a_frame(name):
    times = np.arange(120) / 30
    _, noisy = motion(name, times)
    before, after = noisy[:, 9, 0], run(noisy, times)[:, 9, 0]
    before, after = (
        np.diff(x - np.polyval(np.polyfit(times, x, 1), times)) for x in (before, after)
    )
    likeness = [np.dot(before[5 - s : -5 - s], after[5:-5]) for s in range(-3, 4)]
    best = int(np.argmax(likeness))
    assert 0 < best < 6
    low, peak, high = likeness[best - 1 : best + 2]
    lag = best - 3 + 0.5 * (low - high) / (low - 2 * peak + high)
    assert abs(lag) < 0.5


def test_uniform_motion_is_not_delayed_even_with_uneven_time_stamps():
    times = np.cumsum(np.random.default_rng(1).uniform(0.008, 0.1, 60))
    base = np.random.default_rng(2).uniform(0, SIZE, (17, 2))
    points = base + times[:, None, None] * np.array([900.0, -300.0])
    # From the second frame on the speed is known; what is left is float32 at 5000 px.
    assert np.abs(run(points, times) - points)[2:].max() < 0.01


def test_the_same_person_twice_as_large_is_smoothed_alike():
    times = np.arange(60) / 30
    _, noisy = motion("walk", times)
    large = run(2 * noisy, times, scale=2.0)
    assert np.abs(large - 2 * run(noisy, times)).max() < 0.01


def test_a_still_image_stays_where_it_is():
    times = np.arange(20) / 30
    points = np.tile(np.random.default_rng(0).uniform(0, 500, (17, 2)), (20, 1, 1))
    np.testing.assert_allclose(run(points, times), points, atol=1e-3)


def test_a_point_of_low_score_goes_along_with_the_body():
    times = np.arange(30) / 30
    points = np.tile(np.random.default_rng(0).uniform(0, SIZE, (17, 2)), (30, 1, 1))
    points += times[:, None, None] * np.array([600.0, 0.0])
    wild = points.copy()
    wild[10:, 9] += np.random.default_rng(1).normal(0, 150, (20, 2))
    scores = np.full(points.shape[:2], 0.7)
    scores[10:, 9] = 0.05
    smoothed = run(wild, times, scores=scores)
    # The body moves 20 px a frame: held in place, the wrist would be 380 px behind at the end.
    error = np.linalg.norm(smoothed[:, 9] - points[:, 9], axis=1)
    assert error.max() < 100
    assert rms(error) < 0.35 * rms(np.linalg.norm(wild[10:, 9] - points[10:, 9], axis=1))
    np.testing.assert_allclose(smoothed[2:, :9], points[2:, :9], atol=0.01)


def test_trust_grows_with_the_score():
    times = np.arange(3) / 30
    points = np.zeros((3, 17, 2)) + 500
    points[2] += 30
    moved = [run(points, times, scores=s)[2, 0, 0] - 500 for s in (0.05, 0.2, 0.4, 0.7)]
    assert moved == sorted(moved)
    assert moved[0] < 0.2 * moved[-1]


def test_a_gap_restarts_and_a_step_back_in_time_too():
    times = np.arange(10) / 30
    _, noisy = motion("walk", times)
    smooth = OneEuro()
    run(noisy, times, smooth=smooth)
    pause = SmoothOptions().restart_s + 0.01
    for again in (times + times[-1] + pause, times):
        np.testing.assert_array_equal(run(noisy, again, smooth=smooth), run(noisy, again))


def test_a_short_miss_does_not_restart():
    times = np.arange(30) / 30
    points = np.tile(np.random.default_rng(0).uniform(0, SIZE, (17, 2)), (30, 1, 1))
    points += times[:, None, None] * np.array([600.0, 0.0])
    points[20:] += 3.0
    smooth = OneEuro()
    run(points[:15], times[:15], smooth=smooth)
    empty = Poses(np.zeros((0, 17, 2)), np.zeros((0, 17)), Boxes([]), COCO_17, ids=np.zeros(0))
    for time_s in times[15:20]:
        smooth(empty, float(time_s))
    error = np.abs(run(points[20:21], times[20:21], smooth=smooth)[0] - points[20])
    # 3 px beside the way it went: a fresh start would give no error, standing still 100 px.
    assert np.all((error > 0.1) & (error < 3.1))


def test_memory_of_the_dead_is_dropped():
    smooth, sizes = OneEuro(), []
    for n in range(300):
        points = np.full((1, 17, 2), float(n))
        poses = Poses(points, np.ones((1, 17)), Boxes([[0, 0, 9, 9]]), COCO_17, ids=np.array([n]))
        smooth(poses, n / 30)
        sizes.append(len(pickle.dumps(smooth)))
    assert max(sizes[100:]) == max(sizes[:100])


def test_persons_do_not_touch_each_other_and_come_in_any_order():
    times = np.arange(20) / 30
    first, second = (motion("walk", times, seed)[1] for seed in (0, 1))
    alone = run(first, times), run(second, times)
    smooth = OneEuro()
    for n, time_s in enumerate(times):
        centers = np.stack([first[n].mean(0), second[n].mean(0)])
        boxes = np.concatenate([centers - SIZE / 2, centers + SIZE / 2], 1)
        points, ids = np.stack([first[n], second[n]]), np.array([7, 8])
        order = [0, 1] if n % 2 else [1, 0]
        poses = Poses(points, np.full((2, 17), 0.7), Boxes(boxes), COCO_17, ids=ids)
        got = smooth(poses.select(order), float(time_s))
        for row, who in enumerate(order):
            np.testing.assert_allclose(got.points[row], alone[who][n], rtol=1e-6)


def test_everything_but_the_points_is_kept_and_no_person_is_fine():
    points = np.random.default_rng(0).uniform(0, 99, (2, 17, 2))
    boxes = Boxes([[0, 0, 99, 99], [5, 5, 5, 5]], [0.5, 0.6])
    poses = Poses(points, np.full((2, 17), 0.5), boxes, COCO_17, ids=np.array([4, 2]))
    smooth = OneEuro()
    smooth(poses, 0.0)
    moved = dataclasses.replace(poses, points=points + 9)
    got = smooth(moved, 0.1)
    np.testing.assert_array_equal(got.raw_points, moved.points)
    np.testing.assert_array_equal(got.ids, [4, 2])
    assert got.boxes is poses.boxes
    assert np.isfinite(got.points).all()
    assert len(smooth(poses.select(np.zeros(2, bool)), 0.2)) == 0


def test_the_same_frames_give_the_same_bits():
    times = np.arange(30) / 30
    _, noisy = motion("run", times)
    np.testing.assert_array_equal(run(noisy, times), run(noisy, times))


def test_bad_input_is_named():
    poses = Poses(np.zeros((1, 17, 2)), np.ones((1, 17)), Boxes([[0, 0, 9, 9]]), COCO_17)
    with pytest.raises(InputError, match="without ids"):
        OneEuro()(poses, 0.0)
    with pytest.raises(InputError, match="finite"):
        OneEuro()(dataclasses.replace(poses, ids=np.array([1])), float("nan"))
    with pytest.raises(InputError, match="not negative"):
        SmoothOptions(beta_hz=-1.0)
    with pytest.raises(InputError, match="above"):
        SmoothOptions(trusted=0.1, distrusted=0.2)
