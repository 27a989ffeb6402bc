"""posekit eval --views: the ensemble is judged as infer runs it, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

import posekit
from posekit.cli import app
from posekit.estimate import EstimateOptions
from posekit.evaluate import read_annotations
from posekit.video.images import read_image
from tests.support.assets import shipped

BOX = (384.0, 70.0, 113.0, 278.0)


def labels_as_predicted(folder: Path) -> Path:
    """A COCO file whose labels are what two views of Lightning predict."""
    image = shipped("tests/data/coco_000000397133.jpg")
    options = EstimateOptions(views=2)
    estimator = posekit.load("movenet-lightning", "cpu", 1, boxes="full", options=options)
    x, y, width, height = BOX
    boxes = np.array([[x, y, x + width, y + height]], np.float32)
    points = estimator(read_image(image), boxes).points[0]
    joints = np.concatenate([points, np.full((17, 1), 2.0)], 1)
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": list(BOX), "area": width * height}
    data = {
        "images": [{"id": 1, "file_name": image.name}],
        "annotations": [{**person, "iscrowd": 0, "keypoints": joints.ravel().tolist()}],
        "categories": [{"id": 1, "keypoints": list(estimator.runtime.spec.skeleton.keypoints)}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(data))
    return path


def test_it_measures_what_the_views_predict_and_names_their_cost(tmp_path: Path) -> None:
    """Against labels that two views predict, two views are off by the file's rounding and the
    upright view by more.
    """
    labels = labels_as_predicted(tmp_path)
    images = shipped("tests/data/coco_000000397133.jpg").parent
    assert len(read_annotations(labels, images)) == 1
    command = ["eval", "movenet-lightning", "--images", str(images), "--annotations", str(labels)]
    command += ["--device", "cpu", "--threads", "1", "--json", "-"]
    runs = {}
    for name, more in {"two": ["--views", "2"], "plain": ["--no-flip"]}.items():
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 0, done.output
        runs[name] = json.loads(done.stdout)
        assert ("2 views a person, 2 times" in done.stderr) == (name == "two")
    assert runs["two"]["run"]["views"] == 2
    assert runs["plain"]["run"]["views"] is None
    far = {name: run["figures"]["metrics"]["NME size"][0] for name, run in runs.items()}
    assert far["two"] < 1e-4 < far["plain"]
