"""Labels that tests make themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import posekit
from posekit.skeletons import COCO_17
from posekit.types import Poses


def own_prediction(estimator: posekit.Estimator, image: Path, folder: Path) -> Path:
    """COCO labels that are what the model itself predicts in a box."""
    from posekit.video.images import read_image

    box = np.array([[380, 60, 520, 370]], np.float32)
    poses: Poses = estimator(read_image(image), box)
    flat = np.concatenate([poses.points[0], np.full((17, 1), 2)], 1).ravel().tolist()
    person = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [380, 60, 140, 310]}
    person |= {"keypoints": flat, "area": 20_000, "iscrowd": 0}
    data = {"images": [{"id": 7, "file_name": image.name}], "annotations": [person]}
    path = folder / "labels.json"
    path.write_text(json.dumps(data))
    return path


def one_person(name: str) -> dict[str, Any]:
    """One person in COCO's form; made up, so no figure of a page may come from it."""
    box = [388.7, 70.0, 109.4, 276.7]
    flat = [v for n in range(17) for v in (400.0 + 5 * n, 90.0 + 14 * n, 2)]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 16000.0}
    person |= {"iscrowd": 0, "num_keypoints": 17, "keypoints": flat}
    category = {"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}
    image = {"id": 1, "file_name": name, "width": 640, "height": 427}
    return {"images": [image], "annotations": [person], "categories": [category]}
