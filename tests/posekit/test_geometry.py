"""Boxes to crops and back, against numbers worked by hand; IoU and OKS against pycocotools."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posekit.errors import InputError
from posekit.geometry import Warp, box_iou, oks
from posekit.skeletons import COCO_17
from posekit.types import Boxes, ModelSpec

MSRA = ModelSpec("none", (192, 256), (48, 64), COCO_17, padding=1.25)
UDP = dataclasses.replace(MSRA, crop_shrink=1.0, crop_center=0.5)
HALF = dataclasses.replace(MSRA, crop_center=0.5)
# A box of 120 x 240 at (100, 50): its height rules (240 * 192 / 256 = 180 wide), padded to
# 225 x 300; so it spans x 47.5 to 272.5 and y 20 to 320, about (160, 170).
BOX = Boxes(np.array([[100, 50, 220, 290]], np.float32))
LEFT_TOP, RIGHT_BOTTOM, CENTER = (47.5, 20.0), (272.5, 320.0), (160.0, 170.0)


def to_crop(spec: ModelSpec, *points: tuple[float, float]) -> list[list[float]]:
    return Warp.from_boxes(BOX, spec).to_crop([points])[0].tolist()


def test_msra_sends_the_box_to_zero_and_the_full_size() -> None:
    got = to_crop(MSRA, LEFT_TOP, CENTER, RIGHT_BOTTOM)
    np.testing.assert_allclose(got, [[0, 0], [96, 128], [192, 256]], atol=1e-4)


def test_udp_sends_the_box_to_the_centers_of_the_corner_pixels() -> None:
    got = to_crop(UDP, LEFT_TOP, CENTER, RIGHT_BOTTOM)
    np.testing.assert_allclose(got, [[0, 0], [95.5, 127.5], [191, 255]], atol=1e-4)


def test_half_pixel_sends_the_box_to_the_corner_pixels_outer_edges() -> None:
    got = to_crop(HALF, LEFT_TOP, CENTER, RIGHT_BOTTOM)
    np.testing.assert_allclose(got, [[-0.5, -0.5], [95.5, 127.5], [191.5, 255.5]], atol=1e-4)


@pytest.mark.parametrize(
    ("box", "span"),
    [
        ((0, 0, 100, 10), (125, 125 * 4 / 3)),  # wide: the width rules
        ((0, 0, 10, 100), (125 * 3 / 4, 125)),  # tall: the height rules
        ((0, 0, 75, 100), (93.75, 125)),  # of the crop's own aspect
        ((7, 7, 8, 8), (1.25, 1.25 * 4 / 3)),  # one pixel
        ((7, 7, 7, 7), (1.25, 1.25 * 4 / 3)),  # none counts as one
    ],
)
@pytest.mark.parametrize("spec", [MSRA, HALF])
def test_a_box_grows_to_the_crops_aspect(
    box: tuple[float, ...], span: tuple[float, float], spec: ModelSpec
) -> None:
    warp = Warp.from_boxes(Boxes(np.array([box], np.float32)), spec)
    corners = warp.to_frame([[[0, 0], [192, 256]]])[0]
    np.testing.assert_allclose(corners[1] - corners[0], span, rtol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (288, 384), (320, 96), (31, 17)])
def test_any_aspect_keeps_circles_round_and_the_box_inside(size: tuple[int, int]) -> None:
    spec = dataclasses.replace(HALF, input_size=size, padding=1.0)
    warp = Warp.from_boxes(BOX, spec)
    assert warp.matrix[0, 0, 0] == pytest.approx(warp.matrix[0, 1, 1], rel=1e-12)
    corners = warp.to_crop(BOX.xyxy.reshape(1, 2, 2))[0]
    assert (corners >= -0.5 - 1e-4).all()
    assert (corners <= np.array(size) - 0.5 + 1e-4).all()
    assert np.isclose(corners[1] - corners[0], size, rtol=1e-5).any()


def test_what_is_beyond_the_frame_is_black_and_what_is_inside_stays_in_place() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[...] = 200
    spec = dataclasses.replace(HALF, input_size=(60, 60), padding=1.0)
    boxes = Boxes(np.array([[-30, -30, 30, 30], [90, 70, 150, 130], [-300, 0, -240, 60]], "f4"))
    matrices = Warp.from_boxes(boxes, spec).matrix
    one, two, three = (cv2.warpAffine(image, matrix, (60, 60)) for matrix in matrices)
    # The box's center, the frame's corner pixel, falls between two crop pixels: half a pixel off.
    assert (one[31:, 31:] == 200).all()
    assert not one[:29].any()
    assert not one[:, :29].any()
    assert (two[:29, :29] == 200).all()
    assert not two[31:].any()
    assert not three.any()


def test_a_crops_pixels_lie_where_the_warp_says() -> None:
    # A ramp's gray value is its own x; bilinear sampling of a ramp is exact (OpenCV 4: 1/32 px).
    ramp = np.broadcast_to(np.arange(300, dtype=np.float32), (300, 300)).copy()
    boxes = Boxes(np.array([[60, 40, 200, 260]], np.float32))
    for spec in (MSRA, UDP, HALF):
        warp = Warp.from_boxes(boxes, spec)
        crop = cv2.warpAffine(ramp, warp.matrix[0], spec.input_size)
        pixels = np.array([[x, y] for x in (40, 90, 150) for y in (50, 200)])
        frame_x = warp.to_frame(pixels[None])[0, :, 0]
        np.testing.assert_allclose(crop[pixels[:, 1], pixels[:, 0]], frame_x, atol=1 / 31)


@given(
    st.lists(
        st.tuples(*[st.floats(-5000, 5000, width=32)] * 2, *[st.floats(0, 4000, width=32)] * 2),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([MSRA, UDP, HALF]),
)
def test_to_the_crop_and_back(
    rows: list[tuple[float, float, float, float]], spec: ModelSpec
) -> None:
    xyxy = np.array([[x, y, x + w, y + h] for x, y, w, h in rows], np.float32)
    warp = Warp.from_boxes(Boxes(xyxy), spec)
    assert len(warp) == len(rows)
    points = np.random.default_rng(0).uniform(0, 256, (len(rows), 4, 2)).astype(np.float32)
    # Frame places up to 1e4 hold 5e-4 in float32, in a crop that enlarges by up to 192 / 1.25.
    scale = np.abs(warp.matrix[:, :, :2]).max(axis=(1, 2))[:, None, None]
    there = warp.to_crop(warp.to_frame(points))
    assert (np.abs(there - points) <= 1e-3 * np.maximum(scale, 1)).all()
    np.testing.assert_allclose(
        warp.inverse().to_frame(points), warp.to_crop(points), rtol=1e-4, atol=1e-2
    )


def test_no_boxes_give_no_warps() -> None:
    warp = Warp.from_boxes(Boxes(np.zeros((0, 4))), MSRA)
    assert len(warp) == 0
    assert warp.to_frame(np.zeros((0, 17, 2))).shape == (0, 17, 2)


@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 0, 1, 1),
        (0, 0, np.inf, 1),
        (5, 0, 4, 9),  # right of its right side
        (0, 5, 9, 4),
    ],
)
def test_boxes_that_are_none_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"row 1 is .*; wanted finite x0, y0, x1, y1"):
        Boxes(np.array([(0, 0, 1, 1), box], np.float32))


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 3), (0,)])
def test_matrices_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"warp: wanted shape \(N, 2, 3\)"):
        Warp(np.zeros(shape))


@pytest.mark.parametrize("shape", [(17, 2), (2, 17, 2), (1, 17, 3)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"points: wanted shape \(1, K, 2\)"):
        Warp.from_boxes(BOX, MSRA).to_crop(np.zeros(shape))


def test_iou_equals_pycocotools() -> None:
    random = np.random.default_rng(0)
    a, b = (
        np.concatenate(
            [low := random.uniform(0, 50, (n, 2)), low + random.uniform(0, 50, (n, 2))], 1
        )
        for n in (30, 40)
    )
    xywh = [np.concatenate([each[:, :2], each[:, 2:] - each[:, :2]], 1) for each in (a, b)]
    wanted = mask.iou(xywh[0], xywh[1], [0] * len(b))
    got = box_iou(Boxes(a.astype(np.float32)), Boxes(b.astype(np.float32)))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_boxes_without_area_overlap_nothing() -> None:
    empty = Boxes(np.array([[1, 1, 1, 1]], np.float32))
    assert box_iou(empty, empty).tolist() == [[0]]
    assert box_iou(empty, Boxes(np.array([[0, 0, 2, 2]], np.float32))).tolist() == [[0]]
    assert box_iou(Boxes(np.zeros((0, 4))), empty).shape == (0, 1)


def coco_oks(
    truth: np.ndarray, found: np.ndarray, areas: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """pycocotools' similarity of each found person (rows, best score first) to each true one."""

    def entry(points: np.ndarray, flags: np.ndarray, **more: object) -> dict[str, object]:
        keypoints = np.concatenate([points, flags[:, None]], 1).reshape(-1).tolist()
        return {"image_id": 1, "category_id": 1, "keypoints": keypoints, **more}

    gt, dt = COCO(), COCO()
    for coco, entries in (
        (
            gt,
            [
                entry(
                    p, 2 * v, id=i + 1, area=float(a), bbox=[0, 0, 1, 1], num_keypoints=9, iscrowd=0
                )
                for i, (p, v, a) in enumerate(zip(truth, visible, areas, strict=True))
            ],
        ),
        (
            dt,
            [
                entry(p, np.ones(17), id=i + 1, area=1.0, bbox=[0, 0, 1, 1], score=1.0 - i / 100)
                for i, p in enumerate(found)
            ],
        ),
    ):
        coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": entries}
        coco.createIndex()
    judge = COCOeval(gt, dt, "keypoints")
    judge._prepare()
    return np.asarray(judge.computeOks(1, 1))


def test_oks_equals_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(0, 200, (5, 17, 2)).astype(np.float32)
    found = np.concatenate([truth + random.normal(0, s, truth.shape) for s in (2, 8, 30)])
    found = found.astype(np.float32)
    areas = random.uniform(500, 20000, 5).astype(np.float32)
    visible = random.integers(0, 2, (5, 17)).astype(np.float32)
    visible[:, 0] = 1  # pycocotools takes the box instead where nothing is visible
    wanted = coco_oks(truth, found, areas, visible)
    capsys.readouterr()
    got = oks(truth, found, areas, sigmas=COCO_17.sigmas, visible=visible)
    np.testing.assert_allclose(got.T, wanted, atol=1e-5)
    by_pair = np.broadcast_to(visible[:, None], (5, 15, 17))
    paired = oks(truth, found, areas, sigmas=COCO_17.sigmas, visible=by_pair)
    np.testing.assert_allclose(paired, got, atol=1e-6)


def test_oks_without_a_visible_point_is_zero_and_without_area_an_exact_match_is_one() -> None:
    points = np.zeros((1, 17, 2), np.float32)
    none, nowhere = np.zeros((1, 17), np.float32), np.zeros(1, np.float32)
    assert oks(points, points, nowhere, sigmas=COCO_17.sigmas).tolist() == [[1]]
    assert oks(points, points + 1, nowhere, sigmas=COCO_17.sigmas).tolist() == [[0]]
    assert oks(points, points, nowhere + 1, sigmas=COCO_17.sigmas, visible=none).tolist() == [[0]]
