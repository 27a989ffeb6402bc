"""LabeledPersons persons: joints by name, in crop pixels, in the paper's order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posekit.checkpoints.layouts import UNION
from posekit.errors import DataError, InputError
from posekit.evaluate import read_annotations
from posekit.geometry import Warp
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Boxes
from posekit_finetune.data.annotations import UNION_24, LabelOptions, read_labeled
from posekit_finetune.data.labeled import LabeledPersons
from tests.finetune.media import SPEC, blobs
from tests.support.assets import shared

Data = dict[str, Any]


def coco(folder: Path, annotations: list[Data], names: list[str] | None = None) -> Path:
    """A COCO file of two images, the first one listed last, and its images."""
    for number in (1, 2):
        cv2.imwrite(str(folder / f"{number}.png"), blobs(number))
    images = [{"id": number, "file_name": f"{number}.png"} for number in (2, 1)]
    categories = [{"id": 1, "name": "person", "keypoints": names or list(COCO_17.keypoints)}]
    path = folder / "labels.json"
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data))
    return path


def person(image: int, x: float = 30.0, count: int = 17, **more: Any) -> Data:
    """A person whose joints all lie at (x, 40); the first is not labeled, the second hidden."""
    joints = np.tile([x, 40.0, 2.0], (count, 1))
    joints[0] = 0
    joints[1, 2] = 1
    row = {"image_id": image, "keypoints": joints.ravel().tolist(), "bbox": [10, 20, 60, 50]}
    return {**row, "iscrowd": 0, **more}


def read(path: Path, **options: Any) -> LabeledPersons:
    chosen = LabelOptions(**options)
    return read_labeled(path, path.parent, SPEC, options=chosen, work=path.parent / "work")


def test_joints_land_where_the_crop_shows_them(tmp_path: Path) -> None:
    labeled = read(coco(tmp_path, [person(1), person(2, x=50.0)]))
    assert labeled.persons.sources == ("2.png", "1.png")  # by the file's images
    warp = Warp.from_boxes(Boxes(labeled.persons.boxes), SPEC)
    assert labeled.persons.boxes.tolist() == [[10, 20, 70, 70]] * 2
    back = warp.to_frame(labeled.points)
    assert back[0, 1:] == pytest.approx(np.tile([50, 40], (16, 1)), abs=1e-3)
    assert back[1, 1:] == pytest.approx(np.tile([30, 40], (16, 1)), abs=1e-3)
    assert labeled.weights.tolist() == [[0.0, *[1.0] * 16]] * 2
    assert labeled.known.all()
    # what the image shows there, the crop shows at the point
    x, y = labeled.points[1, 5].round().astype(int)
    crop = labeled.persons.crops([1])[0]
    assert crop[y, x].astype(int) == pytest.approx(blobs(1)[40, 30, ::-1].astype(int), abs=24)


def test_the_union_head_agrees_with_the_checkpoints_that_have_it() -> None:
    for skeleton, channels in UNION.values():
        names = tuple(UNION_24.keypoints[channel] for channel in channels)
        assert names == skeleton.keypoints
        mirrored = [UNION_24.mirror[channel] for channel in channels]
        assert mirrored == [channels[k] for k in skeleton.mirror]
    assert len(UNION_24) == 24


@pytest.mark.parametrize("skeleton", [COCO_17, MPII_16, AIC_14], ids=lambda s: s.name)
def test_names_are_normalized_and_joints_that_a_data_set_lacks_are_not_known(
    tmp_path: Path, skeleton: Any
) -> None:
    spelled = [
        name.replace("_", "-" if len(name) % 2 else " ").title() for name in skeleton.keypoints
    ]
    path = coco(tmp_path, [person(1, count=len(skeleton))], spelled)
    labeled = read(path, skeleton=UNION_24)
    known = [name in skeleton.keypoints for name in UNION_24.keypoints]
    assert labeled.known.tolist() == known
    assert labeled.weights.sum() == len(skeleton) - 1
    assert (labeled.weights[0] <= labeled.known).all()


def test_the_first_instances_are_the_first_of_the_images(tmp_path: Path) -> None:
    crowd, flat = person(2, iscrowd=1), person(2, bbox=[1, 2, 0, 9])
    unlabeled = person(2, keypoints=[0] * 51)
    rows = [person(1, x=11.0), person(1, x=12.0), crowd, flat, unlabeled, person(2, x=21.0)]
    labeled = read(coco(tmp_path, rows), first=2)
    warp = Warp.from_boxes(Boxes(labeled.persons.boxes), SPEC)
    assert warp.to_frame(labeled.points)[:, 5, 0].tolist() == pytest.approx([21, 11], abs=1e-3)
    assert labeled.persons.groups.tolist() == [0, 1]
    assert len(read(tmp_path / "labels.json")) == 3


def test_a_second_read_is_the_same_and_needs_no_images_decoded(tmp_path: Path) -> None:
    path = coco(tmp_path, [person(1), person(2)])
    first = read(path)
    (folder,) = (tmp_path / "work").iterdir()
    stamp = folder.stat().st_mtime_ns
    again = read(path)
    assert (again.points == first.points).all()
    assert again.persons.fingerprint == first.persons.fingerprint
    assert folder.stat().st_mtime_ns == stamp


def test_mpii_counts_pixels_from_one_and_has_center_and_scale(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), blobs(1))
    joints = [[31.0 + k, 41.0] for k in range(16)]
    entry = {"image": "a.png", "joints": joints, "joints_vis": [0, *[1] * 15], "scale": 0.2}
    path = tmp_path / "mpii.json"
    path.write_text(json.dumps([{**entry, "center": [51.0, 48.0]}]))
    spec = dataclasses.replace(SPEC, skeleton=MPII_16)
    labeled = read_labeled(path, tmp_path, spec, work=tmp_path / "work")
    assert labeled.persons.boxes.tolist() == [[30, 30, 70, 70]]
    warp = Warp.from_boxes(Boxes(labeled.persons.boxes), spec)
    back = warp.to_frame(labeled.points)[0, 1:]
    assert back == pytest.approx(np.array([[30.0 + k, 40.0] for k in range(1, 16)]), abs=1e-3)
    assert labeled.weights[0, 0] == 0


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([person(1, keypoints=[1, 2, 2])], "3 keypoint numbers; wanted 51"),
        ([person(1, bbox=["a", 1, 2, 3])], r"annotation 0: bbox\[0\]: wanted a finite number"),
        ([person(1, bbox=[0, 0, float("nan"), 3])], "NaN is no number"),
        ([person(7)], "image_id 7 is not among"),
        ([], "no person in it"),
    ],
)
def test_the_error_names_the_wrong_annotation(
    tmp_path: Path, annotations: list[Data], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(coco(tmp_path, annotations))


def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    for text, message in (
        ("{", "not JSON"),
        ("[1]", "not COCO keypoint annotations"),
        ("{}", "not COCO"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        read(path)
    with pytest.raises(InputError, match="1 instance"):
        read(path, first=0)


def test_the_error_names_missing_and_damaged_images_and_unknown_joints(tmp_path: Path) -> None:
    path = coco(tmp_path, [person(1), person(2)])
    (tmp_path / "2.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"2\.png"):
        read(path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match="which is not in"):
        read(path)
    with pytest.raises(DataError, match="none of its joints"):
        read(coco(tmp_path, [person(1)], [f"thumb {n}" for n in range(17)]))


@pytest.mark.assets
@pytest.mark.parametrize(
    ("folder", "file", "skeleton", "count"),
    [
        ("coco", "test_coco.json", COCO_17, 12),
        ("aic", "test_aic.json", AIC_14, 9),
        ("mhp", "test_mhp.json", MPII_16, 4),
        ("crowdpose", "test_crowdpose.json", COCO_17, 4),
        ("mpii", "test_mpii.json", MPII_16, 5),
        ("lspet", "check.json", UNION_24, 20),
    ],
)
def test_real_annotations_fit_their_images(
    tmp_path: Path, folder: str, file: str, skeleton: Any, count: int
) -> None:
    root = shared("lspet" if folder == "lspet" else f"mmpose_testdata/{folder}")
    images = root / "check" if folder == "lspet" else root
    options = LabelOptions(first=20, skeleton=skeleton)
    labeled = read_labeled(root / file, images, SPEC, options=options, work=tmp_path)
    assert len(labeled) == count
    inside = ((labeled.points > -16) & (labeled.points < 80)).all(2)  # the crop and its margin
    assert inside[labeled.weights > 0].mean() > 0.97
    assert labeled.weights.sum(1).min() >= 1


def test_only_the_persons_category_is_learned_from(tmp_path: Path) -> None:
    """The same persons that eval takes; what is left out is in the notes."""
    horse = person(1, category_id=2)
    path = coco(tmp_path, [person(2, category_id=1), horse, person(1, category_id=1, x=50.0)])
    data = json.loads(path.read_text())
    data["categories"].append({**data["categories"][0], "id": 2, "name": "horse"})
    path.write_text(json.dumps(data))
    labeled = read(path)
    assert len(labeled) == len(read_annotations(path, tmp_path)) == 2
    assert labeled.notes == (f"{path}: 1 annotations of other categories are left out",)
    horses = read(path, category="Horse")
    assert len(horses) == len(read_annotations(path, tmp_path, category="2")) == 1


def test_text_ids_and_equal_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    names = ["cam1/1.png", "cam2/1.png"]
    for number, name in enumerate(names, start=1):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), blobs(number))
    images = [{"id": f"frame-{n}", "file_name": name} for n, name in enumerate(names)]
    path = tmp_path / "labels.json"
    rows = [{**person(1), "image_id": image["id"]} for image in images]
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    labeled = read(path)
    assert labeled.persons.sources == tuple(names)
    assert labeled.persons.groups.tolist() == [0, 1]
    assert (labeled.persons.crops([0]) != labeled.persons.crops([1])).any()
