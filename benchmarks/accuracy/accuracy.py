"""Accuracy of the embedded models: `python -m benchmarks accuracy [--no-check]`.

With boxes given, through posekit's own runtime, with and without the flip test:

- COCO: 256 persons of 90 images of COCO 2017, boxes = ground truth. AR = the mean share of persons
  with an OKS above 0.50:0.05:0.95 (not the official protocol), AR50 = at 0.50. "Large" are the
  135 persons with 8 keypoints or more and an area above 48² px.
- COCO AP and AR of the same persons as `posekit eval` computes them (pycocotools' matching, score =
  mean keypoint score above 0.2, OKS-NMS): the protocol's arithmetic, but on these 90 images and
  with the labeled boxes, so no figure of the official validation set.
- LSPET check: 250 images of Leeds Sports Pose Extended. Box = the tight box of the labeled joints
  enlarged by 10 % of its longer side on each side. PCK = the share of the 12 limb joints within
  0.2 x max(the two shoulder-hip diagonals, 10 px). Never used to choose anything.

Writes results/accuracy.json; `python -m benchmarks embed` copies it for `posekit models`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2

import posekit
from benchmarks.accuracy.persons import (
    NAMES,
    coco_persons,
    correct,
    estimate,
    large,
    lspet_persons,
    recall,
    similarity,
    tight_boxes,
)
from benchmarks.results_file import ASSETS, ROOT, command, save
from posekit import Bundle
from posekit.bundle import embedded
from posekit.evaluate import predict, read_annotations, score
from posekit.inference.runtime import Runtime


def measure(name: str, assets: Path, *, check: bool) -> dict[str, Any]:
    """One model's table."""
    coco, lspet = coco_persons(assets), lspet_persons(assets)
    figures: dict[str, Any] = {}
    for view, flip in (("plain", False), ("flip", True)):
        bundle = Bundle.open(embedded()[name])
        runtime = Runtime(bundle, device="cpu", threads=1, flip=flip)
        values = similarity(estimate(runtime, coco, coco.boxes), coco)
        row = {
            "coco": recall(values),
            "coco_large": recall(values[large(coco)]),
            "coco_protocol": average_precision(name, assets, flip=flip),
        }
        if check:
            points = estimate(runtime, lspet, tight_boxes(lspet.joints))
            row["lspet"] = {"PCK@0.2": round(correct(points, lspet.joints), 3)}
        figures[view] = row
    return figures


def average_precision(name: str, assets: Path, *, flip: bool) -> dict[str, float]:
    """AP, AP50 and AR of `posekit eval` in the labeled boxes, rounded to three digits."""
    folder = assets / "coco_kpts"
    labels = read_annotations(folder / "person_keypoints.json", folder / "images")
    estimator = posekit.load(name, "cpu", 1, flip=flip, boxes="full")
    spec = estimator.runtime.spec
    found = predict(estimator, labels, skeleton=spec.skeleton)
    table = score(found, labels, spec).matched.figures()
    return {key: round(table[key], 3) for key in ("AP", "AP50", "AR")}


def line(name: str, view: str, row: dict[str, Any]) -> str:
    """One printed row of the table."""
    cells = [f"{value:.3f}" for group in row.values() for value in group.values()]
    return f"{name:18} {view:6} " + "  ".join(cells)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--no-check", action="store_true", help="leave out LSPET check")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    figures = {}
    print(f"{'':26}COCO AR  AR50  large AR AR50  AP  AP50  AR  LSPET PCK@0.2")
    for name in NAMES:
        figures[name] = measure(name, options.assets, check=not options.no_check)
        for view, row in figures[name].items():
            print(line(name, view, row))
    if options.no_check:
        return
    path = save("accuracy", command("accuracy"), 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
