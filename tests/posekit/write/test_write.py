"""Outputs, read back by independent readers: json, csv, pandas, pyarrow, pycocotools."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posekit.skeletons import COCO_17
from tests.support import needs
from tests.support.written import (
    COUNT,
    SEQUENCE,
    TIDY,
    make_poses,
    names_in,
    rows_of,
    strict,
    write,
)


def test_json_lines_are_a_header_and_a_line_a_frame(tmp_path):
    (path,) = write(tmp_path, "jsonl")
    assert path == tmp_path / "a b ü.jsonl"
    header, *lines = [strict(line) for line in path.read_text("utf-8").splitlines()]
    assert header["posekit"] == "1.2.3"
    assert header["model"] == "movenet-thunder"
    assert header["model_sha256"] == "ab" * 32
    assert header["source"] == "Köln 1.mp4"
    assert header["skeleton"]["keypoints"] == list(COCO_17.keypoints)
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["time_s"] for line in lines] == [0, 0.04, 0.08, 0.12]
    assert [[p["id"] for p in line["persons"]] for line in lines] == [[], [3, 7], [7], []]
    assert all("file" not in line for line in lines)
    person = lines[1]["persons"][1]
    assert np.allclose(person["points"], SEQUENCE[1].points[1], atol=0.00501)
    assert np.allclose(person["raw_points"], SEQUENCE[1].raw_points[1], atol=0.00501)
    assert lines[2]["persons"][0]["points"][4] == [None, None]


def test_json_lines_name_the_file_of_an_image(tmp_path):
    (path,) = write(tmp_path, "jsonl", names=["ä.jpg", "b.jpg", "c.jpg", "d.jpg"])
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    assert [line["file"] for line in lines] == ["ä.jpg", "b.jpg", "c.jpg", "d.jpg"]


def coco_truth(frames):
    """The ground truth that says exactly what `frames` say."""
    coco = needs.package("pycocotools.coco")
    annotations = []
    for index, poses in enumerate(frames):
        for entry in poses.to_coco(index):
            keypoints = np.reshape(entry["keypoints"], (-1, 3))
            keypoints[:, 2] = 2
            x, y, w, h = entry["bbox"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "keypoints": keypoints.reshape(-1).tolist(),
                    "num_keypoints": COUNT,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": n, "width": 320, "height": 240} for n in range(len(frames))],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    truth.createIndex()
    return truth


def average_precision(truth, path: Path) -> float:
    cocoeval = needs.package("pycocotools.cocoeval")
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(str(path)), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_pycocotools_finds_every_person_of_the_coco_results(tmp_path):
    frames = [make_poses([1, 2, 3], seed=seed) for seed in range(4)]
    (path,) = write(tmp_path, "coco", frames=frames)
    assert path.name == "a b ü.coco.json"
    assert average_precision(coco_truth(frames), path) == pytest.approx(1.0)
    assert [entry["track_id"] for entry in strict(path.read_text())[:3]] == [1, 2, 3]


def test_pycocotools_sees_points_that_are_off(tmp_path):
    frames = [make_poses([1, 2, 3], seed=seed) for seed in range(4)]
    truth = coco_truth(frames)
    for poses in frames:
        poses.points[:] += 30
    (path,) = write(tmp_path, "coco", frames=frames)
    assert average_precision(truth, path) < 0.9


def test_coco_takes_the_image_id_from_a_number_and_else_the_index(tmp_path):
    frames = [make_poses([1])] * 3
    (path,) = write(tmp_path, "coco", frames=frames, names=["000000000139.jpg", "b7.jpg", "²"])
    entries = strict(path.read_text())
    assert [entry["image_id"] for entry in entries] == [139, 1, 2]
    assert [entry["file_name"] for entry in entries] == ["000000000139.jpg", "b7.jpg", "²"]


def test_coco_replaces_what_is_not_a_number_by_zero(tmp_path):
    (path,) = write(tmp_path, "coco")
    assert strict(path.read_text())[2]["keypoints"][12:14] == [0.0, 0.0]


def check_tidy(table: pd.DataFrame, x_tolerance: float) -> None:
    assert list(table.columns) == TIDY
    assert len(table) == rows_of(SEQUENCE)
    both = table[table["frame"] == 1]
    assert both["id"].tolist() == [3] * COUNT + [7] * COUNT
    assert both["keypoint"].tolist() == list(COCO_17.keypoints) * 2
    assert both["time_s"].unique().tolist() == [0.04]
    poses = SEQUENCE[1]
    assert np.allclose(both[["x", "y"]], poses.points.reshape(-1, 2), atol=x_tolerance)
    assert np.allclose(both[["raw_x", "raw_y"]], poses.raw_points.reshape(-1, 2), atol=x_tolerance)
    assert np.allclose(both["score"], poses.scores.reshape(-1), atol=0.0000501)
    missing = table[table["frame"] == 2][["x", "y"]].isna().all(axis=1)
    assert np.flatnonzero(missing).tolist() == [4]


def test_pandas_reads_the_csv(tmp_path):
    (path,) = write(tmp_path, "csv")
    check_tidy(pd.read_csv(path), 0.00501)


def test_pandas_reads_the_parquet_unrounded(tmp_path):
    needs.package("pyarrow")
    (path,) = write(tmp_path, "parquet")
    check_tidy(pd.read_parquet(path), 0.0)


def test_the_parquet_knows_its_header_and_comes_in_row_groups(tmp_path, monkeypatch):
    parquet = needs.package("pyarrow.parquet")
    monkeypatch.setattr("posekit.write.table._GROUP", 2 * COUNT)
    (path,) = write(tmp_path, "parquet", frames=[make_poses([1])] * 5)
    found = parquet.ParquetFile(path)
    assert found.metadata.num_row_groups == 3
    assert found.metadata.num_rows == 5 * COUNT
    header = json.loads(found.schema_arrow.metadata[b"posekit"])
    assert header["model"] == "movenet-thunder"


def test_tables_of_images_name_the_file_even_with_a_comma_in_it(tmp_path):
    names = ['a,"b".jpg'] * 4
    csv_path, parquet_path = write(tmp_path, "csv", "parquet", names=names)
    for table in (pd.read_csv(csv_path), pd.read_parquet(parquet_path)):
        assert list(table.columns) == [*TIDY, "file"]
        assert table["file"].unique().tolist() == ['a,"b".jpg']


def test_untracked_persons_are_numbered_within_their_frame(tmp_path):
    frames = [make_poses(None, persons=2)]
    csv_path, dlc_path = write(tmp_path, "csv", "dlc", frames=frames)
    assert pd.read_csv(csv_path)["id"].unique().tolist() == [0, 1]
    table = pd.read_csv(dlc_path, header=[0, 1, 2, 3], index_col=0)
    assert table.columns.get_level_values("individuals").unique().tolist() == ["person0", "person1"]


def test_openpose_has_a_file_a_frame_in_the_order_of_the_skeleton(tmp_path):
    (folder,) = write(tmp_path, "openpose", stem="cam1")
    assert folder == tmp_path / "cam1_json"
    files = names_in(folder)
    assert files == [f"cam1_{n:012d}_keypoints.json" for n in range(4)]
    frames = [strict((folder / name).read_text()) for name in files]
    assert [frame["version"] for frame in frames] == [1.3] * 4
    assert [len(frame["people"]) for frame in frames] == [0, 2, 1, 0]
    person = frames[1]["people"][1]
    assert person["person_id"] == [7]
    triplets = np.reshape(person["pose_keypoints_2d"], (-1, 3))
    assert np.allclose(triplets[:, :2], SEQUENCE[1].points[1], atol=0.00501)
    assert np.allclose(triplets[:, 2], SEQUENCE[1].scores[1], atol=0.0000501)
    assert np.reshape(frames[2]["people"][0]["pose_keypoints_2d"], (-1, 3))[4].tolist() == [0, 0, 0]
    assert {"face_keypoints_2d", "hand_left_keypoints_2d", "pose_keypoints_3d"} < set(person)


def test_openpose_says_minus_one_for_untracked_persons(tmp_path):
    (folder,) = write(tmp_path, "openpose", frames=[make_poses(None, persons=1)])
    person = json.loads(next(folder.iterdir()).read_text())["people"][0]
    assert person["person_id"] == [-1]


def test_label_studio_percentages_lead_back_to_the_pixels(tmp_path):
    (path,) = write(tmp_path, "labelstudio", stem="clip")
    tasks = strict(path.read_text())
    assert [task["data"]["image"] for task in tasks] == [f"clip_{n:06d}.jpg" for n in range(4)]
    result = tasks[1]["predictions"][0]["result"]
    boxes = [each for each in result if each["type"] == "rectanglelabels"]
    points = [each for each in result if each["type"] == "keypointlabels"]
    assert len(boxes) == 2
    assert len({each["id"] for each in result}) == len(result) == 2 + 2 * COUNT
    second = [each for each in points if each["parentID"] == boxes[1]["id"]]
    assert [each["value"]["keypointlabels"] for each in second] == [[k] for k in COCO_17.keypoints]
    assert {(each["original_width"], each["original_height"]) for each in result} == {(320, 240)}
    found = [[each["value"]["x"] * 3.2, each["value"]["y"] * 2.4] for each in second]
    assert np.allclose(found, SEQUENCE[1].points[1], atol=0.5e-4 * 3.2 + 1e-5)


def test_label_studio_keeps_points_in_the_image_and_leaves_invisible_ones_out(tmp_path):
    poses = make_poses([1])
    poses.points[0, 0] = -50, 500
    poses.scores[0, 1] = 0.1
    (path,) = write(tmp_path, "labelstudio", frames=[poses], names=["a.jpg"])
    (task,) = strict(path.read_text())
    assert task["data"]["image"] == "a.jpg"
    points = {
        each["value"]["keypointlabels"][0]: each["value"]
        for each in task["predictions"][0]["result"][1:]
    }
    assert (points["nose"]["x"], points["nose"]["y"]) == (0, 100)
    assert set(COCO_17.keypoints) - set(points) == {"left_eye"}


def test_pandas_reads_the_deeplabcut_table(tmp_path):
    (path,) = write(tmp_path, "dlc")
    table = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    assert list(table.columns.names) == ["scorer", "individuals", "bodyparts", "coords"]
    assert table.index.tolist() == [0, 1, 2, 3]  # the empty first frame is there
    assert table.shape == (4, 2 * COUNT * 3)
    seven = table["movenet-thunder"]["person7"]
    points = seven.loc[1].to_numpy().reshape(COUNT, 3)
    assert np.allclose(points[:, :2], SEQUENCE[1].points[1], atol=0.00501)
    assert np.allclose(points[:, 2], SEQUENCE[1].scores[1], atol=0.0000501)
    assert seven.loc[2].isna().sum() == 2  # the point that is not a number
    assert table["movenet-thunder"]["person3"].loc[[0, 2, 3]].isna().all(axis=None)
