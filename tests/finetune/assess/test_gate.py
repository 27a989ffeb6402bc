import dataclasses

import numpy as np
import pytest

from posekit.bundle import MODELS, Bundle
from posekit.errors import RejectedError
from posekit_finetune.assess import gate
from posekit_finetune.assess.compare import MetricChange, compare
from posekit_finetune.assess.gate import decide, judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.label_check import Check
from posekit_finetune.assess.predict import of_bundle
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.train.networks import load_network
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels
from tests.assets import shared, shipped
from tests.figures import SKELETON, SPEC, drawn_model, figures, unsteady
from tests.synthetic import harmful_models

COUNT = 40
EVERY = np.arange(COUNT)
NAN = float("nan")


@pytest.fixture(scope="module")
def scene():
    """A source that errs in a tenth of its answers, and what judges a change of it."""
    persons, joints = figures(COUNT)
    teacher = PseudoLabels(np.zeros((COUNT, 1, 1, 1), np.float16), joints, np.ones((COUNT, 9)))
    source = measure(unsteady(0.1), persons, EVERY, teacher=teacher)

    def verdict(predict, **options):
        after = measure(predict, persons, EVERY, teacher=teacher, source=source)
        return judge(source, after, **options)

    return verdict


def changed(change):
    predict = unsteady(0.1)
    return lambda crops: np.ascontiguousarray(change(predict(crops)))


def test_a_better_model_passes_and_the_reasons_name_what_it_gained(scene):
    verdict = scene(drawn_model)
    assert verdict.passed, verdict.reasons
    assert any("not trained on" in reason for reason in verdict.reasons)
    assert verdict["odd"].low > 0
    verdict.raise_if_refused()


def test_the_source_itself_passes_and_is_said_to_be_the_same(scene):
    verdict = scene(unsteady(0.1))
    assert verdict.passed
    assert "as the source does" in verdict.reasons[0]


def test_a_model_that_merely_differs_is_no_better_and_is_refused(scene):
    verdict = scene(unsteady(0.1, seed=5))
    assert not verdict.passed


HARMFUL = {
    "swapped": (lambda maps: maps[:, list(SKELETON.mirror)], "left and right"),
    "shifted right": (lambda maps: np.roll(maps, 1, 3), "shifted alike"),
    "shifted down": (lambda maps: np.roll(maps, 1, 2), "shifted alike"),
    "collapsed in place": (lambda maps: 0.02 * maps, "peaks fell"),
    "flat": (lambda maps: 0 * maps + np.float32(0.001), "peaks fell"),
    "confidently wrong": (lambda maps: np.roll(maps, 2, 1), "was sure of"),
    "one for all": (lambda maps: np.repeat(maps[:1], len(maps), 0), "different places"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_planted_harm_is_refused_for_its_own_reason(scene, name):
    change, reason = HARMFUL[name]
    verdict = scene(changed(change))
    assert not verdict.passed
    assert any(reason in each for each in verdict.reasons), verdict.reasons
    with pytest.raises(RejectedError, match="old weights stand") as caught:
        verdict.raise_if_refused()
    assert caught.value.exit_code == 5


def test_a_mean_pose_is_refused(scene):
    persons, _ = figures(COUNT)
    always = harmful_models.mean_pose(drawn_model, persons.crops(EVERY), SPEC)
    verdict = scene(always)
    assert not verdict.passed
    assert any("different places" in reason for reason in verdict.reasons)


def hits(share, seed=0):
    return (np.random.default_rng(seed).random((COUNT, 9)) < share).astype(float)


def test_labels_that_say_worse_refuse_what_looks_better(scene):
    check = Check("PCK@0.2", hits(0.9), hits(0.6), EVERY)
    verdict = scene(drawn_model, checks=(check,))
    assert not verdict.passed
    assert any("PCK@0.2 with labels fell" in reason for reason in verdict.reasons)
    shown = dataclasses.replace(check, decides=False)
    verdict = scene(drawn_model, checks=(shown,))
    assert verdict.passed  # forgetting is told, and does not decide
    assert verdict["PCK@0.2"].high < 0


def test_labels_that_say_better_stand_for_evidence_and_not_for_a_floor(scene):
    better = Check("PCK@0.2", hits(0.5), hits(0.9), EVERY)
    assert not scene(changed(HARMFUL["swapped"][0]), checks=(better,)).passed
    doubtful = findings(flip=0.0, odd=0.0)
    assert not decide(doubtful)[0]
    assert decide(doubtful, [gate.checked(better)])[0]


def findings(**differences):
    """What a helpful change shows, with other differences (or, for figures of a set, values).

    The teacher's turned views were asked only where their difference is given.
    """
    persons, _ = figures(4)
    same = measure(drawn_model, persons, np.arange(4))
    usual = {"flip": 0.03, "odd": 0.02, "teacher": 0.05, "changed": 0.2, "bias": 0.001}
    told = []
    for each in compare(same, same):
        change = {**usual, **differences}.get(each.name, NAN if each.name == "turned" else 0.0)
        before = 0.5 if each.name in ("flip", "odd", "teacher", "response") else each.before
        told.append(
            MetricChange(
                each.name,
                each.about,
                each.better,
                before,
                before + change,
                change,
                low=change - 0.01,
                high=change + 0.01,
            )
        )
    return told


def test_a_usual_helpful_change_passes():
    assert decide(findings())[0]


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("response", -0.26),  # the floor is half
        ("source", -0.11),
        ("crossed", 0.11),
        ("bias", 0.016),
        ("teacher", -0.011),
        ("turned", -0.011),
        ("odd", -0.001),
        ("flip", 0.009),
        ("swaps", 0.011),
        ("bones", 0.051),
        ("asymmetry", 0.021),
        ("jumps", 0.011),
    ],
)
def test_each_rule_alone_refuses(name, difference):
    told = [
        dataclasses.replace(each, difference=difference) if each.name == name else each
        for each in findings(**{name: difference})
    ]
    passed, reasons = decide(told)
    assert not passed
    assert len(reasons) == 1, reasons


@pytest.mark.parametrize("certain", [(), ("flip",), ("odd",), ("flip", "odd")])
def test_one_of_the_two_gains_must_be_more_than_chance(certain):
    """Both must be there; few persons tell one of them apart from nothing, seldom both."""
    told = [
        dataclasses.replace(each, low=0.001 if each.name in certain else -0.01)
        if each.name in ("flip", "odd")
        else each
        for each in findings()
    ]
    passed, reasons = decide(told)
    assert passed == bool(certain)
    assert passed or (len(reasons) == 1 and "both may be chance" in reasons[0])


def test_agreement_is_that_with_the_turned_views_where_they_were_asked():
    """An ensemble that contains the upright view agrees with a weak source: it partly is it."""
    assert decide(findings(turned=0.02, teacher=-0.05))[0]
    assert not decide(findings(turned=-0.02, teacher=0.05))[0]


def test_what_cannot_be_told_does_not_refuse_and_what_must_be_told_does():
    def without(name):
        blank = {"before": NAN, "after": NAN, "difference": NAN, "low": NAN, "high": NAN}
        return [
            dataclasses.replace(each, **blank) if each.name == name else each for each in findings()
        ]

    assert decide(without("teacher"))[0]  # no teacher was asked
    assert decide(without("jumps"))[0]  # no video
    assert decide(without("crossed"))[0]  # no left and right
    for name in ("response", "distinct", "odd", "flip", "source"):
        assert not decide(without(name))[0], name


@pytest.fixture(scope="module")
def lspet(tmp_path_factory):
    folder = shared("lspet/adapt")
    bundle = Bundle.open(shipped("posekit/models/movenet-lightning.posekit"))
    files = sorted(folder.iterdir())[:100]
    work = tmp_path_factory.mktemp("work")
    persons = find_persons(files, bundle.pose_spec, FindOptions(threads=1), work=work)
    teacher = predict_pseudo_labels(persons, bundle, views=8, threads=1)
    return bundle, persons, teacher


@pytest.mark.assets
@pytest.mark.slow
def test_of_real_models_the_planted_are_refused_and_the_ensemble_passes(lspet):
    bundle, persons, teacher = lspet
    rows = np.arange(100)
    right = harmful_models.cached(of_bundle(bundle))
    before = measure(right, persons, rows, teacher=teacher)

    def verdict(predict):
        return judge(before, measure(predict, persons, rows, teacher=teacher, source=before))

    assert verdict(right).passed
    helped = verdict(harmful_models.ensemble(right, bundle.pose_spec, 4))
    assert helped.passed, helped.reasons
    crops = persons.crops(rows[:32])
    harmful = harmful_models.all_harmful(bundle, right, load_network(bundle), crops=crops)
    let_through = [name for name, predict in harmful.items() if verdict(predict).passed]
    assert not let_through
    assert len(harmful) >= 12


def test_the_planted_models_are_made_of_the_model_that_ships():
    bundle = Bundle.open(MODELS / "movenet-lightning.posekit")
    crops = np.random.default_rng(0).integers(0, 255, (2, 192, 192, 3), np.uint8)
    right = of_bundle(bundle)
    np.testing.assert_array_equal(harmful_models.cached(right)(crops), right(crops))
    noisy = harmful_models.with_weight_noise(bundle, 0.02, 0)(crops)
    assert noisy.shape == right(crops).shape
    assert np.abs(noisy - right(crops)).max() > 0.01
