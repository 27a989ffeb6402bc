"""How accurate the embedded models are: `python benchmarks/accuracy.py [--no-check]`.

On boxes that are given, through posekit's own runtime, with and without the flip test:

- COCO: 256 persons of 90 images of COCO 2017, boxes = ground truth. AR = the mean share of persons
  with an OKS above 0.50:0.05:0.95 (not the official protocol), AR50 = at 0.50. "Large" are the
  135 persons with 8 keypoints or more and an area above 48² px.
- LSPET check: 250 images of Leeds Sports Pose Extended. Box = the tight box of the labelled joints
  enlarged by 10 % of its longer side on each side. PCK = the share of the 12 limb joints within
  0.2 x max(the two shoulder-hip diagonals, 10 px). Never used to choose anything.

Writes results/accuracy.json; `benchmarks/embed.py` copies it for `posekit models`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from results_file import save

from posekit import Boxes, Bundle, Warp
from posekit.bundle import embedded
from posekit.geometry import oks
from posekit.runtime import Runtime
from posekit.skeletons import COCO_17

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("movenet-thunder", "movenet-lightning")
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
LARGE_AREA, LARGE_KEYPOINTS = 48**2, 8
# LSPET's limbs, in its order, as COCO's: ankle, knee, hip, wrist, elbow, shoulder.
LIMBS = (16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9)
DIAGONALS = ((8, 3), (9, 2))  # right shoulder to left hip and left shoulder to right hip
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Persons:
    """Labelled persons: boxes (N, 4) xyxy, joints (N, K, 3) with visibility, areas (N,) in px²."""

    images: list[Path]
    boxes: Array
    joints: Array
    areas: Array


def persons_of(folder: Path, annotations: Path) -> Persons:
    """Persons with a keypoint, crowds left out, in the order of a COCO file."""
    data = json.loads(annotations.read_text())
    files = {image["id"]: folder / image["file_name"] for image in data["images"]}
    rows = [a for a in data["annotations"] if a["num_keypoints"] and not a.get("iscrowd")]
    corner = np.array([a["bbox"] for a in rows], float)
    return Persons(
        images=[files[a["image_id"]] for a in rows],
        boxes=np.concatenate([corner[:, :2], corner[:, :2] + corner[:, 2:]], 1),
        joints=np.array([a["keypoints"] for a in rows], float).reshape(len(rows), -1, 3),
        areas=np.array([a["area"] for a in rows], float),
    )


def tight_boxes(joints: Array) -> Array:
    """LSPET's boxes: around the labelled joints, 10 % of the longer side added on each side."""
    boxes = []
    for person in joints:
        seen = person[person[:, 2] > 0, :2]
        low, high = seen.min(0), seen.max(0)
        margin = 0.1 * (high - low).max()
        boxes.append([*(low - margin), *(high + margin)])
    return np.array(boxes)


def estimate(runtime: Runtime, persons: Persons, boxes: Array) -> Array:
    """Points (N, 17, 2), frame px."""
    rows = defaultdict(list)
    for n, path in enumerate(persons.images):
        rows[path].append(n)
    points = np.zeros((len(boxes), len(COCO_17), 2), np.float32)
    for path, index in rows.items():
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"{path}: cannot be read")
        image = np.ascontiguousarray(picture[:, :, ::-1])
        warp = Warp.from_boxes(Boxes(boxes[index].astype(np.float32)), runtime.spec)
        found, _ = runtime.infer(runtime.crop(image, warp))
        points[index] = warp.to_frame(found)
    return points


def similarity(points: Array, persons: Persons) -> Array:
    """OKS of each person's points with its own labels, (N,)."""
    visible = (persons.joints[:, :, 2] > 0).astype(np.float32)
    one = [slice(n, n + 1) for n in range(len(points))]
    truth, areas = persons.joints[:, :, :2].astype(np.float32), persons.areas.astype(np.float32)
    values = [
        oks(truth[n], points[n], areas[n], sigmas=COCO_17.sigmas, visible=visible[n]) for n in one
    ]
    return np.concatenate(values).ravel()


def recall(values: Array) -> dict[str, float]:
    """AR and AR50, rounded to three digits."""
    shares = [(values > threshold).mean() for threshold in THRESHOLDS]
    return {"AR": round(float(np.mean(shares)), 3), "AR50": round(float(shares[0]), 3)}


def large(persons: Persons) -> Array:
    """Which persons are large and have enough keypoints."""
    count = (persons.joints[:, :, 2] > 0).sum(1)
    chosen: Array = (persons.areas > LARGE_AREA) & (count >= LARGE_KEYPOINTS)
    return chosen


def correct(points: Array, joints: Array, share: float = 0.2) -> float:
    """PCK of LSPET's 12 limb joints, over labelled joints."""
    truth, seen = joints[:, : len(LIMBS), :2], joints[:, : len(LIMBS), 2] > 0
    sides = [np.linalg.norm(truth[:, a] - truth[:, b], axis=1) for a, b in DIAGONALS]
    size = np.maximum(np.maximum(*sides), 10.0)
    far = np.linalg.norm(points[:, LIMBS] - truth, axis=2)
    return float((far < share * size[:, None])[seen].mean())


def measure(name: str, assets: Path, *, check: bool) -> dict[str, Any]:
    """One model's table."""
    folder = assets / "coco_kpts"
    coco = persons_of(folder / "images", folder / "person_keypoints.json")
    lspet = persons_of(assets / "lspet" / "check", assets / "lspet" / "check.json")
    figures: dict[str, Any] = {}
    for view, flip in (("plain", False), ("flip", True)):
        bundle = Bundle.open(embedded()[name])
        runtime = Runtime(bundle, device="cpu", threads=1, flip=flip)
        values = similarity(estimate(runtime, coco, coco.boxes), coco)
        row = {"coco": recall(values), "coco_large": recall(values[large(coco)])}
        if check:
            points = estimate(runtime, lspet, tight_boxes(lspet.joints))
            row["lspet"] = {"PCK@0.2": round(correct(points, lspet.joints), 3)}
        figures[view] = row
    return figures


def line(name: str, view: str, row: dict[str, Any]) -> str:
    """One printed row of the table."""
    cells = [f"{value:.3f}" for group in row.values() for value in group.values()]
    return f"{name:18} {view:6} " + "  ".join(cells)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--no-check", action="store_true", help="leave LSPET check alone")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    figures = {}
    print(f"{'':26}COCO AR  AR50  large AR AR50  LSPET PCK@0.2")
    for name in NAMES:
        figures[name] = measure(name, options.assets, check=not options.no_check)
        for view, row in figures[name].items():
            print(line(name, view, row))
    if options.no_check:
        return
    path = save("accuracy", "python benchmarks/accuracy.py", 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
