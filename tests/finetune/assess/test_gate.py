import dataclasses

import numpy as np
import pytest

from posekit.bundle import MODELS, Bundle
from posekit_finetune.assess import gate
from posekit_finetune.assess.checks import Check
from posekit_finetune.assess.compare import MetricChange, compare
from posekit_finetune.assess.gate import decide, judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.predict import of_bundle
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.train.networks import load_network
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels
from tests.support.assets import shared, shipped
from tests.support.figures import SKELETON, SPEC, drawn_model, figures, unsteady
from tests.synthetic import harmful_models

COUNT = 40
ROWS = np.arange(COUNT)
NAN = float("nan")


@pytest.fixture(scope="module")
def scene():
    """A source with errors in a tenth of its predictions; judges a change of it."""
    persons, joints = figures(COUNT)
    teacher = PseudoLabels(np.zeros((COUNT, 1, 1, 1), np.float16), joints, np.ones((COUNT, 9)))
    source = measure(unsteady(0.1), persons, ROWS, teacher=teacher)

    def verdict(predict, **options):
        after = measure(predict, persons, ROWS, teacher=teacher, source=source)
        return judge(source, after, **options)

    return verdict


def changed(change):
    predict = unsteady(0.1)
    return lambda crops: np.ascontiguousarray(change(predict(crops)))


def test_a_better_model_passes_and_the_reasons_name_its_gains(scene):
    verdict = scene(drawn_model)
    assert verdict.passed, verdict.reasons
    assert any("not trained on" in reason for reason in verdict.reasons)
    assert verdict["odd"].low > 0


def test_a_model_that_predicts_as_its_source_has_learned_nothing_and_does_not_pass(scene):
    verdict = scene(unsteady(0.1))
    assert not verdict.passed
    assert verdict.unchanged
    assert not verdict.harmful
    assert "nothing was learned" in verdict.reasons[0]


def test_a_verdict_tells_harm_from_a_lack_of_evidence(scene):
    assert not scene(drawn_model).harmful
    assert not scene(drawn_model).unchanged
    assert scene(changed(HARMFUL["swapped"][0])).harmful
    few = [
        each if each.name != "flip" else dataclasses.replace(each, difference=0.0, low=-0.01)
        for each in changes()
    ]
    passed, reasons = decide(few)
    assert not passed
    assert all("equivariance" in reason for reason in reasons)


def test_a_model_that_differs_without_improvement_is_refused(scene):
    verdict = scene(unsteady(0.1, seed=5))
    assert not verdict.passed


HARMFUL = {
    "swapped": (lambda maps: maps[:, list(SKELETON.mirror)], "left and right"),
    "shifted right": (lambda maps: np.roll(maps, 1, 3), "common shift"),
    "shifted down": (lambda maps: np.roll(maps, 1, 2), "common shift"),
    "collapsed in place": (lambda maps: 0.02 * maps, "mean peak fell"),
    "flat": (lambda maps: 0 * maps + np.float32(0.001), "mean peak fell"),
    "confidently wrong": (lambda maps: np.roll(maps, 2, 1), "is confident and"),
    "one for all": (lambda maps: np.repeat(maps[:1], len(maps), 0), "different peak cells"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_each_kind_of_harm_is_refused_with_its_own_reason(scene, name):
    change, reason = HARMFUL[name]
    verdict = scene(changed(change))
    assert not verdict.passed
    assert any(reason in each for each in verdict.reasons), verdict.reasons


def test_a_mean_pose_is_refused(scene):
    persons, _ = figures(COUNT)
    constant = harmful_models.mean_pose(drawn_model, persons.crops(ROWS), SPEC)
    verdict = scene(constant)
    assert not verdict.passed
    assert any("different peak cells" in reason for reason in verdict.reasons)


def hits(share, seed=0):
    return (np.random.default_rng(seed).random((COUNT, 9)) < share).astype(float)


def test_a_loss_with_labels_refuses_better_indicators(scene):
    check = Check("PCK@0.2", hits(0.9), hits(0.6), ROWS)
    verdict = scene(drawn_model, checks=(check,))
    assert not verdict.passed
    assert any("PCK@0.2 with labels fell" in reason for reason in verdict.reasons)
    reported = dataclasses.replace(check, decides=False)
    verdict = scene(drawn_model, checks=(reported,))
    assert verdict.passed  # forgetting is reported and does not decide
    assert verdict["PCK@0.2"].high < 0


def test_a_gain_with_labels_replaces_the_evidence_but_no_floor(scene):
    better = Check("PCK@0.2", hits(0.5), hits(0.9), ROWS)
    assert not scene(changed(HARMFUL["swapped"][0]), checks=(better,)).passed
    doubtful = changes(**dict.fromkeys(("flip", "odd"), 0.0))
    assert not decide(doubtful)[0]
    assert decide(doubtful, [gate.check_change(better)])[0]


def changes(**differences):
    """The changes of a typical improvement, with other differences, or values of a whole set.

    The teacher's rotated views are defined only where their difference is passed.
    """
    persons, _ = figures(4)
    same = measure(drawn_model, persons, np.arange(4))
    typical = {"flip": 0.03, "odd": 0.02, "teacher": 0.05, "changed": 0.2, "bias": 0.001}
    changed_metrics = []
    for each in compare(same, same):
        change = {**typical, **differences}.get(each.name, NAN if each.name == "turned" else 0.0)
        before = 0.5 if each.name in ("flip", "odd", "teacher", "response") else each.before
        changed_metrics.append(
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
    return changed_metrics


def test_a_typical_improvement_passes():
    assert decide(changes())[0]


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
def test_each_rule_refuses_by_itself(name, difference):
    changed_metrics = [
        dataclasses.replace(each, difference=difference) if each.name == name else each
        for each in changes(**{name: difference})
    ]
    passed, reasons = decide(changed_metrics)
    assert not passed
    assert len(reasons) == 1, reasons


@pytest.mark.parametrize("significant", [(), ("flip",), ("odd",), ("flip", "odd")])
def test_one_of_the_two_gains_must_be_significant(significant):
    """Both are required; with few persons one of them is significant, rarely both."""
    changed_metrics = [
        dataclasses.replace(each, low=0.001 if each.name in significant else -0.01)
        if each.name in ("flip", "odd")
        else each
        for each in changes()
    ]
    passed, reasons = decide(changed_metrics)
    assert passed == bool(significant)
    assert passed or (len(reasons) == 1 and "neither is significant" in reasons[0])


def test_agreement_is_with_the_rotated_views_where_defined():
    """An ensemble that contains the upright view is biased towards a weak source."""
    assert decide(changes(turned=0.02, teacher=-0.05))[0]
    assert not decide(changes(turned=-0.02, teacher=0.05))[0]


def test_optional_indicators_may_be_undefined_and_required_ones_may_not():
    def without(name):
        blank = {"before": NAN, "after": NAN, "difference": NAN, "low": NAN, "high": NAN}
        return [
            dataclasses.replace(each, **blank) if each.name == name else each for each in changes()
        ]

    assert decide(without("teacher"))[0]  # without a teacher
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
def test_harmful_variants_of_a_real_model_are_refused_and_its_ensemble_passes(lspet):
    bundle, persons, teacher = lspet
    rows = np.arange(100)
    model = harmful_models.cached(of_bundle(bundle))
    before = measure(model, persons, rows, teacher=teacher)

    def verdict(predict):
        return judge(before, measure(predict, persons, rows, teacher=teacher, source=before))

    same = verdict(model)
    assert same.unchanged
    assert not same.harmful
    assert not same.passed
    improved = verdict(harmful_models.ensemble(model, bundle.pose_spec, 4))
    assert improved.passed, improved.reasons
    crops = persons.crops(rows[:32])
    harmful = harmful_models.all_harmful(bundle, model, load_network(bundle), crops=crops)
    let_through = [name for name, predict in harmful.items() if verdict(predict).passed]
    assert not let_through
    assert len(harmful) >= 12


def test_the_harmful_models_are_made_of_the_shipped_model():
    bundle = Bundle.open(MODELS / "movenet-lightning.posekit")
    crops = np.random.default_rng(0).integers(0, 255, (2, 192, 192, 3), np.uint8)
    model = of_bundle(bundle)
    np.testing.assert_array_equal(harmful_models.cached(model)(crops), model(crops))
    noisy = harmful_models.with_weight_noise(bundle, 0.02, 0)(crops)
    assert noisy.shape == model(crops).shape
    assert np.abs(noisy - model(crops)).max() > 0.01
