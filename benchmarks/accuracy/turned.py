"""Gain of test-time augmentation for persons in any posture: `python -m benchmarks turned`.

COCO as in the program `accuracy`, each person's crop upright and rotated by an angle of its own
(uniform over the circle, one seed), in 1, 2, 4, 8 and 16 views of `posekit infer --views`. The
number of views of the teacher of `posekit adapt` was chosen here, not on LSPET.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.accuracy.persons import (
    Array,
    Persons,
    coco_persons,
    read_image,
    recall,
    similarity,
)
from benchmarks.results_file import ASSETS, command, figures_of, save
from posekit import Boxes, Bundle, Warp
from posekit.bundle import embedded
from posekit.geometry import compose
from posekit.inference.tta import VIEWS, TtaRuntime, View, matrix_of

NAMES = ("movenet-lightning", "movenet-thunder")


def estimate(runtime: TtaRuntime, persons: Persons, angles: Array) -> Array:
    """Points (N, 17, 2), frame px, of crops rotated by `angles` (N,), degrees."""
    points = np.zeros((len(angles), len(runtime.spec.skeleton), 2), np.float32)
    for n, path in enumerate(persons.images):
        image = read_image(path)
        upright = Warp.from_boxes(Boxes(persons.boxes[n : n + 1].astype(np.float32)), runtime.spec)
        turn = matrix_of(View(float(angles[n])), runtime.spec)
        warp = Warp(compose(turn[None], upright.matrix))
        found, _ = runtime.infer(runtime.crop(image, warp))
        points[n] = warp.to_frame(found)[0]
    return points


def measure(name: str, coco: Persons) -> dict[str, Any]:
    """AR by number of views, upright and turned."""
    bundle = Bundle.open(embedded()[name])
    turned = np.random.default_rng(5).uniform(-180, 180, len(coco.boxes))
    figures: dict[str, Any] = {}
    for views in VIEWS:
        runtime = TtaRuntime(bundle, views=views, device="cpu", threads=1)
        row = {
            posture: recall(similarity(estimate(runtime, coco, angles), coco))
            for posture, angles in (("upright", 0 * turned), ("turned", turned))
        }
        figures[str(views)] = row
        cells = "  ".join(f"{posture} {row[posture]['AR']:.3f}" for posture in row)
        print(f"{name:18} {views:3} views  COCO AR {cells}", flush=True)
    return figures


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("models", nargs="*", default=list(NAMES), help="none: both")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    coco = coco_persons(options.assets)
    for name in options.models:
        found = measure(name, coco)
        save("turned", command("turned"), 1, {**figures_of("turned"), name: found})
    print("wrote results/turned.json")


if __name__ == "__main__":
    main()
