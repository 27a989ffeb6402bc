"""Jitter of keypoints before and after smoothing, and its cost in lag and error.

    python -m benchmarks smoothing CLIP ... [--model movenet-thunder]

For each clip: the decrease of the median |second difference| of confident keypoints, in body sizes,
and the lag of the fastest wrist (or fastest keypoint) by cross-correlation. For generated motion
with heavy-tailed noise: the error against the truth after smoothing over that before.
Writes results/smoothing.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import posekit
from benchmarks.results_file import command, save
from posekit.skeletons import COCO_17
from posekit.tracking.smooth import OneEuro
from posekit.types import Boxes, Frame, Poses

Array = NDArray[Any]
CONFIDENT = 0.4
# Swing of the ankle in body sizes, its Hz, the body's speed in body sizes a second.
MOTIONS = {
    "rest": (0.0, 1.0, 0.0),
    "walk": (0.2, 1.0, 1.0),
    "run": (0.35, 1.5, 2.5),
    "sprint": (0.4, 2.2, 4.0),
    "jumping jacks": (0.6, 1.0, 0.0),
}
SWING = np.repeat([0.05, 0.08, 0.4, 1.0, 0.08, 0.5, 1.0], [5, 2, 2, 2, 2, 2, 2])
NOISE = 0.0035  # body sizes; with t noise of 3 degrees: second differences as in sports2d_demo


def tracks(stream: Iterable[tuple[Frame, Poses]]) -> Iterator[dict[str, Array]]:
    """Each unbroken run of a track: raw, smooth (T, K, 2), scores (T, K) and size (T,)."""
    runs: dict[int, list[tuple[Array, ...]]] = {}
    for _, poses in stream:
        ids = [] if poses.ids is None else poses.ids.tolist()
        for gone in set(runs) - set(ids):
            yield _columns(runs.pop(gone))
        raw = poses.points if poses.raw_points is None else poses.raw_points
        size = np.sqrt((poses.boxes.xyxy[:, 2:] - poses.boxes.xyxy[:, :2]).prod(1))
        for n, key in enumerate(ids):
            row = (raw[n], poses.points[n], poses.scores[n], size[n])
            runs.setdefault(key, []).append(row)
    for rows in runs.values():
        yield _columns(rows)


def _columns(rows: list[tuple[Array, ...]]) -> dict[str, Array]:
    names = ("raw", "smooth", "scores", "size")
    columns = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True))


def jitter(runs: list[dict[str, Array]], name: str) -> float:
    """The median |second difference| of keypoints confident in all three frames, body sizes."""
    values = [np.zeros(0)]
    for run in runs:
        if len(run["size"]) > 2:
            bend = np.linalg.norm(np.diff(run[name], 2, axis=0), axis=2) / run["size"][1:-1, None]
            high = run["scores"] > CONFIDENT
            values.append(bend[high[2:] & high[1:-1] & high[:-2]])
    return float(np.median(np.concatenate(values)))


def fast_wrist_lag(
    runs: list[dict[str, Array]], keypoints: tuple[str, ...], window: int = 30
) -> float:
    """Frames by which smoothing delays the fastest wrist, in its fastest `window` frames."""
    joints = [k for k, name in enumerate(keypoints) if "wrist" in name] or range(len(keypoints))
    fastest, lag = 0.0, float("nan")
    for run in runs:
        for k in joints:
            for start in range(0, len(run["size"]) - window, 10):
                part = slice(start, start + window)
                steps = np.linalg.norm(np.diff(run["raw"][part, k], axis=0), axis=1)
                # The upper quartile, not the maximum: one jump is an error, not a fast wrist.
                speed = float(np.percentile(steps, 75) / run["size"][part].mean())
                if run["scores"][part, k].min() > CONFIDENT / 2 and speed > fastest:
                    axis = int(np.argmax(np.ptp(run["raw"][part, k], axis=0)))
                    raw, smooth = run["raw"][part, k, axis], run["smooth"][part, k, axis]
                    fastest, lag = speed, _lag(raw, smooth)
    return lag


def _lag(before: Array, after: Array, limit: int = 5) -> float:
    """The shift, frames, at which both correlate best; between frames by a parabola."""
    count = len(before) - 2 * limit
    middle = after[limit : limit + count]
    shifted = [before[limit - s : limit - s + count] for s in range(-limit, limit + 1)]
    correlation = [float(np.corrcoef(part, middle)[0, 1]) for part in shifted]
    best = int(np.argmax(correlation))
    if not 0 < best < 2 * limit:
        return float(best - limit)
    low, peak, high = correlation[best - 1 : best + 2]
    return best - limit + 0.5 * (low - high) / (low - 2 * peak + high)


def generated(motion: str, fps: int) -> dict[str, float]:
    """Root-mean-square error against the truth, in body sizes, before and after smoothing."""
    rng, size = np.random.default_rng(0), 300.0
    swing, hertz, speed = MOTIONS[motion]
    times = np.arange(8 * fps) / fps
    base = rng.uniform(-0.5, 0.5, (17, 2)) * [0.5, 1.6]
    angle = 2 * np.pi * hertz * times[:, None, None] + rng.uniform(0, 2 * np.pi, (17, 2))
    travel = speed * times[:, None, None] * [1, 0]
    true = size * (base + swing * SWING[:, None] * [1, 0.6] * np.sin(angle) + travel)
    noisy = true + size * NOISE * rng.standard_t(3, true.shape)
    smooth, smoothed = OneEuro(), []
    for time_s, points in zip(times, noisy, strict=True):
        center = points.mean(0)
        boxes = Boxes(np.concatenate([center - size / 2, center + size / 2])[None])
        poses = Poses(points[None], np.full((1, 17), 0.7), boxes, COCO_17, ids=np.array([1]))
        smoothed.append(smooth(poses, float(time_s)).points[0])
    rms = [float(np.sqrt(np.mean((at - true) ** 2))) / size for at in (noisy, np.array(smoothed))]
    return {"before": rms[0], "after": rms[1], "ratio": rms[1] / rms[0]}


def measure(stream: Iterable[tuple[Frame, Poses]], keypoints: tuple[str, ...]) -> dict[str, float]:
    """The figures of one clip."""
    runs = list(tracks(stream))
    raw, smooth = jitter(runs, "raw"), jitter(runs, "smooth")
    lag = fast_wrist_lag(runs, keypoints)
    return {"raw": raw, "smooth": smooth, "fall": 1 - smooth / raw, "wrist_lag_frames": lag}


def main() -> None:
    """Measure the clips and the generated motions, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="movenet-thunder")
    options = parser.parse_args()
    estimator = posekit.load(options.model, threads=1)
    result: dict[str, Any] = {
        "model": options.model,
        "clips": {},
        "generated": {},
    }
    print(f"{'clip':40}{'raw':>9}{'smooth':>9}{'fall':>7}{'wrist lag':>11}")
    for clip in options.clips:
        skeleton = estimator.runtime.spec.skeleton
        measured = result["clips"][clip.name] = measure(estimator.stream(clip), skeleton.keypoints)
        line = "{raw:9.4f}{smooth:9.4f}{fall:7.0%}{wrist_lag_frames:11.2f}".format(**measured)
        print(f"{clip.name:40}{line}")
    for motion in MOTIONS:
        result["generated"][motion] = {str(fps): generated(motion, fps) for fps in (30, 60)}
        ratios = [f"{each['ratio']:.2f}" for each in result["generated"][motion].values()]
        print(f"{motion:40} error after / before at 30, 60 fps: {', '.join(ratios)}")
    print(save("smoothing", command("smoothing", "CLIPS"), 1, result))


if __name__ == "__main__":
    main()
