"""Calibration of scores: `python -m benchmarks calibration [--assets DIR]`.

256 persons of 90 COCO 2017 images in their labeled boxes. A keypoint is correct within 0.1 of
sqrt(box area); keypoints without a label are left out. Expected calibration error (10 bins) of the
raw score and of the calibrated probability, each fifth of the images judged by a fit to the others.

Writes results/calibration.json, whose "embed" part is, by model, the calibration.json that
scripts/make_models puts into the embedded bundles (fitted to all 90 images).
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import posekit
from benchmarks.accuracy.persons import NAMES
from benchmarks.results_file import ASSETS, ROOT, command, save
from posekit.evaluate import predict, read_annotations, score
from posekit.evaluate.calibrate import calibrate, samples

DATA = "90 images of COCO 2017 with 256 persons (28 train images), labelled boxes"


def measure(name: str, assets: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """One model's report, and the contents of its bundle's calibration."""
    file = assets / "coco_kpts" / "person_keypoints.json"
    labels = read_annotations(file, file.parent / "images")
    data = {}
    for view in ("flip", "plain"):
        estimator = posekit.load(name, "cpu", 1, flip=view == "flip", boxes="full")
        spec = estimator.runtime.spec
        found = predict(estimator, labels, skeleton=spec.skeleton)
        data[view] = samples(score(found, labels, spec), len(spec.skeleton))
    result = calibrate(data)
    source = {"data": DATA, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    curves = {view: curve.to_dict() for view, curve in result.curves.items()}
    return dict(result.report), {"data": source, "graphs": curves}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {"models": {}, "embed": {}}
    print(f"{'':26}ECE raw  held out  ratio   Brier raw  held out")
    for name in NAMES:
        report, figures["embed"][name] = measure(name, options.assets)
        figures["models"][name] = report
        for view, entry in report.items():
            raw, new = entry["raw"], entry["calibrated"]
            ratio = new["ece"] / max(raw["ece"], np.finfo(float).tiny)
            print(
                f"{name:18} {view:6} {raw['ece']:8.3f} {new['ece']:9.3f} {ratio:6.2f} "
                f"{raw['brier']:11.3f} {new['brier']:9.3f}"
            )
    path = save("calibration", command("calibration"), 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
