"""posekit.detect.box_file: boxes that another program found."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit.detect import BoxFile
from posekit.errors import InputError, SourceError
from posekit.types import Frame
from posekit.video import expand
from tests.support.clips import make_clip, numbered


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


COCO = {
    "images": [{"id": 7, "file_name": "a/x.jpg"}, {"id": 9, "file_name": "y.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "person"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "bbox": [10, 20, 5, 6]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def test_a_coco_data_set_gives_persons_by_file_name(tmp_path):
    boxes = BoxFile(write(tmp_path / "coco.json", COCO))
    image = np.zeros((50, 50, 3), np.uint8)
    for name in ("x.jpg", "a/x.jpg"):
        assert boxes(Frame(image, 0, name=name)).xyxy.tolist() == [[10, 20, 15, 26]]
    assert len(boxes.boxes(1, "y.jpg")) == 0
    assert boxes.boxes(7).xyxy.tolist() == [[10, 20, 15, 26]]  # a video: frame = image id
    with pytest.raises(InputError, match=r"has no image 'z\.jpg'; it holds"):
        boxes.boxes(0, "z.jpg")


def test_coco_results_are_found_by_number_in_the_name_or_frame(tmp_path):
    entry = {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.75}
    boxes = BoxFile(write(tmp_path / "results.json", [entry]))
    for found in (boxes.boxes(0, "000000000139.jpg"), boxes.boxes(139)):
        assert found.xyxy.tolist() == [[1, 2, 4, 6]]
        assert found.scores.tolist() == [0.75]
    assert len(boxes.boxes(0, "other.jpg")) == 0


LINES = """{"frame": 0, "boxes": [[1, 2, 3, 4, 0.5], [5, 6, 7, 8]]}

{"frame": 2, "boxes": []}
{"frame": 3, "boxes": [[0, 0, 1, 1]]}
"""


def test_json_lines_give_boxes_by_frame(tmp_path):
    boxes = BoxFile(write(tmp_path / "boxes.jsonl", LINES))
    assert boxes.boxes(0).xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes.boxes(0).scores.tolist() == [0.5, 1]
    assert [len(boxes.boxes(n)) for n in range(5)] == [2, 0, 0, 1, 0]


def test_posekits_own_results_serve_as_boxes(tmp_path):
    lines = [
        {"posekit": "0.1.0", "model": "m", "skeleton": {}, "source": "s"},
        {"frame": 4, "file": "b.jpg", "persons": [{"box": [1, 2, 3, 4], "box_score": 0.25}]},
    ]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, lines)))
    boxes = BoxFile(path)
    assert boxes.boxes(4).xyxy.tolist() == [[1, 2, 3, 4]]
    assert boxes.boxes(0, "b.jpg").scores.tolist() == [0.25]
    assert len(boxes.boxes(4, "c.jpg")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"frame": 0, "boxes": []}\n{"frame": 1', "line 2: not JSON"),
        ('{"frame": 0, "boxes": []}\n[1, 2]', "line 2: wanted an object"),
        ('{"frame": "0", "boxes": []}', "line 1: frame: wanted a whole number from 0 .*, got '0'"),
        ('{"frame": 0}', "line 1: wanted boxes or persons"),
        ('{"frame": 0, "boxes": [[1, 2, 3]]}', "line 1: box 0: wanted a list of 4 numbers"),
        ('{"frame": 0, "boxes": [[1, 2, 3, "4"]]}', r"line 1: box 0\[3\]: wanted a finite number"),
        ('{"frame": 5, "boxes": [[9, 0, 1, 1]]}', "frame 5: boxes: row 0"),
        ('{"frame": 5, "boxes": [[0, 0, 1, NaN]]}', "NaN is no number of JSON"),
        ('{"frame": 5, "boxes": [[0, 0, 1, 1, 87]]}', "box 0: score: wanted .* from 0 to 1"),
        ({"annotations": [], "images": 3}, "images: wanted a list of objects"),
        ({**COCO, "annotations": [{"image_id": 7}]}, "annotation 0: has no bbox"),
        ([{"bbox": [0, 0, 1, 1]}], "annotation 0: image_id: wanted a whole number .* got None"),
        ([3], "annotations, entry 0: wanted an object"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        BoxFile(write(tmp_path / "boxes.json", content))


def test_a_missing_or_binary_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        BoxFile(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        BoxFile(tmp_path / "binary.json")


def test_a_category_by_any_case_or_the_only_one_gives_the_boxes(tmp_path):
    entry = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    images = [{"id": 1, "file_name": "a.jpg"}]
    for key, categories in ((2, [{"id": 2, "name": "Person"}]), (0, [{"id": 0, "name": "worker"}])):
        data = {"images": images, "annotations": [{**entry, "category_id": key}]}
        path = write(tmp_path / f"{key}.json", {**data, "categories": categories})
        assert BoxFile(path).boxes(0, "a.jpg").xyxy.tolist() == [[1, 2, 4, 6]]
    path = write(tmp_path / "results.json", [{**entry, "category_id": 0}])
    boxes = BoxFile(path)
    assert len(boxes.boxes(0, "1.jpg")) == 1
    assert boxes.notes == [f"{path}: its only category (0) is taken for persons"]


def test_names_that_leave_open_which_image_is_meant_are_refused(tmp_path):
    images = [{"id": n, "file_name": f"cam{n}/x.jpg"} for n in (1, 2)]
    rows = [{"image_id": n, "bbox": [n, 0, 5, 5]} for n in (1, 2)]
    boxes = BoxFile(write(tmp_path / "coco.json", {"images": images, "annotations": rows}))
    for n in (1, 2):
        assert boxes.boxes(0, f"cam{n}/x.jpg").xyxy[0, 0] == n
    with pytest.raises(InputError, match=r"'x\.jpg' may be 'cam1/x\.jpg' or 'cam2/x\.jpg'"):
        boxes.boxes(0, "x.jpg")


def test_the_boxes_of_one_image_never_serve_two(tmp_path):
    boxes = BoxFile(write(tmp_path / "b.jsonl", '{"frame": 0, "file": "x.jpg", "boxes": []}'))
    boxes.boxes(0, "cam1/x.jpg")
    boxes.boxes(5, "cam1/x.jpg")
    with pytest.raises(InputError, match=r"would serve both 'cam1/x\.jpg' and 'cam2/x\.jpg'"):
        boxes.boxes(1, "cam2/x.jpg")


def test_lines_of_two_runs_in_one_file_stay_apart(tmp_path):
    """Both begin with frame 0; only the names tell the images apart."""
    rows = [
        {"frame": 0, "file": file, "boxes": [[n, 0, 9, 9]]} for n, file in enumerate("ab", start=1)
    ]
    boxes = BoxFile(write(tmp_path / "both.jsonl", "\n".join(map(json.dumps, rows))))
    assert boxes.boxes(0, "a").xyxy[0, 0] == 1
    assert boxes.boxes(0, "b").xyxy[0, 0] == 2
    with pytest.raises(InputError, match="number 0 stands for 'a' and 'b'"):
        boxes.boxes(0)


def test_images_listed_twice_are_refused_by_name(tmp_path):
    same_id = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    same_name = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]
    for images, message in (
        (same_id, r"images 'a\.jpg' and 'b\.jpg' have the same id 1"),
        (same_name, r"image './a\.jpg' is listed twice"),
    ):
        with pytest.raises(InputError, match=message):
            BoxFile(write(tmp_path / "coco.json", {"images": images, "annotations": []}))


def test_text_ids_work_and_the_image_id_decides_where_no_image_has_a_name(tmp_path):
    images = [{"id": "frame-a", "file_name": "1.jpg"}]
    rows = [{"image_id": "frame-a", "bbox": [1, 2, 3, 4]}]
    named = BoxFile(write(tmp_path / "set.json", {"images": images, "annotations": rows}))
    results = BoxFile(write(tmp_path / "results.json", rows))
    for boxes in (named, results):
        assert boxes.boxes_of("frame-a", "1.jpg").xyxy.tolist() == [[1, 2, 4, 6]]


def test_frames_without_an_entry_are_counted_and_empty_ones_are_not(tmp_path):
    boxes = BoxFile(write(tmp_path / "boxes.jsonl", LINES))
    assert [len(boxes.boxes(n)) for n in (0, 2, 3)] == [2, 0, 1]
    assert boxes.notes == []
    assert len(boxes.boxes(7)) == len(boxes.boxes(8)) == 0
    (note,) = boxes.notes
    assert "no entry for 2 frames or images, the first is 7" in note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"annotations":' + "[" * 50_000, "nested deeper than 64"),
        (f'{{"frame": 0, "boxes": [[0, 0, {"9" * 400}, 5]]}}', "line 1: box 0.*an integer of"),
        (f'{{"frame": {"9" * 5000}, "boxes": []}}', "not JSON"),
        ('{"frame": 0, "boxes": [' + "[0, 0, 5, 5]," * 1000 + "[0, 0, 5, 5]]}", "more than 1,000"),
        (
            [{"image_id": 1, "bbox": [0, 0, 5, 5]}] * 1001,
            "image|frame 1: 1,001 boxes, more than 1,000",
        ),
        ('{"frame": -1, "boxes": []}', "line 1: frame: wanted a whole number"),
        ('{"frame": 0, "file": 3, "boxes": []}', "line 1: file: wanted a text"),
        ('{"frame": 0, "persons": [7]}', "line 1: person 0: wanted an object"),
        ('{\n "images": [],\n "annotations": [}\n', "not JSON .*line 3"),
    ],
)
def test_hostile_files_are_one_sentence(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        BoxFile(write(tmp_path / "boxes.json", content))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_limit_on_boxes_is_an_option_that_the_refusal_names(tmp_path):
    path = write(tmp_path / "b.jsonl", '{"frame": 7, "boxes": [[0, 0, 5, 5], [0, 0, 5, 5]]}')
    with pytest.raises(InputError, match=r"frame 7: 2 boxes, more than 1 .*--max-boxes"):
        BoxFile(path, max_boxes=1)
    assert len(BoxFile(path, max_boxes=2).boxes(7)) == 2


def folder_of(path, *images):
    path.mkdir()
    for name in images:
        cv2.imwrite(str(path / name), numbered(1, (16, 16)))
    return str(path)


def test_each_of_several_sources_has_boxes_of_its_own_or_the_file_is_refused(tmp_path):
    one, two = folder_of(tmp_path / "1", "a.png"), folder_of(tmp_path / "2", "a.png", "b.png")
    other = folder_of(tmp_path / "3", "c.png")
    clips = [str(make_clip(tmp_path / f"{n}.mp4", 1)) for n in range(2)]
    lines = '{"frame": 0, "file": "a.png", "boxes": []}\n{"frame": 1, "file": "c.png", "boxes": []}'
    named = BoxFile(write(tmp_path / "named.jsonl", lines))
    numbered_only = BoxFile(write(tmp_path / "n.jsonl", '{"frame": 0, "boxes": []}'))
    for file, sources in ((named, [one, other]), (named, [one, one]), (named, [two])):
        file.check_sources(expand(sources))
    for source in (one, two, clips[0]):
        numbered_only.check_sources(expand([source]))
    with pytest.raises(InputError, match=rf"'a\.png' is in both {one} and {two}.*FOLDER/\*\*/"):
        named.check_sources(expand([one, two]))
    with pytest.raises(InputError, match="boxes of one video, and 2 sources"):
        named.check_sources(expand([one, clips[0]]))
    for sources in ([one, other], [clips[0], one], clips):
        with pytest.raises(InputError, match="holds the boxes of one"):
            numbered_only.check_sources(expand(sources))


def test_a_category_by_name_or_id_where_several_may_be_persons(tmp_path):
    categories = [{"id": 2, "name": "player"}, {"id": 5, "name": "referee"}]
    images = [{"id": 1, "file_name": "a.jpg"}]
    rows = [{"image_id": 1, "category_id": c, "bbox": [c, 0, 5, 5]} for c in (2, 5)]
    data = {"images": images, "categories": categories, "annotations": rows}
    path = write(tmp_path / "coco.json", data)
    with pytest.raises(InputError, match=r"which of 2 .*'player'.*'referee'.*--category"):
        BoxFile(path)
    for wanted in ("Referee", "5"):
        found = BoxFile(path, category=wanted)
        assert found.boxes(1, "a.jpg").xyxy.tolist() == [[5, 0, 10, 5]]
        assert found.notes == [f"{path}: 1 annotations of other categories are left out"]


def test_boxes_without_width_or_height_are_left_out_and_counted(tmp_path):
    """Also coordinates as shares of the frame, all of which are below 1 px."""
    boxes = [[5, 5, 5, 30], [5, 5, 30, 5], [0.1, 0.2, 0.6, 0.9], [5, 5, 30, 40]]
    rows = [{"frame": n, "boxes": boxes if n else boxes[:1]} for n in range(3)]
    found = BoxFile(write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows))))
    assert [found.boxes(n).xyxy.tolist() for n in range(3)] == [[], [boxes[3]], [boxes[3]]]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "7 boxes narrower or lower than 1 px are left out; coordinates are pixels"
    ]
