"""Accuracy and speed of the person detector: `python -m benchmarks detector [--data FOLDER]`.

On COCO val2017 images with person boxes: AP at IoU 0.5 (101 points), precision and recall at
thresholds. On street photos of one person each: how many get a box of 60 % of the height. One
thread: milliseconds of a whole call, of the network alone, and of the second pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.accuracy.persons import read_image
from benchmarks.results_file import ASSETS, command, save
from posekit.bundle import embedded
from posekit.detect import Detector
from posekit.geometry import box_iou
from posekit.types import Boxes, Frame, UInt8

THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4)
LOWEST = 0.05  # scores below do not change AP


def read(path: Path) -> Frame:
    return Frame(read_image(path))


def labeled(folder: Path) -> Iterator[tuple[Frame, Boxes]]:
    """Frames and the persons' boxes from YOLO labels (centre and size as shares)."""
    for path in sorted((folder / "images").iterdir()):
        frame = read(path)
        height, width = frame.image.shape[:2]
        label = folder / "labels" / f"{path.stem}.txt"
        text = label.read_text().split() if label.exists() else []
        center = np.array(text, float).reshape(-1, 5)[:, 1:]
        low, high = center[:, :2] - center[:, 2:] / 2, center[:, :2] + center[:, 2:] / 2
        scale = np.array([width, height])
        yield frame, Boxes(np.concatenate([low * scale, high * scale], 1) - 0.5)


def matched(found: Boxes, truth: Boxes) -> np.ndarray:
    """Which of `found`, best first, match a person without a better match; IoU 0.5 or more."""
    iou = box_iou(found, truth)
    hits = np.zeros(len(found), bool)
    for n, row in enumerate(iou):
        if row.size and row.max() >= 0.5:
            hits[n] = True
            iou[:, row.argmax()] = 0
    return hits


def accuracy(detector: Detector, pairs: list[tuple[Frame, Boxes]]) -> dict[str, Any]:
    """AP at IoU 0.5 over all boxes of the detector; precision and recall at thresholds."""
    before = detector.second_passes
    results = [(detector(frame), truth) for frame, truth in pairs]
    scores = np.concatenate([found.scores for found, _ in results])
    hits = np.concatenate([matched(found, truth) for found, truth in results])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(hits[order])
    persons = sum(len(truth) for _, truth in results)
    recall, precision = hits / persons, hits / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    ap = envelope[np.searchsorted(recall, np.linspace(0, 1, 101))].mean()
    rows = {}
    for threshold in (each for each in THRESHOLDS if each >= detector.min_score):
        last = int((scores >= threshold).sum()) - 1
        rows[str(threshold)] = {
            "precision": round(float(precision[last]), 3),
            "recall": round(float(recall[last]), 3),
        }
    passes = detector.second_passes - before
    counts = {"images": len(pairs), "persons": persons, "second_looks": passes}
    return {**counts, "ap50": round(float(ap), 4), "at": rows}


def filled(detector: Detector, paths: list[Path]) -> dict[str, object]:
    """Photos where a box has at least 60 % of the height, and how many needed a second pass."""
    before, tall = detector.second_passes, 0
    for path in paths:
        frame = read(path)
        xyxy = detector(frame).xyxy
        tall += bool((xyxy[:, 3] - xyxy[:, 1]).max(initial=0) >= 0.6 * len(frame.image))
    passes = detector.second_passes - before
    return {"photos": len(paths), "found": tall, "second_looks": passes}


def best_ms(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The minimum CPU milliseconds of each call; they alternate."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            best[name] = min(best[name], (time.process_time() - start) * 1e3)
    return {name: round(ms, 1) for name, ms in best.items()}


def resized(image: UInt8, width: int, height: int) -> UInt8:
    return np.asarray(cv2.resize(image, (width, height)), np.uint8)


def speed(detector: Detector, photo: Path, rounds: int) -> dict[str, float]:
    """Milliseconds for a 1920 x 1080 and a square frame, one thread."""
    image = read(photo).image
    wide, square = (resized(image, *size) for size in ((1920, 1080), (640, 640)))
    run = detector.network.run
    return best_ms(
        {
            "call_1080p": lambda: detector(Frame(wide)),
            "call_square": lambda: detector(Frame(square)),
            "network_416x256": lambda: run(resized(wide, 416, 256)),
            "network_416x416": lambda: run(resized(square, 416, 416)),
            "network_256x256": lambda: run(resized(square, 256, 256)),
        },
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ASSETS)
    parser.add_argument("--detector", default=embedded()["nanodet-person"], type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if not (arguments.data / "coco_val_person_boxes").is_dir():
        sys.exit(f"{arguments.data}: has no coco_val_person_boxes; pass --data")
    photos = sorted((arguments.data / "fashion_ccp" / "photos").iterdir())
    detector = Detector(arguments.detector, device="cpu", threads=1)
    report: dict[str, Any] = {
        "detector": arguments.detector.name,
        "threshold": detector.min_score,
        "one_person_fills_photo": filled(detector, photos),
        "ms_one_thread": speed(detector, photos[0], arguments.rounds),
    }
    pairs = list(labeled(arguments.data / "coco_val_person_boxes"))
    report["coco_val_as_used"] = accuracy(detector, pairs)
    del report["coco_val_as_used"]["ap50"]  # boxes below the threshold are missing
    detector.min_score = LOWEST  # every large box is above it, so there are no second passes
    report["coco_val_one_look"] = accuracy(detector, pairs)
    print(json.dumps(report, indent=1))
    print(save("detector", command("detector"), 1, report))


if __name__ == "__main__":
    main()
