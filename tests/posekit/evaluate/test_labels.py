"""Label files: what is refused, whose image is whose, and which annotations are persons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import posekit
from posekit.detect import BoxFile
from posekit.errors import InputError, SourceError
from posekit.evaluate import predict, read_annotations, score
from posekit.skeletons import COCO_17
from tests.support.assets import ROOT
from tests.support.labels import own_prediction


def labels_of(data: dict[str, Any] | None = None, **person: Any) -> str:
    """A COCO file of one person in a.jpg, with some fields of the file or the person replaced."""
    whole = {"image_id": 1, "bbox": [0, 0, 5, 5], "keypoints": [1, 2, 2] * 17, **person}
    images = [{"id": 1, "file_name": "a.jpg"}]
    text = json.dumps({"images": images, "annotations": [whole], **(data or {})})
    return text.replace("Infinity", "1e999")


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("{", InputError, "not JSON"),
        ("{}", InputError, "not COCO"),
        ("[3]", InputError, "not COCO"),
        ("[" * 100_000, InputError, "nested deeper"),
        (labels_of({"annotations": []}), InputError, "no annotated person"),
        (labels_of(bbox=None), InputError, "annotation 0: has no bbox"),
        (labels_of(bbox=[0, 0, 1e999, 5]), InputError, r"bbox\[2\]: .* got inf"),
        (labels_of(bbox=[0, 0, 10**400, 5]), InputError, "bbox"),
        (labels_of(area="x"), InputError, "annotation 0: area: wanted a finite number"),
        (labels_of(area=10**400), InputError, "annotation 0: area: .* an integer of"),
        (labels_of(keypoints=[[1, 2]] * 51), InputError, r"annotation 0: keypoints\[0\]"),
        (labels_of(keypoints=[1, 2, 2]), InputError, "3 keypoint numbers; wanted 51"),
        (labels_of(image_id=2), InputError, "image_id 2 is not among"),
        (labels_of(image_id=[]), InputError, "annotation 0: image_id: wanted a whole number"),
        (labels_of({"images": [{"id": 10**30, "file_name": "a.jpg"}]}), InputError, "image 0"),
        (labels_of({"images": [{"id": 1, "file_name": 3}]}), InputError, "file_name"),
        (
            labels_of({"images": [{"id": 1, "file_name": name} for name in ("a", "b")]}),
            InputError,
            "images 'a' and 'b' have the same id 1",
        ),
        (labels_of(), SourceError, r"a\.jpg"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(
    tmp_path: Path, content: str, error: type[Exception], words: str
) -> None:
    file = tmp_path / "labels.json"
    file.write_text(content)
    with pytest.raises(error, match=words) as caught:
        read_annotations(file, tmp_path)
    assert "\n" not in str(caught.value)


def test_ids_and_folders_of_images_do_not_change_the_figures(tmp_path: Path) -> None:
    """Two images of one base name; ids as numbers, as texts, and a horse beside the persons."""
    estimator = posekit.load("movenet-lightning", "cpu", 1, flip=False, boxes="full")
    photo = ROOT / "tests/data/coco_000000397133.jpg"
    (row,) = json.loads(own_prediction(estimator, photo, tmp_path).read_text())["annotations"]
    figures, names = [], ["cam1/a.jpg", "cam2/a.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(photo.read_bytes())
    categories = [{"id": n, "name": name, "keypoints": list(COCO_17.keypoints)}
                  for n, name in ((1, "horse"), (5, "Person"))]  # fmt: skip
    for keys, extra in (([3, 9], False), (["frame-a", "frame-b"], False), (["3", 9], True)):
        rows = [{**row, "id": n, "image_id": key, "category_id": 5} for n, key in enumerate(keys)]
        rows[1]["keypoints"] = [value + 9 for value in row["keypoints"]]
        rows += [{**row, "image_id": keys[0], "category_id": 1, "bbox": [0, 0, 50, 50]}] * extra
        images = [{"id": k, "file_name": n} for k, n in zip(keys, names, strict=True)]
        file = tmp_path / "set.json"
        data = {"images": images, "annotations": rows, "categories": categories}
        file.write_text(json.dumps(data))
        read = read_annotations(file, tmp_path)
        assert len(read) == 2
        assert bool(read.notes) == extra
        spec = estimator.runtime.spec
        found = predict(estimator, read, skeleton=spec.skeleton)
        figures.append(score(found, read, spec).figures()["metrics"]["AP"][0])
    assert figures[0] == figures[1] == figures[2] < 1


def test_two_names_never_mean_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    images = [{"id": n, "file_name": f"cam{n}/a.jpg"} for n in (1, 2)]
    file = tmp_path / "set.json"
    file.write_text(labels_of({"images": images}))
    with pytest.raises(InputError, match=r"'cam1/a\.jpg' and 'cam2/a\.jpg' would both be"):
        read_annotations(file, tmp_path)


def test_boxes_of_a_file_are_matched_by_the_labels_own_names_and_ids(tmp_path: Path) -> None:
    estimator = posekit.load("movenet-lightning", "cpu", 1, flip=False, boxes="full")
    image = ROOT / "tests/data/coco_000000397133.jpg"
    read = read_annotations(own_prediction(estimator, image, tmp_path), image.parent)
    box = {"bbox": [380, 60, 140, 310]}
    for row in ({"image_id": 7}, {"image_id": 1, "file_name": image.name}):
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps([{**row, **box}]))
        find = BoxFile(file)
        found = predict(estimator, read, find, skeleton=COCO_17)
        assert found.boxes.xyxy.tolist() == [[380, 60, 520, 370]]
        assert find.notes == []
