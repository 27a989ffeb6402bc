"""Synthetic corruptions: deterministic, and labels stay on the joints that they name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.finetune.media import blobs
from tests.synthetic import corruptions


@pytest.mark.parametrize("corruption", corruptions.CORRUPTIONS)
def test_a_corruption_depends_on_name_and_seed_alone(corruption: str) -> None:
    image = blobs(1, (160, 120))
    before = image.copy()
    made = [
        corruptions.corrupt(corruption, image, *key)[0]
        for key in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    ]
    assert (image == before).all()
    assert all(each.dtype == np.uint8 and each.shape[2] == 3 for each in made)
    assert (made[0] == made[1]).all()
    for other in made[2:]:
        assert other.shape != made[0].shape or (other != made[0]).any()


@pytest.mark.parametrize("corruption", ["dark", "lowres", "thermal"])
def test_only_roll_moves_anything(corruption: str) -> None:
    image = np.full((120, 160, 3), 20, np.uint8)
    cv2.circle(image, (100, 40), 10, (240, 240, 240), -1)
    shifted, matrix = corruptions.corrupt(corruption, image, "a.jpg", 0)
    assert shifted.shape == image.shape
    assert (matrix == np.eye(2, 3)).all()
    weight = np.abs(shifted.astype(float).mean(2) - np.median(shifted.mean(2)))
    weight[weight < weight.max() / 2] = 0
    rows, columns = np.mgrid[:120, :160]
    place = [(weight * axis).sum() / weight.sum() for axis in (columns, rows)]
    assert place == pytest.approx([100, 40], abs=1.0)


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
@pytest.mark.parametrize("size", [(161, 80), (64, 64), (50, 131)])
def test_roll_keeps_the_whole_frame_and_returns_its_matrix(
    name: str, size: tuple[int, int]
) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    spot = np.array([width * 0.7, height * 0.3]).round()
    cv2.circle(image, spot.astype(int).tolist(), 4, (255, 255, 255), -1)
    turned, matrix = corruptions.corrupt("roll", image, name, 0)
    edges = np.array([(x, y) for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
    there = corruptions.moved(edges, matrix)
    high = np.array(turned.shape[1::-1]) - 0.5
    assert (there >= -0.5 - 1e-6).all()
    assert (there <= high + 1e-6).all()
    assert ((there.min(0) < 0.5) & (there.max(0) > high - 1)).all()  # no larger than it must be
    rows, columns = np.mgrid[: turned.shape[0], : turned.shape[1]]
    weight = turned[:, :, 0].astype(float)
    found = [(weight * axis).sum() / weight.sum() for axis in (columns, rows)]
    assert found == pytest.approx(corruptions.moved(spot, matrix), abs=0.1)
    angle = abs(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    assert 30 <= angle <= 120


def test_images_are_darkened_coarsened_and_made_gray() -> None:
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8), (0, 0), 1
    )
    made = {
        name: corruptions.corrupt(name, image, "a", 0)[0].astype(float)
        for name in corruptions.CORRUPTIONS
    }
    assert made["dark"].mean() < 0.75 * image.mean()
    fine = [np.abs(np.diff(each.mean(2), axis=1)).mean() for each in (image, made["lowres"])]
    assert fine[1] < fine[0] / 2  # shrunk 2.3 times or more
    assert (made["thermal"] == made["thermal"][:, :, :1]).all()


def test_labels_turn_with_the_roll() -> None:
    image = blobs(1, (160, 120))
    _, matrix = corruptions.corrupt("roll", image, "a", 0)
    joints = [100.0, 40.0, 2.0, 80.0, 100.0, 1.0, 0.0, 0.0, 0.0]
    person = {"keypoints": joints, "bbox": [70, 30, 40, 80], "area": 900.0, "image_id": 1}
    new = corruptions.relabeled(person, matrix)
    moved = corruptions.moved(np.array([[100, 40], [80, 100]]), matrix)
    turned = np.array(new["keypoints"]).reshape(3, 3)
    assert turned[:2, :2] == pytest.approx(moved, abs=0.01)
    assert turned[:, 2].tolist() == [2, 1, 0]
    assert turned[2].tolist() == [0, 0, 0]
    x, y, width, height = new["bbox"]
    low, high = moved.min(0), moved.max(0)
    margin = 0.1 * (high - low).max()
    assert [x, y] == pytest.approx(low - margin, abs=0.02)
    assert [x + width, y + height] == pytest.approx(high + margin, abs=0.02)
    outline = {**person, "segmentation": [[60, 20, 120, 20, 90, 118]]}
    x, y, width, height = corruptions.relabeled(outline, matrix)["bbox"]
    ring = corruptions.moved(np.array([[60, 20], [120, 20], [90, 118]]), matrix)
    assert [x, y, width, height] == pytest.approx([*ring.min(0), *np.ptp(ring, 0)], abs=0.02)
    assert corruptions.relabeled(person, np.eye(2, 3)) is person


def test_a_folder_and_its_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(2):
        cv2.imwrite(str(tmp_path / "in" / f"{n}.jpg"), blobs(n))
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 96, "height": 96} for n in range(3)]
    rows = [{"image_id": n, "keypoints": [9, 9, 2], "bbox": [1, 1, 20, 20]} for n in range(3)]
    labels = tmp_path / "coco.json"
    labels.write_text(json.dumps({"images": images, "annotations": rows, "categories": []}))
    out = tmp_path / "out"
    count = corruptions.corrupt_folder("roll", tmp_path / "in", out, seed=0, annotations=labels)
    data = json.loads((out / "annotations.json").read_text())
    assert count == len(data["images"]) == len(data["annotations"]) == 2
    for image in data["images"]:
        written = cv2.imread(str(out / image["file_name"]))
        assert written.shape[:2] == (image["height"], image["width"])
