"""Labeled persons of COCO and LSPET, and how right points are on them.

LSPET's boxes are the tight box of the labeled joints enlarged by 10 % of its longer side on each
side; its PCK is over the 12 limb joints.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit import Boxes, Warp
from posekit.geometry import oks
from posekit.inference.runtime import PoseRuntime
from posekit.skeletons import COCO_17
from posekit.types import UInt8

NAMES = ("movenet-thunder", "movenet-lightning")
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
LARGE_AREA, LARGE_KEYPOINTS = 48**2, 8
# LSPET's limbs, in its order, as COCO's: ankle, knee, hip, wrist, elbow, shoulder.
LIMBS = (16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9)
DIAGONALS = ((8, 3), (9, 2))  # right shoulder to left hip and left shoulder to right hip
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Persons:
    """Labeled persons: boxes (N, 4) xyxy, joints (N, K, 3) with visibility, areas (N,) in px²."""

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


def coco_persons(assets: Path) -> Persons:
    """256 persons of 90 images of COCO 2017."""
    folder = assets / "coco_kpts"
    return persons_of(folder / "images", folder / "person_keypoints.json")


def lspet_persons(assets: Path) -> Persons:
    """The persons of 250 images of Leeds Sports Pose Extended."""
    return persons_of(assets / "lspet" / "check", assets / "lspet" / "check.json")


def read_image(path: Path) -> UInt8:
    """An image file, uint8 (H, W, 3) RGB."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{path}: cannot be read")
    return np.ascontiguousarray(bgr[:, :, ::-1], np.uint8)


def tight_boxes(joints: Array) -> Array:
    """LSPET's boxes: around the labeled joints, 10 % of the longer side added on each side."""
    boxes = []
    for person in joints:
        labeled = person[person[:, 2] > 0, :2]
        low, high = labeled.min(0), labeled.max(0)
        margin = 0.1 * (high - low).max()
        boxes.append([*(low - margin), *(high + margin)])
    return np.array(boxes)


def estimate(runtime: PoseRuntime, persons: Persons, boxes: Array) -> Array:
    """Points (N, 17, 2), frame px."""
    rows = defaultdict(list)
    for n, path in enumerate(persons.images):
        rows[path].append(n)
    points = np.zeros((len(boxes), len(COCO_17), 2), np.float32)
    for path, index in rows.items():
        image = read_image(path)
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


def hits(points: Array, joints: Array, share: float = 0.2) -> Array:
    """Which of LSPET's 12 limb joints are within `share` of the torso, (N, 12); NaN: no label.

    The torso is the longer of the two shoulder-hip diagonals, at least 10 px.
    """
    truth, labeled = joints[:, : len(LIMBS), :2], joints[:, : len(LIMBS), 2] > 0
    sides = [np.linalg.norm(truth[:, a] - truth[:, b], axis=1) for a, b in DIAGONALS]
    size = np.maximum(np.maximum(*sides), 10.0)
    distance = np.linalg.norm(points[:, LIMBS] - truth, axis=2)
    return np.where(labeled, distance < share * size[:, None], np.nan)


def correct(points: Array, joints: Array, share: float = 0.2) -> float:
    """PCK of LSPET's 12 limb joints, over labeled joints."""
    return float(np.nanmean(hits(points, joints, share)))
