"""What views are worth for persons in any posture: `python benchmarks/turned.py [MODEL ...]`.

COCO as in benchmarks/accuracy.py, each person's crop upright and turned by an angle of its own
(uniform over the circle, one seed), seen in 1, 2, 4, 8 and 16 views of `posekit infer --views`.
The number of views that teach in `posekit adapt` was chosen here, not on LSPET.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from accuracy import Array, Persons, persons_of, recall, similarity
from results_file import FOLDER, save

from posekit import Boxes, Bundle, Warp
from posekit.bundle import embedded
from posekit.geometry import compose
from posekit.tta import VIEWS, TtaRuntime, View, matrix_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("movenet-lightning", "movenet-thunder")


def estimate(runtime: TtaRuntime, persons: Persons, angles: Array) -> Array:
    """Points (N, 17, 2), frame px, of crops turned by `angles` (N,), degrees."""
    points = np.zeros((len(angles), len(runtime.spec.skeleton), 2), np.float32)
    for n, path in enumerate(persons.images):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"{path}: cannot be read")
        image = np.ascontiguousarray(picture[:, :, ::-1])
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
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("models", nargs="*", default=list(NAMES), help="none: both")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    folder = options.assets / "coco_kpts"
    coco = persons_of(folder / "images", folder / "person_keypoints.json")
    for name in options.models:
        found = measure(name, coco)
        path = FOLDER / "turned.json"
        done = json.loads(path.read_text())["figures"] if path.exists() else {}
        save("turned", "python benchmarks/turned.py", 1, {**done, name: found})
    print("wrote results/turned.json")


if __name__ == "__main__":
    main()
