import numpy as np
import pytest

from posekit_finetune.assess import probe_views
from posekit_finetune.assess.probe_views import PROBE_VIEWS, UNTRAINED
from posekit_finetune.views import warps
from tests.support.figures import SPEC, drawn_model, figures


@pytest.fixture(scope="module")
def probed():
    persons, joints = figures(24)
    return persons, joints, probe_views.probe_maps(drawn_model, persons, np.arange(24), seed=0)


def randoms(count):
    return [np.random.default_rng((0, n)) for n in range(count)]


def test_points_of_every_view_are_warped_back_to_their_place(probed):
    _, joints, probe = probed
    offset = probe.view_points - joints[:, None]
    for n, name in enumerate(PROBE_VIEWS):
        # A wrong inverse would shift all points by its error.
        assert np.abs(offset[:, n].mean((0, 1))).max() < 0.5, name
        # A disc is two cells wide, so its peak is located to half a cell.
        assert np.median(np.linalg.norm(offset[:, n], axis=2)) < SPEC.map_scale[0] / 2, name
    assert probe.visible.mean() > 0.98


def test_only_the_flip_view_mirrors_and_the_untrained_one_is_no_similarity():
    linear = {
        n: m[:, :, :2]
        for n, m in zip(PROBE_VIEWS, probe_views.draw_probe_warps(randoms(8), SPEC), strict=True)
    }
    assert {n: bool((np.linalg.det(m) < 0).all()) for n, m in linear.items()} == {
        name: name == "flip" for name in PROBE_VIEWS
    }
    for name, matrix in linear.items():
        squares = matrix @ matrix.transpose(0, 2, 1)
        is_similarity = np.allclose(squares, squares[:, :1, :1] * np.eye(2))
        assert is_similarity == (
            name != UNTRAINED
        )  # recipes train on rotation, scale, shift and mirroring


def test_the_shifted_view_moves_by_whole_pixels_off_the_cell_grid():
    steps = probe_views.draw_probe_warps(randoms(64), SPEC)[PROBE_VIEWS.index("move")][:, :, 2]
    np.testing.assert_array_equal(steps, np.round(steps))
    assert (steps % SPEC.map_scale[0] != 0).any(1).mean() > 0.5


def test_a_persons_views_do_not_depend_on_the_other_persons(probed):
    persons, _, probe = probed
    alone = probe_views.probe_maps(drawn_model, persons, np.array([17]), seed=0)
    np.testing.assert_allclose(alone.view_points[0], probe.view_points[17], atol=1e-4)
    other = probe_views.probe_maps(drawn_model, persons, np.array([17]), seed=1)
    assert np.abs(other.view_points[0] - probe.view_points[17]).max() > 0.01


def test_points_outside_a_view_are_not_visible():
    persons, _ = figures(4)
    at_the_corner = np.zeros((4, len(SPEC.skeleton), *SPEC.heatmap_size[::-1]), np.float32)
    at_the_corner[:, :, 0, 0] = 1
    probe = probe_views.probe_maps(lambda _: at_the_corner, persons, np.arange(4), seed=0)
    assert probe.visible[:, PROBE_VIEWS.index("flip")].all()
    # A corner rotated about the center by 30 degrees leaves the view.
    assert not probe.visible[:, PROBE_VIEWS.index("turn")].any()


def test_the_histogram_counts_every_value_once():
    maps = np.zeros((1, 9, 24, 24), np.float32)
    maps[0, 0, 0, :5] = 0.1, 0.3, 0.5, 0.7, 1.4
    persons, _ = figures(1)
    probe = probe_views.probe_maps(lambda _: maps, persons, np.arange(1), seed=0)
    np.testing.assert_allclose(probe.histogram.sum(), 1)
    np.testing.assert_allclose(probe.histogram[0, 1:], 1 / (9 * 24 * 24))


def test_degrading_changes_the_image_and_not_the_positions():
    persons, _ = figures(6)
    crops = persons.crops(np.arange(6))
    degraded = probe_views.degrade(randoms(6), crops)
    assert np.abs(degraded.astype(int) - crops).mean() > 5
    still = warps.identity(6)
    assert (
        degraded.shape
        == warps.cut_view(persons.patches, persons.offset, still, spec=SPEC).crops.shape
    )
    peaks = [drawn_model(each).max((2, 3)) for each in (crops, degraded)]
    cells = [drawn_model(each).reshape(6, 9, -1).argmax(2) for each in (crops, degraded)]
    assert (cells[0] == cells[1]).mean() > 0.8
    assert peaks[1].mean() > 0.5
