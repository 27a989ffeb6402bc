import dataclasses

import numpy as np
import pytest

from posekit.codecs import encode
from posekit.errors import InputError
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit_finetune.assess import indicators
from posekit_finetune.assess.indicators import NAMES, body, gap, measure, pairs
from posekit_finetune.assess.probe_views import LOOKS
from posekit_finetune.train.teacher import PseudoLabels
from tests.figures import SKELETON, SPEC, drawn_model, figures, unsteady

COUNT = 32
EVERY = np.arange(COUNT)
MIRROR = list(SKELETON.mirror)


@pytest.fixture(scope="module")
def drawn():
    return figures(COUNT)


@pytest.fixture(scope="module")
def right(drawn):
    return measure(drawn_model, drawn[0], EVERY)


def changed(change):
    return lambda crops: np.ascontiguousarray(change(drawn_model(crops)))


def taught(points):
    return PseudoLabels(
        np.zeros((len(points), 1, 1, 1), np.float16), points, np.ones(points.shape[:2])
    )


def test_a_model_that_is_right_in_every_view_scores_so(right):
    told = right.summary()
    assert all(told[name] > 0.98 for name in LOOKS), told
    assert told["source"] == 1
    assert told["swaps"] == told["crossed"] == told["faint"] == told["bias"] == 0
    assert told["away"] < 0.02
    assert np.isnan(told["teacher"])
    assert np.isnan(told["jumps"])


def test_answers_that_change_by_chance_show_in_every_view(drawn, right):
    # Of two answers, each wrong in a fifth, about 1 - 0.8 ** 2 = 0.36 differ.
    seen = measure(unsteady(0.2), drawn[0], EVERY, source=right)
    for name in LOOKS:
        assert 0.5 < seen.mean(name) < 0.8, name
    assert 0.7 < seen.mean("source") < 0.9
    assert seen.mean("asymmetry") > right.mean("asymmetry") + 0.2
    assert seen.mean("bones") > right.mean("bones") + 0.1
    assert seen.sure.mean() < 0.5 * right.sure.mean()


def test_left_and_right_exchanged_everywhere_shows_against_the_source_alone(drawn, right):
    seen = measure(changed(lambda maps: maps[:, MIRROR]), drawn[0], EVERY, source=right)
    assert seen.mean("flip") > 0.98
    assert seen.mean("swaps") == 0
    assert seen.mean("crossed") == 1
    assert seen.mean("source") < 0.3  # the head alone keeps its place


def test_left_and_right_that_depend_on_the_view_show_as_swaps(drawn):
    def by_the_picture(crops):
        maps = drawn_model(crops)
        odd = np.array([int(crop[0].sum()) % 2 for crop in crops], bool)
        return np.where(odd[:, None, None, None], maps[:, MIRROR], maps)

    seen = measure(by_the_picture, drawn[0], EVERY)
    assert 0.3 < seen.mean("swaps") < 0.7


def test_a_shift_of_all_alike_is_a_bias_and_its_size_is_told(drawn, right):
    # Two cells of 4 px on a crop of 96: the map's edges are far from the figures.
    seen = measure(changed(lambda maps: np.roll(maps, 2, 2)), drawn[0], EVERY, source=right)
    np.testing.assert_allclose(seen.bias, 8 / 96, atol=1e-3)
    assert right.bias == 0


def test_a_constant_has_one_place_for_all(drawn, right):
    always = encode(drawn[1].mean(0, keepdims=True), SPEC)
    seen = measure(lambda crops: np.repeat(always, len(crops), 0), drawn[0], EVERY, source=right)
    np.testing.assert_allclose(seen.distinct, 1 / COUNT)
    assert right.distinct > 5 * seen.distinct


def test_a_faint_model_is_faint_and_its_values_lie_in_the_lowest_bin(drawn, right):
    seen = measure(changed(lambda maps: 0.05 * maps), drawn[0], EVERY, source=right)
    assert seen.mean("faint") == 1
    np.testing.assert_allclose(seen.mean("response"), 0.05 * right.mean("response"), rtol=1e-5)
    np.testing.assert_allclose(seen.histogram.mean(0), [1, 0, 0, 0, 0])


def test_agreement_with_the_teacher_is_the_share_of_near_joints(drawn):
    persons, joints = drawn
    agreed = measure(drawn_model, persons, EVERY, teacher=taught(joints))
    assert agreed.mean("teacher") > 0.98
    far = joints.copy()
    far[:, :3] += 40  # three of nine joints
    seen = measure(drawn_model, persons, EVERY, teacher=taught(far))
    np.testing.assert_allclose(seen.mean("teacher"), 6 / 9, atol=0.02)
    assert 0.2 / 3 <= seen.mean("teacher_away") < 0.2 / 3 + 0.02  # clipped at 0.2 of the crop


def test_leaps_of_a_tracked_person_are_told_and_only_between_close_frames(drawn):
    persons, _ = drawn
    times = np.arange(COUNT) * 0.1
    times[16:] += 5
    still = dataclasses.replace(
        persons,
        patches=np.repeat(persons.patches[:1], COUNT, 0),
        tracks=np.zeros(COUNT, np.int64),
        times_s=times,
    )
    calm = measure(drawn_model, still, EVERY)
    known = ~np.isnan(calm.column("jumps"))
    assert np.flatnonzero(~known).tolist() == [0, 16]  # nobody before, and five seconds before
    assert calm.mean("jumps") == 0

    def leaping(crops):
        maps = drawn_model(crops)
        if len(maps) > 1:
            maps[1::2, 3] = np.roll(maps[1::2, 3], 12, 1)  # one of nine joints, half a crop
        return maps

    seen = measure(leaping, still, EVERY)
    np.testing.assert_allclose(seen.mean("jumps"), 1 / 9)


def test_persons_are_measured_one_by_one(drawn, right):
    some = measure(drawn_model, drawn[0], [30, 4])
    place = [NAMES.index(name) for name in (*LOOKS, "response", "asymmetry")]
    np.testing.assert_allclose(some.values[:, place], right.values[[30, 4]][:, place], atol=1e-5)
    np.testing.assert_array_equal(some.groups, [30, 4])


def test_another_source_or_nobody_is_refused(drawn, right):
    with pytest.raises(InputError, match="other persons or other views"):
        measure(drawn_model, drawn[0], EVERY[1:], source=right)
    with pytest.raises(InputError, match="other persons or other views"):
        measure(drawn_model, drawn[0], EVERY, source=right, seed=3)
    with pytest.raises(InputError, match="at least one"):
        measure(drawn_model, drawn[0], [])


def test_the_gap_of_twins_is_nothing_and_grows_with_what_differs(drawn, right):
    assert gap(right, right) == 0
    seen = measure(unsteady(0.2), drawn[0], EVERY)
    assert 0.02 < gap(right, seen) < 0.06  # a fifth of the joints, clipped at 0.2 of the crop
    with pytest.raises(InputError, match="other persons"):
        gap(right, measure(drawn_model, drawn[0], EVERY[:3]))


@pytest.mark.parametrize(
    ("skeleton", "limbs", "mirrored"), [(COCO_17, 12, 6), (MPII_16, 14, 6), (AIC_14, 12, 6)]
)
def test_the_body_is_found_by_the_sigmas(skeleton, limbs, mirrored):
    assert len(body(skeleton)) >= limbs
    assert len(pairs(skeleton)) == mirrored
    named = {skeleton.keypoints[k].split("_")[-1] for k in body(skeleton)}
    assert {"shoulder", "elbow", "wrist", "hip", "knee", "ankle"} <= named
    assert not named & {"eye", "ear", "nose"}


def test_without_sigmas_that_tell_all_keypoints_are_the_body():
    face = dataclasses.replace(SKELETON, sigmas=(0.02,) * 9)
    np.testing.assert_array_equal(body(face), np.arange(9))


def test_every_measure_has_a_column_and_a_sentence(right):
    assert right.values.shape == (COUNT, len(NAMES))
    assert len(set(NAMES)) == len(NAMES)
    assert all(each.about and each.better in (-1, 0, 1) for each in indicators.MEASURES)
