import numpy as np
import pytest

from posekit_finetune.assess import probe_views
from posekit_finetune.assess.probe_views import LOOKS
from posekit_finetune.views import warps
from tests.figures import SPEC, drawn_model, figures


@pytest.fixture(scope="module")
def seen():
    persons, joints = figures(24)
    return persons, joints, probe_views.probe_maps(drawn_model, persons, np.arange(24), seed=0)


def randoms(count):
    return [np.random.default_rng((0, n)) for n in range(count)]


def test_points_come_back_from_every_view_to_where_they_are(seen):
    _, joints, answers = seen
    offset = answers.carried - joints[:, None]
    for n, name in enumerate(LOOKS):
        # A wrong way back would shift all alike, by a pixel for each pixel that it is wrong.
        assert np.abs(offset[:, n].mean((0, 1))).max() < 0.5, name
        # A disc is two cells wide, so its peak is told to half a cell.
        assert np.median(np.linalg.norm(offset[:, n], axis=2)) < SPEC.map_scale[0] / 2, name
    assert answers.inside.mean() > 0.98


def test_only_the_mirroring_view_mirrors_and_the_odd_one_is_no_similarity():
    linear = {
        n: m[:, :, :2] for n, m in zip(LOOKS, probe_views.warps(randoms(8), SPEC), strict=True)
    }
    assert {n: bool((np.linalg.det(m) < 0).all()) for n, m in linear.items()} == {
        name: name == "flip" for name in LOOKS
    }
    for name, matrix in linear.items():
        squares = matrix @ matrix.transpose(0, 2, 1)
        alike = np.allclose(squares, squares[:, :1, :1] * np.eye(2))
        assert alike == (name != "odd")  # the trained family turns, scales, moves and mirrors


def test_the_moving_view_moves_by_whole_pixels_off_the_grid_of_cells():
    steps = probe_views.warps(randoms(64), SPEC)[LOOKS.index("move")][:, :, 2]
    np.testing.assert_array_equal(steps, np.round(steps))
    assert (steps % SPEC.map_scale[0] != 0).any(1).mean() > 0.5


def test_a_persons_views_do_not_depend_on_who_is_looked_at_with_it(seen):
    persons, _, answers = seen
    alone = probe_views.probe_maps(drawn_model, persons, np.array([17]), seed=0)
    np.testing.assert_allclose(alone.carried[0], answers.carried[17], atol=1e-4)
    other = probe_views.probe_maps(drawn_model, persons, np.array([17]), seed=1)
    assert np.abs(other.carried[0] - answers.carried[17]).max() > 0.01


def test_points_that_a_view_does_not_show_are_told():
    (
        persons,
        _,
    ) = figures(4)
    at_the_edge = np.zeros((4, len(SPEC.skeleton), *SPEC.heatmap_size[::-1]), np.float32)
    at_the_edge[:, :, 0, 0] = 1
    answers = probe_views.probe_maps(lambda _: at_the_edge, persons, np.arange(4), seed=0)
    assert answers.inside[:, LOOKS.index("flip")].all()
    # A corner turned about the middle by 30 degrees leaves the picture.
    assert not answers.inside[:, LOOKS.index("turn")].any()


def test_the_histogram_counts_every_value_once():
    maps = np.zeros((1, 9, 24, 24), np.float32)
    maps[0, 0, 0, :5] = 0.1, 0.3, 0.5, 0.7, 1.4
    persons, _ = figures(1)
    answers = probe_views.probe_maps(lambda _: maps, persons, np.arange(1), seed=0)
    np.testing.assert_allclose(answers.histogram.sum(), 1)
    np.testing.assert_allclose(answers.histogram[0, 1:], 1 / (9 * 24 * 24))


def test_spoiling_changes_the_picture_and_not_where_things_are():
    persons, _ = figures(6)
    crops = persons.crops(np.arange(6))
    spoiled = probe_views.degraded(randoms(6), crops)
    assert np.abs(spoiled.astype(int) - crops).mean() > 5
    still = warps.identity(6)
    assert (
        spoiled.shape
        == warps.cut_view(persons.patches, persons.offset, still, spec=SPEC).crops.shape
    )
    peaks = [drawn_model(each).max((2, 3)) for each in (crops, spoiled)]
    cells = [drawn_model(each).reshape(6, 9, -1).argmax(2) for each in (crops, spoiled)]
    assert (cells[0] == cells[1]).mean() > 0.8
    assert peaks[1].mean() > 0.5
