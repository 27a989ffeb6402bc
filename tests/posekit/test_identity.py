"""Who is who: one image has one name and one id in every output, and its own boxes come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posekit.detect import BoxFile
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Frame, Poses
from posekit.write import Header, open_writers
from tests.support.assets import ROOT, shipped
from tests.support.written import strict

IMAGE = np.zeros((300, 400, 3), np.uint8)
FAST = ("-m", "movenet-lightning", "--no-flip", "--threads", "1", "--no-video")
PHOTO = "tests/data/coco_000000397133.jpg"

parts = st.sampled_from(["cam1", "cam2", "0001", "7", "ä b", "x.y"])
names = st.lists(
    st.lists(parts, min_size=1, max_size=3).map(lambda each: "/".join(each) + ".jpg"),
    min_size=1,
    max_size=8,
    unique=True,
)


def persons(count: int, seed: int) -> Poses:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 100, (count, 2))
    boxes = Boxes(np.concatenate([low, low + rng.integers(1, 200, (count, 2))], 1))
    points = rng.uniform(0, 200, (count, 17, 2))
    return Poses(points, np.full((count, 17), 0.5), boxes, COCO_17)


def written(folder: Path, frames: list[tuple[Frame, Poses]], *formats: str) -> list[Path]:
    images = tuple(frame.name for frame, _ in frames if frame.name)
    header = Header("1", "m", "0", COCO_17, "s", images=images)
    writers = open_writers(formats, folder, "out", header=header)
    for frame, poses in frames:
        writers.write(frame, poses)
    return writers.close()


@given(names, st.lists(st.integers(0, 3), min_size=8, max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_one_run_writes_another_reads_as_boxes(images: list[str], counts: list[int]) -> None:
    """Through JSON Lines and COCO results, each image has its own boxes again, in any order."""
    found = {name: persons(count, n) for n, (name, count) in enumerate(zip(images, counts))}  # noqa: B905
    frames = [(Frame(IMAGE, n, float(n), name), found[name]) for n, name in enumerate(images)]
    with tempfile.TemporaryDirectory() as folder:
        for path in written(Path(folder), frames, "jsonl", "coco"):
            boxes = BoxFile(path)
            for index, name in enumerate(reversed(images)):
                assert boxes.boxes(index, name).xyxy.tolist() == found[name].boxes.xyxy.tolist()
            assert bool(boxes.notes) == (path.suffix == ".json" and 0 in counts[: len(images)])


@given(names)
@settings(max_examples=60, deadline=None)
def test_every_image_has_an_id_of_its_own(images: list[str]) -> None:
    frames = [(Frame(IMAGE, n, float(n), name), persons(1, n)) for n, name in enumerate(images)]
    with tempfile.TemporaryDirectory() as folder:
        coco, studio = written(Path(folder), frames, "coco", "labelstudio")
        entries, tasks = strict(coco.read_text("utf-8")), strict(studio.read_text("utf-8"))
    assert [entry["file_name"] for entry in entries] == images
    assert len({entry["image_id"] for entry in entries}) == len(images)
    assert [task["data"]["image"] for task in tasks] == images


def test_the_number_in_a_name_is_the_id_where_it_is_unique(tmp_path: Path) -> None:
    for images, ids in (
        (["000139.jpg", "000285.jpg"], [139, 285]),
        (["cam1/0001.jpg", "cam2/0001.jpg"], [0, 1]),
        (["1.jpg", "b.jpg"], [0, 1]),  # b's index is 1's number
        ([f"{'9' * 30}.jpg", "5.jpg"], [0, 5]),  # no 64-bit id
    ):
        frames = [(Frame(IMAGE, n, 0.0, name), persons(1, n)) for n, name in enumerate(images)]
        (path,) = written(tmp_path / images[0], frames, "coco")
        assert [entry["image_id"] for entry in strict(path.read_text())] == ids


def test_pages_of_one_file_differ_by_their_frame(tmp_path: Path) -> None:
    frames = [(Frame(IMAGE, n, float(n), "12.tif"), persons(n + 1, n)) for n in range(3)]
    jsonl, coco = written(tmp_path, frames, "jsonl", "coco")
    assert len({entry["image_id"] for entry in strict(coco.read_text())}) == 3
    boxes = BoxFile(jsonl)
    assert [len(boxes.boxes(n, "12.tif")) for n in range(4)] == [1, 2, 3, 0]
    assert "no entry for 1 frames" in boxes.notes[0]


def run(*arguments: object) -> str:
    """`posekit` as a person runs it; what it prints."""
    command = [sys.executable, "-m", "posekit", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]


def test_two_folders_with_equal_names_are_two_images(tmp_path: Path) -> None:
    """A photo with several persons and its left half: each run finds its own boxes again."""
    image = cv2.imread(str(shipped(PHOTO)))
    for folder, content in (("cam1", image), ("cam2", image[:, :330])):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / folder / "0001.jpg"), content)
    pattern = str(tmp_path / "in" / "**" / "*.jpg")
    run("infer", pattern, *FAST, "--min-score", 0, "--format", "jsonl,coco", "-o", tmp_path / "a")
    first = lines(tmp_path / "a" / "cam1.jsonl")
    assert [line["file"] for line in first] == ["cam1/0001.jpg", "cam2/0001.jpg"]
    for name in ("cam1.jsonl", "cam1.coco.json"):
        boxes = ("--boxes", tmp_path / "a" / name, "--min-score", 0)
        run("infer", pattern, *FAST, *boxes, "--overwrite", "-o", tmp_path / "b")
        again = lines(tmp_path / "b" / "cam1.jsonl")
        for line, other in zip(first, again, strict=True):
            wanted = [person["box"] for person in line["persons"]]
            assert [person["box"] for person in other["persons"]] == [
                pytest.approx(box, abs=0.02) for box in wanted
            ]


def test_the_category_of_a_box_file_is_an_option(tmp_path: Path) -> None:
    """The boxes of the category that is named, of the photo's two; counted with --max-boxes."""
    photo = shipped(PHOTO)
    categories = [{"id": 2, "name": "cook"}, {"id": 5, "name": "guest"}]
    boxes = ([380, 60, 140, 310], [0, 100, 100, 200])
    rows = [
        {"image_id": 1, "category_id": entry["id"], "bbox": box}
        for entry, box in zip(categories, boxes, strict=True)
    ]
    data = {"images": [{"id": 1, "file_name": photo.name}], "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps({**data, "annotations": rows}))
    options = ("--boxes", tmp_path / "boxes.json", "--min-score", 0, "-o", tmp_path / "out")
    run("infer", photo, *FAST, *options, "--category", "Guest", "--max-boxes", 1)
    (line,) = lines(tmp_path / "out" / f"{photo.stem}.jsonl")
    assert [person["box"] for person in line["persons"]] == [[0, 100, 100, 300]]
    summary = json.loads((tmp_path / "out" / f"{photo.stem}.summary.json").read_text("utf-8"))
    assert "1 annotations of other categories are left out" in summary["boxes"]["notes"][0]
