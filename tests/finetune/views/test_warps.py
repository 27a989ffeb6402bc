"""Views: warps have the drawn parameters, maps move with the image, and cutouts lie on joints."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from posekit import codecs
from posekit.geometry import Float64, compose
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec, UInt8
from posekit_finetune.data.persons import offset_of, patch_size
from posekit_finetune.views import warps
from posekit_finetune.views.warps import Strength

SQUARE = ModelSpec("x", (192, 192), (48, 48), COCO_17, map_scale=(4, 4), map_offset=(1.5, 1.5))
TALL = ModelSpec("x", (192, 256), (48, 64), COCO_17)
SPECS = {
    "msra": TALL,
    "udp": dataclasses.replace(TALL, map_scale=(191 / 47, 255 / 63)),
    "half pixel": dataclasses.replace(TALL, map_offset=(1.5, 1.5)),
    "square half pixel": SQUARE,
}
WARPS = {
    "turn": Strength(turn_deg=(500.0, 60.0)),
    "shrink": Strength(scale=(0.25, 0.25)),
    "move": Strength(move_px=9.0),
    "mirror": Strength(flip=1.0),
    "all": Strength((30.0, 60.0), scale=(0.25, 0.25), move_px=5.0, flip=0.5),
}
JOINTS = 17


def randoms(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, n)) for n in range(count)]


def points_in(spec: ModelSpec, count: int) -> NDArray[np.float32]:
    """Joints near the center, so that no warp of the tests moves them to an edge."""
    center = np.array(spec.input_size) / 2
    places = np.random.default_rng(5).uniform(-0.16, 0.16, (count, JOINTS, 2))
    return (center + places * min(spec.input_size)).astype(np.float32)


def centroid(maps: torch.Tensor, spec: ModelSpec) -> Float64:
    """Center of mass of each map in crop px, exact for a resampled Gaussian."""
    values = maps.double().numpy()
    mass = values.sum((2, 3))
    x = (values.sum(2) * np.arange(values.shape[3])).sum(2) / mass
    y = (values.sum(3) * np.arange(values.shape[2])).sum(2) / mass
    cells: Float64 = np.stack([x, y], 2) * spec.map_scale + spec.map_offset
    return cells


@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("name", SPECS)
def test_maps_move_with_the_image(name: str, warp: str) -> None:
    """Each peak within 0.05 px of the exactly warped point, also in scaled views."""
    spec = SPECS[name]
    matrix = warps.draw_warps(randoms(16), WARPS[warp], spec)
    points = points_in(spec, 16)
    warped, _ = warps.warp_maps(torch.from_numpy(codecs.encode(points, spec)), matrix, spec)
    away = centroid(warped, spec) - warps.warp_points(points, matrix, spec)
    assert np.linalg.norm(away, axis=2).max() < 0.05


def test_maps_are_sampled_exactly_at_cells_and_to_second_order_between() -> None:
    """A parabola in each direction is reproduced except between the two cells at an edge."""
    x, y = torch.arange(12.0), torch.arange(9.0)[:, None]
    maps = ((x - 4) ** 2 - 5 * x * y + (y - 2) ** 2)[None, None]
    columns, rows = np.meshgrid(np.arange(1, 10, 0.3), np.arange(1, 7, 0.3))
    sampled, inside = warps.sample_maps(maps, np.stack([columns, rows], 2)[None])
    expected = (columns - 4) ** 2 - 5 * columns * rows + (rows - 2) ** 2
    np.testing.assert_allclose(sampled[0, 0].numpy(), expected, atol=2e-4)
    assert inside.all()
    edges = np.array([[[[0.0, 0.0], [11.0, 8.0], [-0.01, 3.0], [11.01, 8.0]]]])
    sampled, inside = warps.sample_maps(maps, edges)
    assert inside.flatten().tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(sampled.flatten().numpy(), [20, 49 - 440 + 36, 0, 0], atol=1e-4)


def test_the_reference_implementation_is_off_by_one_to_two_pixels() -> None:
    """One normalized matrix for image and maps, as in the paper's code, with x_map = x / 4.

    Half-pixel normalization maps image px x to (2 x + 1) / W - 1 and cell x / 4 to
    (2 x + 4) / W - 1, so maps rotate about a point (1.5, 1.5) px from the image's center: rotated
    by r they end |R - 1| 1.5 √2 = 3 √2 sin(r / 2) px apart: 1.10 at 30 degrees, 2.12 at 60.
    """
    spec = dataclasses.replace(SQUARE, map_offset=(0.0, 0.0))
    points = points_in(spec, 1)
    pixels = dataclasses.replace(spec, heatmap_size=(192, 192), map_scale=(1, 1), sigma=8.0)
    for degrees, expected in ((30, 1.098), (60, 2.121)):
        angle = np.deg2rad(degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        theta = torch.tensor([[[cos, -sin, 0], [sin, cos, 0]]], dtype=torch.float32)
        ends = []
        for each in (spec, pixels):
            maps = torch.from_numpy(codecs.encode(points, each))
            grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
            ends.append(centroid(F.grid_sample(maps, grid, align_corners=False), each))
        apart = np.linalg.norm(ends[0] - ends[1], axis=2)
        np.testing.assert_allclose(apart, expected, atol=0.02)
        # Ours, measured in the same way.
        linear = np.array([[cos, sin], [-sin, cos]])
        center = np.array([95.5, 95.5])
        matrix = np.concatenate([linear, (center - linear @ center)[:, None]], 1)[None]
        ours = [
            centroid(
                warps.warp_maps(torch.from_numpy(codecs.encode(points, each)), matrix, each)[0],
                each,
            )
            for each in (spec, pixels)
        ]
        assert np.linalg.norm(ours[0] - ours[1], axis=2).max() < 0.05


@pytest.mark.parametrize("name", SPECS)
def test_a_warp_and_its_inverse_move_a_peak_by_less_than_a_tenth_of_a_cell(name: str) -> None:
    spec = SPECS[name]
    matrix = warps.draw_warps(randoms(8), WARPS["all"], spec)
    back = warps.relative_warp(matrix, warps.identity(8))
    points = points_in(spec, 8)
    forward, _ = warps.warp_maps(torch.from_numpy(codecs.encode(points, spec)), matrix, spec)
    restored, _ = warps.warp_maps(forward, back, spec)
    away = np.abs(centroid(restored, spec) - points) / spec.map_scale
    assert away.max() < 0.1


def test_warped_maps_have_a_mask_of_where_they_are_defined() -> None:
    """Shifted right by 8 px, the two left columns of cells lie outside the source."""
    matrix = warps.identity(1)
    matrix[0, 0, 2] = 8
    _, defined = warps.warp_maps(torch.ones(1, JOINTS, 64, 48), matrix, TALL)
    assert defined.shape == (1, 1, 64, 48)
    assert not defined[0, 0, :, :2].any()
    assert defined[0, 0, :, 2:].all()


def test_a_mirror_exchanges_left_and_right() -> None:
    matrix = warps.draw_warps(randoms(2), Strength(flip=1.0), SQUARE)
    assert warps.Views(np.zeros((2, 1, 1, 3), np.uint8), matrix).mirrored.all()
    values = torch.arange(JOINTS).float().repeat(2, 1)
    assert warps.swap_sides(values, matrix, SQUARE)[0].tolist() == list(COCO_17.mirror)
    assert warps.swap_sides(values, warps.identity(2), SQUARE)[0].tolist() == list(range(JOINTS))


@pytest.mark.parametrize("name", SPECS)
def test_a_rotation_remains_one_on_any_aspect_ratio(name: str) -> None:
    """Both singular values are the scale: the reference shears crops that are not square."""
    strength = Strength((30.0, 60.0), scale=(0.25, 0.25), flip=0.5, any_turn=0.3)
    matrix = warps.draw_warps(randoms(50), strength, SPECS[name])
    values = np.linalg.svd(matrix[:, :, :2])[1]
    np.testing.assert_allclose(values[:, 0], values[:, 1], rtol=1e-9)
    assert values.min() >= 0.75 - 1e-9
    assert values.max() <= 1.25 + 1e-9


def test_drawn_warps_keep_the_limits_and_shares_of_the_strength() -> None:
    """Limits hold exactly, shares within four standard errors of 2,000 draws (0.045)."""
    strength = Strength((30.0, 60.0), turn_share=0.6, flip=0.5)
    matrix = warps.draw_warps(randoms(2000), strength, SQUARE)
    sign = np.sign(np.linalg.det(matrix[:, :, :2]))
    turn = np.rad2deg(np.arctan2(matrix[:, 1, 0], matrix[:, 1, 1]))
    assert np.abs(turn).max() <= 60 + 1e-6
    assert abs((np.abs(turn) > 1e-6).mean() - 0.6) < 0.045
    assert abs((sign < 0).mean() - 0.5) < 0.045
    assert abs(turn[np.abs(turn) > 1e-6].std() - 29) < 3  # clipped at two sigma: 0.96 * 30
    uniform = warps.draw_warps(randoms(2000), Strength(any_turn=1.0), SQUARE)
    turn = np.arctan2(uniform[:, 1, 0], uniform[:, 1, 1])
    assert np.histogram(turn, 8, (-np.pi, np.pi))[0].min() > 180  # of 250: five standard errors


def test_a_part_of_a_batch_draws_the_same_as_the_whole() -> None:
    whole = warps.draw_warps(randoms(6), WARPS["all"], SQUARE)
    part = warps.draw_warps(randoms(6)[1::2], WARPS["all"], SQUARE)
    np.testing.assert_array_equal(whole[1::2], part)


def dotted(spec: ModelSpec, points: NDArray[np.float32]) -> UInt8:
    """Patches with a bright Gaussian dot at one joint each."""
    width, height = patch_size(spec)
    x, y = np.arange(width), np.arange(height)[:, None]
    patches = np.zeros((len(points), height, width, 3), np.uint8)
    for patch, point in zip(patches, points[:, 0] + offset_of(spec), strict=True):
        patch[:] = np.rint(
            250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 6.0**2))
        )[:, :, None]
    return patches


@pytest.mark.parametrize("name", SPECS)
def test_images_and_points_move_alike(name: str) -> None:
    """A dot in the patch appears where the warp moves it; OpenCV's grid is 1/32 px."""
    spec = SPECS[name]
    points = points_in(spec, 6)
    matrix = warps.draw_warps(randoms(6, 2), WARPS["all"], spec)
    views = warps.cut_view(dotted(spec, points), offset_of(spec), matrix, spec=spec)
    assert views.crops.shape == (6, *spec.input_size[::-1], 3)
    gray = torch.from_numpy(views.crops[:, :, :, 0].astype(np.float64))[:, None]
    pixels = dataclasses.replace(spec, map_scale=(1, 1), map_offset=(0, 0))
    expected = compose(matrix, np.zeros((6, 2, 3)))[:, None, :, 2] * 0
    expected = np.einsum("bij,bkj->bki", matrix[:, :, :2], points[:, :1]) + matrix[:, None, :, 2]
    assert np.abs(centroid(gray, pixels) - expected).max() < 0.1


def test_the_identity_view_is_the_canonical_crop() -> None:
    patches = np.random.default_rng(1).integers(0, 256, (2, *patch_size(TALL)[::-1], 3), np.uint8)
    x, y = (int(v) for v in offset_of(TALL))
    views = warps.cut_view(patches, offset_of(TALL), warps.identity(2), spec=TALL)
    np.testing.assert_array_equal(views.crops, patches[:, y : y + 256, x : x + 192])


def test_joint_cutout_covers_its_joints_and_nothing_far() -> None:
    """JC on a crop 192 px wide: boxes of 20 to 38 px around places some 10 px from five joints."""
    count = 40
    crops = np.full((count, 256, 192, 3), 255, np.uint8)
    joints = np.full((count, JOINTS, 2), (60.0, 240.0), np.float32)  # at the feet
    augmented = warps.augment(
        randoms(count), warps.Views(crops, warps.identity(count)), joints,
        strength=Strength(cutout=1), spec=TALL,
    ).crops  # fmt: skip
    assert (crops == 255).all()
    hit = (augmented != 255).any(3)
    assert hit.any(
        (1, 2)
    ).all()  # the reference exchanges width and height and never covers the feet
    assert (augmented[hit] == np.array(TALL.mean).round().astype(np.uint8)).all()
    widths = hit.any(1).sum(1)
    assert widths.min() >= 20
    assert widths.max() <= 39
    rows, columns = np.nonzero(hit.any(0))
    assert abs(columns.mean() - 60) < 5
    assert rows.min() > 240 - 20 - 50  # a half side and five sigma


def test_the_fill_of_bgr_networks_is_their_own_mean() -> None:
    spec = dataclasses.replace(TALL, color="bgr", mean=(10.0, 20.0, 30.0))
    crops = np.full((1, 256, 192, 3), 255, np.uint8)
    joints = np.full((1, JOINTS, 2), 100, np.float32)
    views = warps.Views(crops, warps.identity(1))
    augmented = warps.augment(randoms(1), views, joints, strength=Strength(cutout=1), spec=spec)
    assert augmented.crops[(augmented.crops != 255).any(3)][0].tolist() == [
        30,
        20,
        10,
    ]  # crops are RGB
    normalized = warps.normalize(augmented.crops, spec)
    assert normalized[:, :, 100, 100].abs().max() < 0.6 / 57  # zeros to the network


def test_joints_are_drawn_without_replacement_unless_repeat_joints() -> None:
    """As many draws as joints cover each of them without replacement; with it some are missed."""
    joints = np.zeros((60, 5, 2), np.float32)
    joints[:, :, 0] = np.arange(5) * 400 + 200
    joints[:, :, 1] = 100
    crops = np.full((60, 200, 2000, 3), 255, np.uint8)
    spec = dataclasses.replace(TALL, input_size=(192, 256))
    hits = {}
    for repeat in (False, True):
        augmented = warps.augment(
            randoms(60), warps.Views(crops, warps.identity(60)), joints,
            strength=Strength(cutout=5), spec=spec, repeat_joints=repeat,
        ).crops  # fmt: skip
        hit = (augmented != 255).any((1, 3))
        hits[repeat] = hit.reshape(60, 5, 400).any(2).sum(1)
    assert (hits[False] == 5).all()
    # 5 draws of 5: 5 (1 - 0.8^5) = 3.36 distinct; standard error 0.1 over 60.
    assert abs(hits[True].mean() - 3.36) < 0.4


def test_relative_warp_is_composed_over_the_canonical_crop() -> None:
    first, second = (warps.draw_warps(randoms(4, n), WARPS["all"], TALL) for n in (1, 2))
    np.testing.assert_allclose(
        compose(warps.relative_warp(first, second), first), second, atol=1e-9
    )


def test_normalize_follows_the_spec() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    normalized = warps.normalize(crops, dataclasses.replace(TALL, color="bgr")).numpy()
    expected = (crops[..., ::-1].astype(np.float64) - TALL.mean) / TALL.std
    np.testing.assert_allclose(normalized, expected.transpose(0, 3, 1, 2), atol=1e-5)
