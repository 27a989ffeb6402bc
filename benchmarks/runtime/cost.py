"""Cost of the embedded models: size, and CPU ms on one thread: `python -m benchmarks cost`.

A pose model: crop, network, decode and the way back to the frame of one person of the demo clip,
through posekit's own runtime. The detector: one call on the whole frame. All take turns, since the
machine's speed changes by the minute; medians and quartiles over the turns. Writes
results/cost.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

import posekit
from benchmarks.results_file import ROOT, command, save
from posekit import Boxes, Bundle, Frame
from posekit.bundle import MODELS
from posekit.estimate import Estimator

POSE = ("movenet-lightning", "movenet-thunder")
DETECTOR = "nanodet-person"
CLIP = ROOT / "examples" / "sports2d_demo.mp4"


def calls() -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed, by model and row."""
    estimators = {
        (name, "flip" if flip else "plain"): posekit.load(name, "cpu", 1, flip=flip)
        for name in POSE
        for flip in (False, True)
    }
    finder = estimators[POSE[0], "plain"]
    frame = next(iter(finder.stream(CLIP)))[0]
    box = finder(frame).boxes.select(np.arange(1))
    timed = {key: _estimate(each, frame, box) for key, each in estimators.items()}
    return timed | {(DETECTOR, "plain"): lambda: finder.find_still(frame)}


def _estimate(estimator: Estimator, frame: Frame, box: Boxes) -> Callable[[], Any]:
    return lambda: estimator(frame, box)


def measure(turns: int) -> dict[str, Any]:
    """By model: its file and, by row, the median and the quartiles in ms."""
    timed = calls()
    spent: dict[tuple[str, str], list[float]] = {key: [] for key in timed}
    for _ in range(turns + 1):
        for key, call in timed.items():
            start = time.thread_time()
            call()
            spent[key].append(1e3 * (time.thread_time() - start))
    figures: dict[str, Any] = {}
    for (name, row), values in spent.items():
        each = figures.setdefault(name, _file(name))
        # The first call allocates.
        low, median, high = np.quantile(values[1:], (0.25, 0.5, 0.75)).round(2).tolist()
        each[row] = {"ms": median, "quartiles_ms": [low, high]}
    return figures


def _file(name: str) -> dict[str, Any]:
    """Size of a model's file and the license of its weights."""
    path = MODELS / f"{name}.posekit"
    license_ = Bundle.open(path).licences["weights"].partition(" (")[0]
    return {"bytes": path.stat().st_size, "license": license_}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    figures = measure(options.turns)
    for name, each in figures.items():
        print(f"{name:18} {each['bytes'] / 1e6:5.1f} MB", each)
    path = save("cost", command("cost"), 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
