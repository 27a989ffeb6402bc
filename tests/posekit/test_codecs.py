"""Heatmaps and back: against the definitions, and against the peers' whole-map way."""

import dataclasses
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from posekit.codecs import MAX_STEP, decode, encode, merge_flip, mirror_matrix
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Decode, Float32, ModelSpec, Skeleton

THREE = Skeleton("three", ("nose", "left", "right"), ((0, 1),), (0, 2, 1), (0.1, 0.1, 0.1))
# Points are cells: a = 1, b = 0.
CELLS = ModelSpec("none", (48, 64), (48, 64), THREE, map_scale=(1.0, 1.0), blur=11)
MSRA = ModelSpec("none", (192, 256), (48, 64), COCO_17, flip_shift=0.75)
UDP = dataclasses.replace(
    MSRA, crop_shrink=1.0, crop_center=0.5, map_scale=(191 / 47, 255 / 63), flip_shift=0.0
)
HALF = dataclasses.replace(MSRA, crop_center=0.5, map_offset=(1.5, 1.5), flip_shift=0.0)
CONVENTIONS = {"msra": MSRA, "udp": UDP, "half-pixel": HALF}


def noisy_maps(count: int, *, noise: float = 0.02, seed: int = 0) -> tuple[Float32, Float32]:
    """Gaussians anywhere on the map, borders too, with noise; and their places."""
    random = np.random.default_rng(seed)
    places = random.uniform(0, [47, 63], (count, 3, 2)).astype(np.float32)
    maps = encode(places, CELLS)
    return maps + random.normal(0, noise, maps.shape).astype(np.float32), places


# --- the peers' way, written from their descriptions: the whole map is blurred -----------------


def whole_map_blurred(heatmap: NDArray[Any], side: int) -> NDArray[Any]:
    """Zeros around, OpenCV's Gaussian, and the old height."""
    border = side // 2
    wide = cv2.copyMakeBorder(heatmap, border, border, border, border, cv2.BORDER_CONSTANT, value=0)
    wide = cv2.GaussianBlur(wide, (side, side), 0)
    blurred = wide[border:-border, border:-border]
    return blurred * (heatmap.max() / blurred.max())


def whole_map_dark(heatmap: NDArray[Any], side: int) -> tuple[float, float]:
    """DARK for one map, float64; NaN where it would step from what is no peak."""
    height, width = heatmap.shape
    y, x = (int(i) for i in np.unravel_index(heatmap.argmax(), heatmap.shape))
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return float(x), float(y)
    b = np.log(np.maximum(whole_map_blurred(heatmap.astype(np.float64), side), 1e-10))
    slope = np.array([b[y, x + 1] - b[y, x - 1], b[y + 1, x] - b[y - 1, x]]) / 2
    xx = (b[y, x + 2] - 2 * b[y, x] + b[y, x - 2]) / 4
    yy = (b[y + 2, x] - 2 * b[y, x] + b[y - 2, x]) / 4
    xy = (b[y + 1, x + 1] - b[y - 1, x + 1] - b[y + 1, x - 1] + b[y - 1, x - 1]) / 4
    if xx >= 0 or xx * yy - xy * xy <= 1e-3 * (xx + yy) ** 2:
        return np.nan, np.nan
    dx, dy = -np.linalg.solve([[xx, xy], [xy, yy]], slope)
    return x + dx, y + dy


def whole_map_udp(heatmap: NDArray[Any], side: int) -> tuple[float, float]:
    """mmpose's UDP-DARK for one map, float64, and NaN as above."""
    y, x = (int(i) for i in np.unravel_index(heatmap.argmax(), heatmap.shape))
    b = np.log(np.clip(whole_map_blurred(heatmap.astype(np.float64), side), 1e-3, 50))
    b = np.pad(b, 1, mode="edge")
    y1, x1 = y + 1, x + 1
    slope = np.array([b[y1, x1 + 1] - b[y1, x1 - 1], b[y1 + 1, x1] - b[y1 - 1, x1]]) / 2
    xx = b[y1, x1 + 1] - 2 * b[y1, x1] + b[y1, x1 - 1]
    yy = b[y1 + 1, x1] - 2 * b[y1, x1] + b[y1 - 1, x1]
    near = b[y1, x1 + 1] + b[y1 + 1, x1] + b[y1, x1 - 1] + b[y1 - 1, x1]
    xy = (b[y1 + 1, x1 + 1] + b[y1 - 1, x1 - 1] + 2 * b[y1, x1] - near) / 2
    if xx >= 0 or xx * yy - xy * xy <= 1e-3 * (xx + yy) ** 2:
        return np.nan, np.nan
    dx, dy = -np.linalg.solve([[xx, xy], [xy, yy]], slope)
    return x + dx, y + dy


@pytest.mark.parametrize("side", [11, 17])
@pytest.mark.parametrize("name", ["dark", "udp"])
def test_a_local_blur_equals_the_whole_maps(name: Any, side: int) -> None:
    maps, _ = noisy_maps(60)
    spec = dataclasses.replace(CELLS, decode=name, blur=side)
    points, _ = decode(maps, spec)
    peers = {"dark": whole_map_dark, "udp": whole_map_udp}[name]
    wanted = np.array([[peers(heatmap, side) for heatmap in person] for person in maps])
    # Theirs step from a saddle too and without bound; that happens where UDP repeats a border.
    peaked = np.isfinite(wanted).all(2)
    cells = np.stack(np.divmod(maps.reshape(60, 3, -1).argmax(2), 48)[::-1], 2)
    assert np.isin(cells[~peaked] / [47, 63], (0, 1)).any(1).all()
    assert peaked.mean() > 0.9
    np.testing.assert_array_equal(points[~peaked], cells[~peaked])
    bounded = cells + np.clip(wanted - cells, -MAX_STEP, MAX_STEP)
    np.testing.assert_allclose(points[peaked], bounded[peaked], atol=1e-4)


def test_dark_and_udp_find_a_gaussian_between_the_cells() -> None:
    maps, places = noisy_maps(40, noise=0)
    inside = ((places > 7) & (places < [40, 56])).all(2)
    for name in ("dark", "udp"):
        points, _ = decode(maps, dataclasses.replace(CELLS, decode=name))
        # The blur ends at 2.5 sigma, which bends a parabola by less than this.
        assert np.abs(points - places)[inside].max() < 1e-3


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ["dark", "udp"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_round_trip_has_no_bias(convention: str, name: Any, flip: bool) -> None:
    """Frame, crop, ideal heatmap, decode, frame: for a padded box of 300 px."""
    spec = dataclasses.replace(CONVENTIONS[convention], decode=name)
    assert spec.flip_shift == pytest.approx(spec.mirror_shift, abs=1e-12)
    boxes = Boxes(np.array([[400, 100, 400 + 180, 100 + 240]], np.float32))  # 225 x 300 padded
    warp = Warp.from_boxes(boxes, spec)
    means = []
    for column in np.linspace(0.2, 0.8, 13):
        y = 100 - 30 + 300 * np.linspace(0.15, 0.85, 17)
        frame = np.stack([np.full(17, 400 - 22.5 + 225 * column), y], 1)[None]
        crop = warp.to_crop(frame)
        mirrored = crop.copy()
        mirrored[..., 0] = spec.input_size[0] - 1 - crop[..., 0]
        # In the mirrored image, channel k shows the keypoint that mirror[k] is here.
        other = encode(mirrored[:, list(spec.skeleton.mirror)], spec) if flip else None
        back = warp.to_frame(decode(encode(crop, spec), spec, other)[0])
        assert np.abs(back - frame).max() < 0.02
        means.append((back - frame)[..., 0].mean())
    # No scale error either: the mean does not lean from left to right.
    assert abs(np.polyfit(np.linspace(0, 300, 13), means, 1)[0] * 300) < 0.005


def test_a_shift_of_one_cell_is_not_exact_for_msra() -> None:
    """The habit that `flip_shift` replaces: a bias of half of a quarter cell, half a crop px."""
    crop = np.random.default_rng(0).uniform([40, 40], [150, 210], (9, 17, 2))
    mirrored = crop.copy()
    mirrored[..., 0] = 191 - crop[..., 0]
    other = encode(mirrored[:, list(COCO_17.mirror)], MSRA)
    points, _ = decode(encode(crop, MSRA), dataclasses.replace(MSRA, flip_shift=1.0), other)
    assert (points - crop)[..., 0].mean() == pytest.approx(0.5, abs=0.02)


# --- merging --------------------------------------------------------------------------------------


def merged_by_definition(
    heatmaps: Float32, mirrored: Float32, mirror: tuple[int, ...], shift: float
) -> NDArray[Any]:
    width = heatmaps.shape[3]
    whole = int(np.floor(shift))
    part = shift - whole
    merged = np.empty(heatmaps.shape)
    for k, other in enumerate(mirror):
        for x in range(width):
            left, right = (
                mirrored[:, other, :, width - 1 - min(max(column, 0), width - 1)]
                for column in (x - whole, x - whole - 1)
            )
            merged[:, k, :, x] = (heatmaps[:, k, :, x] + (1 - part) * left + part * right) / 2
    return merged


@pytest.mark.parametrize("shift", [0, 1, 2, -1, -3, 0.75, -0.15, 1.4, -2.25, 6, 7, 99, -99, 7.5])
def test_the_merge_is_what_it_says(shift: float) -> None:
    random = np.random.default_rng(0)
    one, two = random.normal(0, 1, (2, 3, 3, 5, 7)).astype(np.float32)
    merged = merge_flip(one, two, mirror=(0, 2, 1), shift=shift)
    wanted = merged_by_definition(one, two, (0, 2, 1), shift)
    np.testing.assert_allclose(merged, wanted, atol=1e-6)
    rows = (two[:, [0, 2, 1]] @ mirror_matrix(7, shift) + one) / 2
    np.testing.assert_allclose(rows, wanted, atol=1e-6)


def test_msra_shift_keeps_the_first_column() -> None:
    maps = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
    merged = merge_flip(np.zeros_like(maps), maps, mirror=(0,), shift=1)
    np.testing.assert_array_equal(merged * 2, [[[[3, 3, 2, 1], [7, 7, 6, 5]]]])


def test_merging_changes_neither_of_its_inputs_and_takes_any_layout() -> None:
    one, _ = noisy_maps(2)
    two = one[:, :, ::-1, ::-1]
    kept = one.copy()
    merged = merge_flip(one, two, mirror=(0, 2, 1), shift=0.75)
    np.testing.assert_array_equal(one, kept)
    again = merge_flip(one, np.ascontiguousarray(two), mirror=(0, 2, 1), shift=0.75)
    np.testing.assert_array_equal(merged, again)


@pytest.mark.parametrize("name", get_args(Decode))
@pytest.mark.parametrize("shift", [0.0, 1.0, 0.75])
def test_decoding_both_views_is_decoding_their_merge(name: Any, shift: float) -> None:
    spec = dataclasses.replace(CELLS, decode=name, flip_shift=shift)
    one, two = noisy_maps(4)[0], noisy_maps(4, seed=1)[0]
    merged = merge_flip(one, two, mirror=THREE.mirror, shift=shift)
    for got, wanted in zip(decode(one, spec, two), decode(merged, spec), strict=True):
        np.testing.assert_array_equal(got, wanted)


# --- cells, ties and edges ------------------------------------------------------------------------


def one_map(*cells: tuple[int, int, float], fill: float = 0.0) -> Float32:
    """Three equal maps of one person with the given (x, y, value)."""
    heatmap = np.full((64, 48), fill, np.float32)
    for x, y, value in cells:
        heatmap[y, x] = value
    return np.broadcast_to(heatmap, (1, 3, 64, 48)).copy()


def decoded(maps: Float32, name: Any, **changes: Any) -> tuple[list[float], float]:
    points, scores = decode(maps, dataclasses.replace(CELLS, decode=name, **changes))
    assert (points == points[:, :1]).all()
    return points[0, 0].tolist(), float(scores[0, 0])


def test_ties_go_to_the_smaller_flat_index() -> None:
    maps = one_map((30, 20, 0.5), (5, 40, 0.5), (31, 20, 0.5))
    assert decoded(maps, "argmax") == ([30, 20], 0.5)


@pytest.mark.parametrize("name", get_args(Decode))
def test_without_a_positive_cell_the_largest_is_not_refined(name: Any) -> None:
    # With a slope that a positive map would be refined by.
    assert decoded(one_map((20, 30, -1.0), (21, 30, -1.5), fill=-2.0), name) == ([20, 30], -1)
    assert decoded(one_map(fill=-2.0), name) == ([0, 0], -2)
    assert decoded(one_map(), name) == ([0, 0], 0)


@pytest.mark.parametrize("name", get_args(Decode))
def test_a_plateau_is_not_refined(name: Any) -> None:
    # Rounding gives the blurred plateau tiny slopes over tiny curvatures; it has no top.
    maps = one_map()
    maps[:, :, 20:50, 10:40] = 0.7
    maps[:, :, 35, 25] = 0.7 + 1e-7
    assert decoded(maps, name) == ([25, 35], pytest.approx(0.7, abs=1e-6))


def test_a_ridge_and_a_saddle_are_not_refined() -> None:
    y, x = np.mgrid[:64, :48] - np.array([30, 20])[:, None, None]
    ridge = np.exp(-((x - 0.3) ** 2) / 8) * np.ones_like(y)
    ridge[30, 20] += 1e-4
    saddle = np.where(abs(y) < 8, np.exp(-((x - 0.3) ** 2) / 8 + y**2 / 200) * 0.5, 0)
    saddle[30, 20] = 0.66
    for surface in (ridge, saddle):
        maps = np.broadcast_to(surface.astype(np.float32), (1, 3, 64, 48)).copy()
        assert decoded(maps, "dark", blur=11)[0] == [20, 30]


def test_a_step_ends_at_one_cell() -> None:
    # A broad hill, and one bright cell three cells off its top.
    maps = encode(np.full((1, 3, 2), 24.0), dataclasses.replace(CELLS, sigma=6.0))
    maps[:, :, 24, 21] = 1.2
    assert decoded(maps, "dark")[0] == pytest.approx([22, 24], abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(
        np.float32, (2, 3, 7, 9), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
    ),
    st.sampled_from(get_args(Decode)),
)
def test_points_are_finite_and_near_the_map_whatever_it_holds(maps: Float32, name: Any) -> None:
    spec = dataclasses.replace(CELLS, input_size=(9, 7), heatmap_size=(9, 7), decode=name, blur=3)
    points, scores = decode(maps, spec)
    assert (points >= -MAX_STEP).all()
    assert (points <= np.array([8, 6]) + MAX_STEP).all()
    assert not np.isnan(scores).any()
    assert (scores[np.isnan(maps).any((2, 3))] == 0).all()


@pytest.mark.parametrize("shift", [0.0, 0.75, 1.0, -0.25])
def test_infinities_that_meet_are_a_nan_without_a_warning(shift: float) -> None:
    """One view says inf, the other -inf: no point, scored 0 (warnings are errors here)."""
    spec = dataclasses.replace(CELLS, flip_shift=shift)
    maps, mirrored = np.zeros((2, 1, 3, 64, 48), np.float32)
    maps[:, :, 20, 20:24], mirrored[:, :, 20, 24:28] = np.inf, -np.inf
    merged = merge_flip(maps, mirrored, mirror=spec.skeleton.mirror, shift=shift)
    assert np.isnan(merged[0, :, 20]).any(1).all()
    points, scores = decode(maps, spec, mirrored)
    assert (scores == 0).all()
    assert np.isfinite(points).all()
    huge = np.full_like(maps, 3e38)
    decode(huge, spec, huge)


def quarter_by_definition(heatmap: NDArray[Any], name: str) -> list[float]:
    """One map's final step: HRNet's and simple baselines', or mmpose 1.x's, by its description."""
    height, width = heatmap.shape
    y, x = (int(i) for i in np.unravel_index(heatmap.argmax(), heatmap.shape))
    along_x = along_y = 1 < x < width - 1 and 1 < y < height - 1
    if name == "quarter-axis":
        along_x = 1 < x < width - 1 and 0 < y < height
        along_y = 1 < y < height - 1 and 0 < x < width
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) / 4 if along_x else 0
    return [x + dx, y + (np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) / 4 if along_y else 0)]


@pytest.mark.parametrize("size", [(6, 5), (3, 3), (2, 5), (6, 1), (1, 1)])
@pytest.mark.parametrize("name", ["quarter", "quarter-axis"])
def test_quarter_is_a_quarter_towards_the_higher_neighbor(name: Any, size: tuple[int, int]) -> None:
    # Every cell of a small map in turn, each border and corner.
    spec = dataclasses.replace(CELLS, input_size=size, heatmap_size=size, decode=name)
    width, height = size
    maps = np.random.default_rng(0).integers(0, 4, (width * height, 3, height, width))
    for n, person in enumerate(maps):
        person[:, n // width, n % width] = 9
    points, _ = decode(maps.astype(np.float32), spec)
    wanted = [[quarter_by_definition(heatmap, name) for heatmap in person] for person in maps]
    np.testing.assert_array_equal(points, wanted)


def test_the_two_quarters_differ_beside_the_borders_only() -> None:
    """Of 6 x 5 cells, those that mmpose 1.x refines along one axis where others stay: counted."""
    size = width, height = 6, 5
    y, x = np.mgrid[:height, :width]
    maps = np.zeros((width * height, 3, height, width), np.float32)
    for n, person in enumerate(maps):  # each neighbor towards the middle is the higher one
        person += 1 + 0.1 * (x + y)
        person[:, n // width, n % width] = 9
    base = dataclasses.replace(CELLS, input_size=size, heatmap_size=size)
    specs = [dataclasses.replace(base, decode=name) for name in get_args(Decode)[1:3]]
    joint, apart = (decode(maps, spec)[0][:, 0].reshape(height, width, 2) for spec in specs)
    # x y per cell: rows 1 and 4 move along x in columns 2 to 4, columns 1 and 5 along y.
    moved = (apart - joint) * 4
    wanted = np.zeros((height, width, 2))
    wanted[[1, 4], 2:5, 0] = 1
    wanted[2:4, [1, 5], 1] = 1
    np.testing.assert_allclose(moved, wanted, atol=1e-6)


def test_dark_stays_on_its_cell_at_the_border_and_udp_does_not() -> None:
    for x, y in ((0, 0), (47, 63), (1, 30), (46, 30), (24, 1), (24, 62)):
        maps = encode(np.broadcast_to(np.float32([x + 0.2, y - 0.2]), (1, 3, 2)), CELLS)
        assert decoded(maps, "dark")[0] == [x, y]
    # Repeating the border tells UDP that the top of a falling flank lies half a cell outside.
    maps = encode(np.broadcast_to(np.float32([0, 30]), (1, 3, 2)), CELLS)
    assert decoded(maps, "udp", blur=1)[0] == pytest.approx([-0.5, 30], abs=1e-4)


def test_the_map_to_crop_numbers_are_applied_last() -> None:
    spec = dataclasses.replace(CELLS, map_scale=(4.0, 3.0), map_offset=(1.5, -2.0), decode="argmax")
    points, _ = decode(one_map((10, 20, 1.0)), spec)
    np.testing.assert_array_equal(points[0, 0], [41.5, 58])


def test_no_persons_are_decoded_to_nothing() -> None:
    for name in get_args(Decode):
        spec: Any = dataclasses.replace(CELLS, decode=name)
        none = np.zeros((0, 3, 64, 48), np.float32)
        points, scores = decode(none, spec, none)
        assert (points.shape, scores.shape) == ((0, 3, 2), (0, 3))


# --- encoding and bad input -----------------------------------------------------------------------


def test_encode_puts_a_gaussian_at_the_exact_place() -> None:
    spec = dataclasses.replace(CELLS, map_scale=(2.0, 4.0), map_offset=(0.5, 1.5), sigma=1.5)
    maps = encode([[[20.5, 41.5], [21.0, 41.5], [-1e6, 0]]], spec)
    assert maps.dtype == np.float32
    assert maps[0, 0, 10, 10] == 1
    assert maps[0, 0, 12, 11] == pytest.approx(np.exp(-(1 + 4) / (2 * 1.5**2)))
    assert maps[0, 1, 10, 10] == pytest.approx(np.exp(-(0.25**2) / (2 * 1.5**2)))
    assert not maps[0, 2].any()


def test_an_unknown_point_gives_an_empty_map() -> None:
    assert not encode(np.full((1, 3, 2), np.nan), CELLS).any()


@pytest.mark.parametrize("shape", [(1, 3, 48, 64), (1, 4, 64, 48), (3, 64, 48), (0,)])
def test_maps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"heatmaps: wanted shape \(N, 3, 64, 48\), got"):
        decode(np.zeros(shape, np.float32), CELLS)


def test_merges_that_do_not_fit_are_refused() -> None:
    maps = np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(InputError, match="wanted two of one shape"):
        merge_flip(maps, maps[:, :, :3], mirror=(0, 2, 1), shift=0)
    for mirror in ((0, 1), (0, 1, 1)):
        with pytest.raises(InputError, match="3 channels once each"):
            merge_flip(maps, maps, mirror=mirror, shift=0)
    with pytest.raises(InputError, match="finite number"):
        merge_flip(maps, maps, mirror=(0, 2, 1), shift=float("nan"))


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2), (1, 3, 3)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="points: wanted shape"):
        encode(np.zeros(shape), CELLS)
