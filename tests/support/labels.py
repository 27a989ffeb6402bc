"""Labels that tests make themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import posekit
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
