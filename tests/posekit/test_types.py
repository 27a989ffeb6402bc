"""The nouns: what they accept, what they refuse, and how they become other people's data."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posekit.errors import InputError
from posekit.skeletons import COCO_17
from posekit.types import Boxes, DetectorSpec, Frame, ModelSpec, Poses, Skeleton
from tests.support import needs

COUNT = len(COCO_17)


def make_poses(persons: int = 2, **changes) -> Poses:
    rng = np.random.default_rng(persons)
    corners = rng.uniform(0, 100, (persons, 2))
    values = {
        "points": rng.uniform(0, 200, (persons, COUNT, 2)),
        "scores": rng.uniform(0, 1, (persons, COUNT)),
        "boxes": Boxes(np.concatenate([corners, corners + 80], 1), rng.uniform(0, 1, persons)),
        "skeleton": COCO_17,
    }
    return Poses(**{**values, **changes})


def make_spec(**changes) -> ModelSpec:
    return ModelSpec(
        **{
            "architecture": "hrnet_w32",
            "input_size": (192, 256),
            "heatmap_size": (48, 64),
            "skeleton": COCO_17,
            **changes,
        }
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[0, 0, 0]],
    ],
)
def test_a_frame_is_uint8_rgb_or_an_input_error(image):
    with pytest.raises(InputError, match="wanted"):
        Frame(image)


@pytest.mark.parametrize(
    "row", [[0, 0, np.nan, 1], [0, 0, np.inf, 1], [5, 0, 4, 1], [0, 5, 1, 4]], ids=str
)
def test_a_bad_box_is_named_by_its_row(row):
    with pytest.raises(InputError, match="row 1"):
        Boxes([[0, 0, 1, 1], row])


def test_boxes_of_one_pixel_and_no_boxes_are_fine():
    assert len(Boxes([[3, 3, 3, 3]])) == 1
    assert Boxes([]).xyxy.shape == (0, 4)
    assert Boxes([[0, 0, 1, 1]]).scores.tolist() == [1.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points", np.zeros((2, COUNT, 3))),
        ("points", np.zeros((1, COUNT, 2))),
        ("points", "points"),
        ("scores", np.zeros((2, COUNT - 1))),
        ("raw_points", np.zeros((2, COUNT))),
        ("confidence", np.zeros(2)),
        ("ids", [1]),
    ],
)
def test_poses_of_another_shape_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        make_poses(2, **{field: value})


def test_select_keeps_every_part_of_the_persons_it_names():
    shape = (3, COUNT)
    rng = np.random.default_rng(0)
    raw, confidence = rng.uniform(size=(*shape, 2)), rng.uniform(size=shape)
    poses = make_poses(3, ids=[7, 8, 9], raw_points=raw, confidence=confidence)
    for index in ([2, 0], np.array([True, False, True])):
        some = poses.select(index)
        rows = np.arange(3)[index]
        for name in ("points", "scores", "ids", "raw_points", "confidence"):
            assert np.array_equal(getattr(some, name), getattr(poses, name)[rows]), name
        assert np.array_equal(some.boxes.xyxy, poses.boxes.xyxy[rows])
        assert np.array_equal(some.boxes.scores, poses.boxes.scores[rows])
    assert len(poses.select([])) == 0
    assert len(poses.select(np.zeros(3, bool))) == 0


def test_to_dict_holds_the_issue_s_fields_within_its_rounding():
    poses = make_poses(2, ids=[4, 5])
    persons = json.loads(json.dumps(poses.to_dict(), allow_nan=False))["persons"]
    assert [person["id"] for person in persons] == [4, 5]
    for n, person in enumerate(persons):
        assert list(person) == ["id", "box", "box_score", "points", "raw_points", "scores"]
        assert np.allclose(person["points"], poses.points[n], atol=0.00501)
        assert np.allclose(person["raw_points"], poses.points[n], atol=0.00501)
        assert np.allclose(person["scores"], poses.scores[n], atol=0.0000501)
        assert np.allclose(person["box"], poses.boxes.xyxy[n], atol=0.00501)


def test_to_dict_keeps_raw_points_apart_and_says_none_for_no_id():
    raw = np.full((1, COUNT, 2), 3.25)
    person = make_poses(1, raw_points=raw).to_dict()["persons"][0]
    assert person["id"] is None
    assert person["raw_points"] == raw[0].tolist() != person["points"]


def test_to_coco_scores_by_box_and_the_mean_of_visible_keypoints():
    scores = np.zeros((1, COUNT))
    scores[0, :3] = 0.6, 0.8, 0.1  # the third lies under the threshold
    poses = make_poses(1, scores=scores, boxes=Boxes([[10, 20, 40, 80]], [0.5]))
    (entry,) = poses.to_coco(42)
    assert entry["image_id"] == 42
    assert entry["category_id"] == 1
    assert entry["score"] == pytest.approx(0.5 * 0.7, abs=1e-6)
    assert entry["bbox"] == [10, 20, 30, 60]
    assert np.allclose(np.reshape(entry["keypoints"], (-1, 3))[:, :2], poses.points[0], atol=1e-4)
    assert np.allclose(entry["keypoints"][2::3], scores[0], atol=1e-4)


def test_no_visible_keypoint_scores_zero_without_a_warning():
    poses = make_poses(1, scores=np.zeros((1, COUNT)))
    assert poses.to_coco()[0]["score"] == 0.0


def test_supervision_gets_the_same_points_and_scores():
    supervision = needs.package("supervision")
    poses = make_poses(3)
    keypoints = poses.to_supervision()
    assert isinstance(keypoints, supervision.KeyPoints)
    assert np.array_equal(keypoints.xy, poses.points)
    assert np.array_equal(keypoints.keypoint_confidence, poses.scores)
    drawn = supervision.VertexAnnotator(radius=4).annotate(
        np.zeros((300, 300, 3), np.uint8), keypoints
    )
    x, y = poses.points[0, 0].astype(int)
    assert drawn[y, x].any()


def test_supervision_gets_calibrated_confidence_where_there_is_one():
    needs.package("supervision")
    confidence = np.full((1, COUNT), 0.25)
    keypoints = make_poses(1, confidence=confidence).to_supervision()
    assert np.array_equal(keypoints.keypoint_confidence, confidence)


def test_supervision_takes_a_frame_without_persons():
    needs.package("supervision")
    assert make_poses(0).to_supervision().xy.shape == (0, COUNT, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"mirror": tuple(range(COUNT - 1))},
        {"mirror": (1, 2, 0, *range(3, COUNT))},  # a cycle of three is no mirror
        {"sigmas": (0.1,)},
        {"bones": ((0, COUNT),)},
        {"bones": ((-1, 0),)},
    ],
)
def test_a_skeleton_that_does_not_hang_together_is_refused(changes):
    with pytest.raises(InputError, match="coco_17"):
        dataclasses.replace(COCO_17, **changes)


def test_skeletons_and_specs_survive_json():
    spec = make_spec(decode="udp", flip_shift=0.0, map_scale=(191 / 47, 255 / 63), gate=0.5)
    for value in (COCO_17, spec, DetectorSpec("nanodet", (416, 416), 114)):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_a_spec_with_an_unknown_or_a_missing_field_is_refused_by_name():
    data = make_spec().to_dict()
    with pytest.raises(InputError, match="colour"):
        ModelSpec.from_dict({**data, "colour": "bgr"})
    del data["sigma"]
    with pytest.raises(InputError, match="sigma"):
        ModelSpec.from_dict(data)
    with pytest.raises(InputError, match="mirror"):
        Skeleton.from_dict({"name": "x", "keypoints": [], "bones": []})
    with pytest.raises(InputError, match="fill"):
        DetectorSpec.from_dict({"architecture": "x", "input_size": [1, 1]})


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": (0, 256)},
        {"heatmap_size": (48.0, 64)},
        {"color": "gray"},
        {"decode": "soft"},
        {"blur": 10},
        {"std": (0.0, 1.0, 1.0)},
        {"map_scale": (4.0, -4.0)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"gate": -1.0},
    ],
    ids=str,
)
def test_a_spec_with_impossible_numbers_is_refused(changes):
    with pytest.raises(InputError, match="spec"):
        make_spec(**changes)


@given(w=st.integers(8, 128), stride=st.sampled_from([2, 4, 8]))
def test_flip_shift_follows_from_where_a_cell_lies(w, stride):
    """A joint at crop x shows at W - 1 - x in the mirrored crop.

    Put its map position p = (x - b) / a beside the one that the mirrored map, mirrored back,
    claims: (w - 1) - p'. The distance must be mirror_shift whatever x is.
    """
    width = w * stride
    conventions = {  # name: (a, b, flip shift as published)
        "msra": (float(stride), 0.0, (stride - 1) / stride),
        "udp": ((width - 1) / (w - 1), 0.0, 0.0),
        "half-pixel": (float(stride), (stride - 1) / 2, 0.0),
    }
    for name, (a, b, published) in conventions.items():
        spec = make_spec(
            input_size=(width, 256),
            heatmap_size=(w, 64),
            map_scale=(a, a),
            map_offset=(b, b),
            flip_shift=published,
        )
        assert spec.mirror_shift == pytest.approx(published, abs=1e-9), name
        for x in (0.0, 0.3 * width, width - 1.0):
            plain, mirrored = (x - b) / a, (w - 1) - ((width - 1 - x) - b) / a
            assert plain - mirrored == pytest.approx(spec.mirror_shift, abs=1e-9), name


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, (188.0, 252.0)),  # MSRA: 4 px a cell from the first pixel's center
        ({"map_scale": (191 / 47, 255 / 63)}, (191.0, 255.0)),  # UDP: last cell on the last pixel
        ({"map_offset": (1.5, 1.5)}, (189.5, 253.5)),  # half-pixel: 1.5 px from each border
    ],
    ids=["msra", "udp", "half-pixel"],
)
def test_cells_lie_where_the_convention_puts_them_and_come_back(changes, last):
    spec = make_spec(**changes)
    crop = spec.cells_to_crop(np.array([[0, 0], [47, 63]]))
    assert crop[0].tolist() == list(spec.map_offset)
    assert crop[1] == pytest.approx(last, abs=1e-9)
    cells = np.random.default_rng(0).uniform(0, 47, (3, COUNT, 2))
    for kind in (np.float32, np.float64):
        places = spec.cells_to_crop(cells.astype(kind))
        again = spec.crop_to_cells(places)
        assert places.dtype == again.dtype == kind
        # Three roundings of numbers up to 255, a quarter of it after the division.
        assert np.abs(again - cells.astype(kind)).max() <= 255 * np.finfo(kind).eps
