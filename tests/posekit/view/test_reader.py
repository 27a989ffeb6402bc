"""Results are read back as they were written, or refused with the line that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from posekit.errors import InputError, SourceError
from posekit.view import read_results
from tests.pages.results import box, results_of, write_jsonl
from tests.support.written import SEQUENCE, write


def test_what_the_writer_wrote_is_read_back(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "jsonl")
    found = read_results(path)
    assert found.frames.tolist() == [0, 1, 2, 3]
    assert np.diff(found.starts).tolist() == [len(poses) for poses in SEQUENCE]
    assert found.persons.ids.tolist() == [3, 7, 7]
    points = np.concatenate([poses.points for poses in SEQUENCE])
    np.testing.assert_allclose(found.persons.points, points, atol=0.0051)  # two decimals
    raw = np.concatenate([poses.raw_points for poses in SEQUENCE if poses.raw_points is not None])
    np.testing.assert_allclose(found.persons.raw_points, raw, atol=0.0051)
    assert found.origin.source == "Köln 1.mp4"
    assert found.origin.size == (320, 240)
    assert found.tracked


def test_images_keep_their_names_and_persons_without_ids_their_places(tmp_path: Path) -> None:
    results = results_of([{0: box(10)}, {0: box(10), 1: box(90)}], files=["ä/1.jpg", "b.png"])
    path = write_jsonl(tmp_path / "a.jsonl", results)
    path.write_text(
        path.read_text().replace('"id": 0', '"id": null').replace('"id": 1', '"id": null')
    )
    found = read_results(path)
    assert found.files == ("ä/1.jpg", "b.png")
    assert not found.tracked
    assert found.persons.ids.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"frame": -1}, "line 3: frame"),
        ({"frame": 1e400}, "line 3"),
        ({"time_s": "soon"}, "line 3: time_s"),
        ({"time_s": -1.0}, "line 3: time_s is -1 after 0"),
        ({"size": [0, 4]}, "line 3: size"),
        ({"file": 3}, "line 3: file"),
        ({"persons": None}, "line 3: wanted a frame with its persons"),
        ({"persons": [3]}, "line 3: persons"),
        ({"persons": [{"id": 1}]}, "line 3: person 0 has no points; wanted 17 x 2 numbers"),
        ({"persons": [{"id": "x"}]}, "line 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", results_of([{1: box(5)}, {1: box(6)}]))
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), **change})
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as error:
        read_results(path)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["points", "raw_points", "scores", "box"])
@pytest.mark.parametrize("value", [[1.0], "abc", [[["a"]]], None])
def test_values_of_another_shape_are_refused(tmp_path: Path, key: str, value: object) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", results_of([{1: box(5)}]))
    header, line = map(json.loads, path.read_text().splitlines())
    line["persons"][0][key] = value
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    with pytest.raises(InputError, match=rf"line 2: person 0(: | has no ){key}[:;] wanted "):
        read_results(path)


def test_the_second_persons_missing_or_short_values_are_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", results_of([{1: box(5), 2: box(90)}]))
    header, line = map(json.loads, path.read_text().splitlines())
    scores = line["persons"][1].pop("scores")
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    with pytest.raises(InputError, match=r"line 2: person 1 has no scores; wanted 17 numbers$"):
        read_results(path)
    line["persons"][1]["scores"] = scores[:3]
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    with pytest.raises(InputError, match=r"person 1: scores: wanted 17 numbers, got 3 numbers$"):
        read_results(path)
    header["skeleton"]["bones"] = [[0, 99]]
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: .*a bone names keypoints") as error:
        read_results(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON Lines of posekit"),
        ('{"images": []}\n', "is not JSON Lines of posekit"),
        ("[]\n", "is not JSON Lines of posekit"),
        ("{\n", "line 1"),
        ('{"posekit": "1", "skeleton": 3}\n', "skeleton"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_results(path)
    assert complaint in str(error.value)


def test_a_header_alone_a_video_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", results_of([{}]))
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(InputError, match="no frame after its header"):
        read_results(path)
    path.write_bytes(b"\x00\xff\xfe\x81")
    with pytest.raises(InputError, match="is not text"):
        read_results(path)
    with pytest.raises(SourceError, match=r"missing\.jsonl"):
        read_results(tmp_path / "missing.jsonl")
