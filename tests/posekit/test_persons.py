"""Poses as people use them: persons, names, angles, crops, tables, drawings."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit.errors import InputError, MissingExtraError
from posekit.skeletons import COCO_17
from posekit.types import Boxes, DrawStyle, Poses

NAMES = COCO_17.keypoints


def poses(count: int = 2, **changes: object) -> Poses:
    generator = np.random.default_rng(7)
    values: dict[str, object] = {
        "points": generator.uniform(0, 100, (count, 17, 2)),
        "scores": generator.uniform(0, 1, (count, 17)),
        "boxes": Boxes([[10 * n, 0, 10 * n + 30, 60] for n in range(count)]),
        "skeleton": COCO_17,
        "ids": np.arange(count) + 4,
    }
    return Poses(**{**values, **changes})  # type: ignore[arg-type]


def test_poses_are_an_iterable_of_persons() -> None:
    both = poses(confidence=np.full((2, 17), 0.5))
    persons = list(both)
    assert len(persons) == 2
    for n, person in enumerate(persons):
        np.testing.assert_array_equal(person.points, both.points[n])
        np.testing.assert_array_equal(person.scores, both.scores[n])
        np.testing.assert_array_equal(person.box, both.boxes.xyxy[n])
        assert person.id == n + 4
        assert person.confidence is not None
        assert person.confidence.shape == (17,)
        np.testing.assert_array_equal(person["left_knee"], both.points[n, 13])
    assert poses(ids=None)[0].id is None
    assert list(poses(0)) == []
    with pytest.raises(IndexError, match="person 2: there are 2, counted from 0"):
        both[2]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1), [0]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2], [2]),
        ([], []),
        (np.array([-1, 0]), [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([False, False, False], []),
    ],
)
def test_some_of_the_persons_are_poses(index: Any, rows: list[int]) -> None:
    three = poses(3, confidence=np.full((3, 17), 0.5))
    for some in (three[index], three.select(index)):
        assert [person.id for person in some] == [row + 4 for row in rows]
        np.testing.assert_array_equal(some.points, three.points[rows])
        np.testing.assert_array_equal(some.boxes.xyxy, three.boxes.xyxy[rows])
        assert len(some["nose"]) == len(rows)


@pytest.mark.parametrize(
    "index",
    [
        *(True, np.True_, 1.0, None, (0, 1), np.array(0), slice("a"), slice(0, 2, 0)),
        *([1.0], ["nose"], [[0]], [[0], [1, 2]], [(0,), (0, 1)], [True], np.ones(3, bool)),
    ],
)
def test_what_is_no_index_is_refused(index: Any) -> None:
    with pytest.raises(InputError, match=r"^persons: "):
        poses()[index]


def test_a_list_with_a_person_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError, match="person -3: there are 2"):
        poses()[[0, -3]]
    with pytest.raises(IndexError, match="person 2: there are 2"):
        poses().select(range(4))


def test_a_keypoint_of_all_persons_has_a_name() -> None:
    both = poses()
    np.testing.assert_array_equal(both["nose"], both.points[:, 0])
    assert poses(0)["nose"].shape == (0, 2)


@pytest.mark.parametrize("use", [lambda p: p["left_kne"], lambda p: p[0]["left_kne"],
                                 lambda p: p.angle("nose", "left_kne", "nose")])  # fmt: skip
def test_an_unknown_name_is_answered_with_the_nearest(use: object) -> None:
    with pytest.raises(InputError, match="has no keypoint 'left_kne'; did you mean left_knee"):
        use(poses())  # type: ignore[operator]


@pytest.mark.parametrize("degrees", [0, 1e-3, 30, 90, 135, 179.999, 180])
def test_an_angle_is_that_between_two_limbs(degrees: float) -> None:
    """Built from a rotation, so the truth is known; float32 points keep a hundredth of a degree."""
    points = np.zeros((2, 17, 2))
    knee, turn = np.array([40.0, 50.0]), math.radians(37)
    for n, side in enumerate((1, -1)):  # bent to either side: the angle has no sign
        other = turn + side * math.radians(degrees)
        points[n, 13] = knee
        points[n, 11] = knee + 30 * np.array([math.cos(turn), math.sin(turn)])
        points[n, 15] = knee + 25 * np.array([math.cos(other), math.sin(other)])
    angles = poses(points=points).angle("left_hip", "left_knee", "left_ankle")
    assert angles.shape == (2,)
    np.testing.assert_allclose(angles, degrees, atol=0.01)


def test_an_angle_that_is_not_known_is_nan() -> None:
    points = np.random.default_rng(1).uniform(0, 9, (2, 17, 2))
    points[0, 11] = points[0, 13]
    scores = np.full((2, 17), 0.9)
    scores[1, 15] = 0.2
    both = poses(points=points, scores=scores)
    angles = both.angle("left_hip", "left_knee", "left_ankle", min_score=0.3)
    assert np.isnan(angles).all()
    assert np.isfinite(both.angle("left_hip", "left_knee", "left_ankle")[1])


def test_a_crop_is_what_lies_in_the_box() -> None:
    image = np.random.default_rng(2).integers(0, 255, (50, 80, 3), np.uint8)
    boxes = Boxes(
        [[10, 5, 20, 9], [-5, -5, 4, 4], [70.2, 40.2, 200, 200], [-0.5, -0.5, 79.5, 49.5]]
    )
    four = poses(4, boxes=boxes)
    np.testing.assert_array_equal(four.crop(image, 0), image[5:10, 10:21])
    np.testing.assert_array_equal(four.crop(image, 1), image[:5, :5])
    np.testing.assert_array_equal(four.crop(image, 2), image[40:, 70:])
    np.testing.assert_array_equal(four.crop(image, 3), image)
    np.testing.assert_array_equal(four.crop(image, 0, margin=0.5), image[0:15, 5:26])
    piece = four.crop(image, 0)
    piece[:] = 0
    assert image[5:10, 10:21].any(), "the crop is a copy"


def test_a_crop_of_nothing_is_refused() -> None:
    far = poses(1, boxes=Boxes([[500, 500, 600, 600]]))
    with pytest.raises(
        InputError, match=r"person 0: its box .* does not lie in an image of 80 x 50"
    ):
        far.crop(np.zeros((50, 80, 3), np.uint8), 0)
    with pytest.raises(InputError, match="person 1: there are 1, counted from 0"):
        far.crop(np.zeros((50, 80, 3), np.uint8), 1)


@pytest.mark.parametrize(
    "image",
    ["photo.jpg", Path("photo.jpg"), None, np.zeros((50, 80), np.uint8), np.zeros((50, 80, 3))],
)
def test_only_arrays_of_pixels_are_drawn_on_and_cut(image: Any) -> None:
    """The estimator takes paths and PIL images too; the message names what is wanted here."""
    for use in (poses().draw, lambda it: poses().crop(it, 0)):
        with pytest.raises(InputError, match=r"^image: wanted .*uint8.*\(H, W, 3\)"):
            use(image)


def test_a_table_has_a_row_a_keypoint() -> None:
    both = poses(confidence=np.full((2, 17), 0.25))
    table = both.to_dataframe()
    assert list(table.columns) == ["person", "id", "keypoint", "x", "y", "score", "confidence"]
    assert len(table) == 34
    row = table[(table.person == 1) & (table.keypoint == "left_knee")].iloc[0]
    assert (row.id, row.confidence) == (5, 0.25)
    np.testing.assert_array_equal(
        [row.x, row.y, row.score], [*both.points[1, 13], both.scores[1, 13]]
    )
    assert table.pivot_table(index="id", columns="keypoint", values="x").shape == (2, 17)
    without = poses(ids=None).to_dataframe()
    assert without["id"].isna().all()
    assert "confidence" not in without
    assert len(poses(0).to_dataframe()) == 0


def test_without_pandas_a_table_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        poses().to_dataframe()


def test_a_smaller_image_than_the_persons_were_found_in_is_not_drawn_on() -> None:
    """Nothing would be drawn; where one person is in the image, or just left it, it is drawn on."""
    image = np.full((50, 80, 3), 90, np.uint8)
    boxes = np.array([[500.0, 20, 600, 40], [20, 300, 40, 400]], np.float32)
    points = np.repeat(boxes[:, None, :2] + 5, 17, 1)
    far = poses(2, boxes=Boxes(boxes), points=points)
    with pytest.raises(InputError, match="image: 80 x 50 px, and all 2 persons lie outside it"):
        far.draw(image)
    near = np.array([[81.0, 20, 120, 40], [500, 20, 600, 40]], np.float32)
    poses(2, boxes=Boxes(near), points=np.repeat(near[:, None, :2] + 5, 17, 1)).draw(image)
    points[1, 3] = 10
    assert (poses(2, boxes=Boxes(boxes), points=points).draw(image) != 90).any()
    poses(0).draw(image)


def test_a_drawing_has_the_colors_of_its_image() -> None:
    """In RGB and BGR the same drawing, channels exchanged, and the input untouched."""
    image = np.random.default_rng(3).integers(0, 255, (120, 120, 3), np.uint8)
    before = image.copy()
    rgb = poses().draw(image, DrawStyle(labels=True))
    bgr = poses().draw(image[..., ::-1], DrawStyle(labels=True), color="bgr")
    np.testing.assert_array_equal(bgr[..., ::-1], rgb)
    assert (rgb != image).any()
    np.testing.assert_array_equal(image, before)
    with pytest.raises(InputError, match="color: wanted rgb or bgr"):
        poses().draw(image, color="gbr")  # type: ignore[arg-type]


def test_the_nouns_load_no_opencv() -> None:
    """`Poses.draw` imports it when it is called: the contract on imports cannot tell."""
    code = "import sys, posekit.types; print(sorted({'cv2', 'pandas', 'av'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
