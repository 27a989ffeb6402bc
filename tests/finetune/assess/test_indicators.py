import dataclasses

import numpy as np
import pytest

from posekit.codecs import encode
from posekit.errors import InputError
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit_finetune.assess import indicators
from posekit_finetune.assess.indicators import NAMES, body_keypoints, body_pairs, measure
from posekit_finetune.assess.probe_views import PROBE_VIEWS
from posekit_finetune.train.teacher import PseudoLabels
from tests.support.figures import SKELETON, SPEC, drawn_model, figures, unsteady

COUNT = 32
ROWS = np.arange(COUNT)
MIRROR = list(SKELETON.mirror)


@pytest.fixture(scope="module")
def drawn():
    return figures(COUNT)


@pytest.fixture(scope="module")
def exact(drawn):
    return measure(drawn_model, drawn[0], ROWS)


def changed(change):
    return lambda crops: np.ascontiguousarray(change(drawn_model(crops)))


def pseudo_labels(points):
    return PseudoLabels(
        np.zeros((len(points), 1, 1, 1), np.float16), points, np.ones(points.shape[:2])
    )


def test_a_model_without_errors_has_perfect_indicators(exact):
    summary = exact.summary()
    assert all(summary[name] > 0.98 for name in PROBE_VIEWS), summary
    assert summary["source"] == 1
    assert summary["swaps"] == summary["crossed"] == summary["faint"] == summary["bias"] == 0
    assert summary["away"] < 0.02
    assert np.isnan(summary["teacher"])
    assert np.isnan(summary["jumps"])


def test_random_errors_lower_every_views_consistency(drawn, exact):
    # Of two predictions, each wrong in a fifth, about 1 - 0.8 ** 2 = 0.36 differ.
    measured = measure(unsteady(0.2), drawn[0], ROWS, source=exact)
    for name in PROBE_VIEWS:
        assert 0.5 < measured.mean(name) < 0.8, name
    assert 0.7 < measured.mean("source") < 0.9
    assert measured.mean("asymmetry") > exact.mean("asymmetry") + 0.2
    assert measured.mean("bones") > exact.mean("bones") + 0.1
    assert measured.confident.mean() < 0.5 * exact.confident.mean()


def test_consistently_exchanged_sides_are_detected_relative_to_the_source_only(drawn, exact):
    measured = measure(changed(lambda maps: maps[:, MIRROR]), drawn[0], ROWS, source=exact)
    assert measured.mean("flip") > 0.98
    assert measured.mean("swaps") == 0
    assert measured.mean("crossed") == 1
    assert measured.mean("source") < 0.3  # only the head keeps its place


def test_sides_that_depend_on_the_view_are_swaps(drawn):
    def by_image(crops):
        maps = drawn_model(crops)
        exchange = np.array([int(crop[0].sum()) % 2 for crop in crops], bool)
        return np.where(exchange[:, None, None, None], maps[:, MIRROR], maps)

    measured = measure(by_image, drawn[0], ROWS)
    assert 0.3 < measured.mean("swaps") < 0.7


def test_a_common_shift_is_a_bias_of_its_size(drawn, exact):
    # Two cells of 4 px on a crop of 96: the map's edges are far from the figures.
    measured = measure(changed(lambda maps: np.roll(maps, 2, 2)), drawn[0], ROWS, source=exact)
    np.testing.assert_allclose(measured.bias, 8 / 96, atol=1e-3)
    assert exact.bias == 0


def test_a_constant_output_has_one_peak_cell(drawn, exact):
    constant = encode(drawn[1].mean(0, keepdims=True), SPEC)
    measured = measure(lambda crops: constant.repeat(len(crops), 0), drawn[0], ROWS, source=exact)
    np.testing.assert_allclose(measured.distinct, 1 / COUNT)
    assert exact.distinct > 5 * measured.distinct


def test_a_faint_models_values_lie_in_the_lowest_bin(drawn, exact):
    measured = measure(changed(lambda maps: 0.05 * maps), drawn[0], ROWS, source=exact)
    assert measured.mean("faint") == 1
    np.testing.assert_allclose(measured.mean("response"), 0.05 * exact.mean("response"), rtol=1e-5)
    np.testing.assert_allclose(measured.histogram.mean(0), [1, 0, 0, 0, 0])


def test_agreement_with_the_teacher_is_the_share_of_near_joints(drawn):
    persons, joints = drawn
    equal = measure(drawn_model, persons, ROWS, teacher=pseudo_labels(joints))
    assert equal.mean("teacher") > 0.98
    far = joints.copy()
    far[:, :3] += 40  # three of nine joints
    measured = measure(drawn_model, persons, ROWS, teacher=pseudo_labels(far))
    np.testing.assert_allclose(measured.mean("teacher"), 6 / 9, atol=0.02)
    assert 0.2 / 3 <= measured.mean("teacher_away") < 0.2 / 3 + 0.02  # clipped at 0.2 of the crop


def test_jumps_are_counted_between_close_frames_of_a_track_only(drawn):
    persons, _ = drawn
    times = np.arange(COUNT) * 0.1
    times[16:] += 5
    still = dataclasses.replace(
        persons,
        patches=np.repeat(persons.patches[:1], COUNT, 0),
        tracks=np.zeros(COUNT, np.int64),
        times_s=times,
    )
    steady = measure(drawn_model, still, ROWS)
    defined = ~np.isnan(steady.column("jumps"))
    assert np.flatnonzero(~defined).tolist() == [0, 16]  # no frame before, and five seconds before
    assert steady.mean("jumps") == 0

    def jumping(crops):
        maps = drawn_model(crops)
        if len(maps) > 1:
            maps[1::2, 3] = np.roll(maps[1::2, 3], 12, 1)  # one of nine joints, half a crop
        return maps

    measured = measure(jumping, still, ROWS)
    np.testing.assert_allclose(measured.mean("jumps"), 1 / 9)


def test_a_persons_indicators_do_not_depend_on_the_other_persons(drawn, exact):
    two = measure(drawn_model, drawn[0], [30, 4])
    place = [NAMES.index(name) for name in (*PROBE_VIEWS, "response", "asymmetry")]
    np.testing.assert_allclose(two.values[:, place], exact.values[[30, 4]][:, place], atol=1e-5)
    np.testing.assert_array_equal(two.groups, [30, 4])


def test_another_source_and_no_persons_are_refused(drawn, exact):
    with pytest.raises(InputError, match="other persons or other views"):
        measure(drawn_model, drawn[0], ROWS[1:], source=exact)
    with pytest.raises(InputError, match="other persons or other views"):
        measure(drawn_model, drawn[0], ROWS, source=exact, seed=3)
    with pytest.raises(InputError, match="at least one"):
        measure(drawn_model, drawn[0], [])


@pytest.mark.parametrize(
    ("skeleton", "limbs", "mirrored"), [(COCO_17, 12, 6), (MPII_16, 14, 6), (AIC_14, 12, 6)]
)
def test_the_body_is_selected_by_the_sigmas(skeleton, limbs, mirrored):
    assert len(body_keypoints(skeleton)) >= limbs
    assert len(body_pairs(skeleton)) == mirrored
    names = {skeleton.keypoints[k].split("_")[-1] for k in body_keypoints(skeleton)}
    assert {"shoulder", "elbow", "wrist", "hip", "knee", "ankle"} <= names
    assert not names & {"eye", "ear", "nose"}


def test_without_large_sigmas_all_keypoints_are_the_body():
    face = dataclasses.replace(SKELETON, sigmas=(0.02,) * 9)
    np.testing.assert_array_equal(body_keypoints(face), np.arange(9))


def test_every_measure_has_a_column_and_a_sentence(exact):
    assert exact.values.shape == (COUNT, len(NAMES))
    assert len(set(NAMES)) == len(NAMES)
    assert all(each.about and each.better in (-1, 0, 1) for each in indicators.MEASURES)
