"""Test-time augmentation: warps of the views, sampled maps, and the averaged prediction."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import posekit
from posekit import Bundle, EstimateOptions, codecs
from posekit.bundle import find
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.inference.runtime import Runtime
from posekit.inference.tta import VIEWS, Reader, TtaRuntime, View, matrix_of
from posekit.types import Boxes, ModelSpec


def spec(**changes: object) -> ModelSpec:
    current = Bundle.open(find("movenet-lightning")).pose_spec
    return ModelSpec(**{**current.__dict__, **changes})


CONVENTIONS = {
    "half-pixel": {},
    "msra": {"map_offset": (0.0, 0.0), "input_size": (192, 256), "heatmap_size": (48, 64)},
    "udp": {
        "map_offset": (0.0, 0.0),
        "map_scale": (191 / 47, 255 / 63),
        "input_size": (192, 256),
        "heatmap_size": (48, 64),
    },
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("view", [View(90), View(180, mirrored=True), View(30), View(-70, True)])
def test_a_joint_of_a_view_is_decoded_at_its_place_in_the_crop(view: View, convention: str) -> None:
    """The ideal map of a rotated joint, sampled at the crop's cells, peaks at the joint; bilinear
    sampling and sub-pixel decoding move it by less than a tenth of a cell."""
    of = spec(**CONVENTIONS[convention], sigma=2.0)
    center = (np.array(of.input_size) - 1) / 2
    joints = center + np.random.default_rng(0).uniform(-30, 30, (1, len(of.skeleton), 2))
    matrix = matrix_of(view, of)
    in_view = joints @ matrix[:, :2].T + matrix[:, 2]
    maps = codecs.encode(in_view, of)
    if view.mirrored:
        maps = maps[:, list(of.skeleton.mirror)]
    points, _ = codecs.decode(Reader.of(view, of)(maps), of)
    assert np.abs(points - joints).max() < 0.1 * of.map_scale[0]


def test_quarter_turns_of_a_square_crop_are_exact() -> None:
    """With half-pixel cells they permute the cells: equal bit for bit."""
    of = spec()
    maps = np.random.default_rng(1).random((2, 17, 48, 48), np.float32)
    back = Reader.of(View(-90), of)(Reader.of(View(90), of)(maps))
    assert np.array_equal(back, maps)
    assert np.array_equal(Reader.of(View(90), of)(maps), np.rot90(maps, 1, (2, 3)))


def image() -> np.ndarray:
    drawn = np.zeros((300, 300, 3), np.uint8)
    cv2.circle(drawn, (150, 80), 30, (200, 180, 160), -1)
    cv2.rectangle(drawn, (120, 110), (180, 220), (90, 90, 200), -1)
    return drawn


def test_one_view_is_the_plain_runtime() -> None:
    """The graph's decode and numpy's agree to 0.01 px (the export's own bound)."""
    bundle = Bundle.open(find("movenet-lightning"))
    boxes = Boxes(np.array([[60, 20, 240, 280]], np.float32))
    warp = Warp.from_boxes(boxes, bundle.pose_spec)
    plain = Runtime(bundle, device="cpu", threads=1, flip=False)
    one = TtaRuntime(bundle, views=1, device="cpu", threads=1)
    for (points, scores), (expected, heights) in [
        (one.infer(one.crop(image(), warp)), plain.infer(plain.crop(image(), warp)))
    ]:
        detected = heights > 0.1
        assert np.abs(points - expected)[detected].max(initial=0) < 0.01
        assert np.abs(scores - heights).max() < 1e-4


def test_two_views_nearly_equal_the_flip_test() -> None:
    """Both average with the mirrored view, here weighted by the peaks: points that are confident in
    both lie within a pixel."""
    bundle = Bundle.open(find("movenet-lightning"))
    crops = bundle.reference["crops"]
    flip = Runtime(bundle, device="cpu", threads=1, flip=True)
    two = TtaRuntime(bundle, views=2, device="cpu", threads=1)
    views = np.stack([crops, crops[:, :, ::-1]], 1).reshape(-1, *crops.shape[1:])
    points, _ = two.infer(np.ascontiguousarray(views))
    expected, heights = flip.infer(crops)
    assert np.median(np.linalg.norm(points - expected, axis=2)[heights > 0.4]) < 1.0


def test_an_estimator_takes_views(tmp_path: Path) -> None:
    estimator = posekit.load(
        "movenet-lightning", "cpu", 1, boxes="full", options=EstimateOptions(views=4)
    )
    poses = estimator(image(), np.array([[60, 20, 240, 280], [0, 0, 300, 300]], np.float32))
    assert poses.points.shape == (2, 17, 2)
    assert len(estimator(image(), np.zeros((0, 4), np.float32))) == 0


def test_other_numbers_of_views_are_refused() -> None:
    with pytest.raises(InputError, match="1, 2, 4, 8, 14, 16"):
        TtaRuntime(Bundle.open(find("movenet-lightning")), views=3)
    assert [len(views) for views in VIEWS.values()] == list(VIEWS)
