"""Specs, skeletons and calibrations from files: every number is finite, in range, of its length."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

from posekit.bundle import Bundle
from posekit.errors import BundleError, InputError
from posekit.skeletons import COCO_17
from posekit.spec import DetectorSpec, ModelSpec, Skeleton
from posekit.stats.calibration import Calibration

SPEC = ModelSpec("hrnet-w32", (192, 256), (48, 64), COCO_17)
WILD = [math.nan, math.inf, -math.inf, 10**400, "1", None, [1], {}]
FREE = ["padding", "crop_shrink", "crop_center", "flip_shift", "sigma", "blur", "gate"]


def test_a_spec_comes_back_as_it_was() -> None:
    assert ModelSpec.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("value", WILD, ids=lambda value: str(value)[:9])
def test_a_number_of_a_spec_that_is_none_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"spec: {name}"):
        ModelSpec.from_dict({**SPEC.to_dict(), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_size", [192]),
        ("input_size", [192, 256, 3]),
        ("input_size", [192, 10**9]),
        ("input_size", [192.5, 256]),
        ("input_size", [True, 256]),
        ("heatmap_size", [0, 64]),
        ("heatmap_size", "48"),
        ("mean", [1, 2]),
        ("mean", [1, 2, math.nan]),
        ("std", [1, 2, 0]),
        ("map_scale", [4, -4]),
        ("map_offset", [[1], 2]),
        ("padding", -1),
        ("sigma", 1e300),
        ("blur", 4),
        ("blur", 10**9 + 1),
        ("architecture", 3),
        ("color", ["rgb"]),
        ("decode", {}),
    ],
)
def test_a_field_of_another_shape_or_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"spec: {name}"):
        ModelSpec.from_dict({**SPEC.to_dict(), name: value})


@pytest.mark.parametrize("data", [[], 3, "x", {}, {"input_size": 1}])
def test_what_is_no_spec_is_one_sentence(data: Any) -> None:
    for kind in (ModelSpec, DetectorSpec, Skeleton, Calibration):
        with pytest.raises(InputError) as caught:
            kind.from_dict(data)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigmas", [math.nan] * 17),
        ("sigmas", [10**400] * 17),
        ("sigmas", [-1] * 17),
        ("bones", [[0, math.inf]]),
        ("bones", [[0, 1, 2]]),
        ("bones", [[0, 99]]),
        ("mirror", [0.5] * 17),
        ("mirror", list(range(16))),
        ("keypoints", ["a"] * 5000),
    ],
)
def test_a_skeleton_of_wrong_numbers_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match="skeleton"):
        Skeleton.from_dict({**COCO_17.to_dict(), name: value})


@pytest.mark.parametrize("fill", [-1, 256, 1.5, math.nan, "0"])
def test_a_detectors_fill_is_a_gray_level(fill: Any) -> None:
    with pytest.raises(InputError, match="fill"):
        DetectorSpec.from_dict({"architecture": "a", "input_size": [32, 32], "fill": fill})


CURVE = {"tolerance": 0.1, "knots": [0.0, 0.5, 1.0], "chances": [[0.0, 0.5, 1.0]] * 17}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tolerance", math.nan),
        ("tolerance", 0),
        ("knots", [0.0, math.inf, 1.0]),
        ("knots", [0.0, 0.5]),
        ("knots", [0.0, 0.0, 1.0]),
        ("chances", [[0.0, 0.5]] * 17),
        ("chances", [[0.0, 2.0, 1.0]] * 17),
        ("chances", [[0.0, 10**400, 1.0]] * 17),
        ("chances", 3),
    ],
)
def test_a_calibration_of_wrong_numbers_is_refused(name: str, value: Any) -> None:
    assert len(Calibration.from_dict(CURVE).probabilities) == 17
    with pytest.raises(InputError, match="calibration"):
        Calibration.from_dict({**copy.deepcopy(CURVE), name: value})


def test_a_calibration_of_another_skeleton_is_found_before_it_is_used() -> None:
    part = json.dumps({"graphs": {"flip": {**CURVE, "chances": [[0.0, 0.5, 1.0]] * 3}}}).encode()
    made = Bundle("b", SPEC, {"w": np.ones(1)}, {}, extras={"calibration.json": part})
    with pytest.raises(BundleError, match=r"calibration\.json is of 3 keypoints, the model of 17"):
        made.calibration("flip")
