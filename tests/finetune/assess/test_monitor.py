import dataclasses
import json

import numpy as np
import pytest

from posekit.errors import CollapsedError, DivergedError
from posekit_finetune.assess.indicators import NAMES, measure
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.train.teacher import PseudoLabels
from tests.support.figures import drawn_model, figures, unsteady

ROWS = np.arange(24)
FINE = {"consistency": 0.1}


@pytest.fixture(scope="module")
def scene():
    persons, joints = figures(24)
    teacher = PseudoLabels(
        np.zeros((24, 1, 1, 1), np.float16), joints, np.ones((24, 9), np.float32)
    )
    source = measure(unsteady(0.1), persons, ROWS, teacher=teacher)

    def measured(predict):
        return measure(predict, persons, ROWS, teacher=teacher, source=source)

    return source, measured


def with_mean(indicators, name, value):
    """The same indicators with another value for every person."""
    values = indicators.values.copy()
    values[:, NAMES.index(name)] = value
    return dataclasses.replace(indicators, values=values)


def test_the_best_reading_is_kept_and_clearly_worse_ones_do_not_replace_it(scene):
    source, measured = scene
    monitor = Monitor(source)
    same = monitor.watch(100, source, FINE)
    assert same.score == 0
    assert monitor.best is None  # nothing is better than the start yet
    better = monitor.watch(200, measured(drawn_model), FINE)
    assert better.score > 0.1
    assert monitor.best is better
    middle = monitor.watch(300, measured(unsteady(0.06)), FINE)
    assert 0 < middle.score < better.score
    assert monitor.best is better
    assert [reading.step for reading in monitor.history] == [100, 200, 300]
    assert better.values["flip"] > same.values["flip"]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.035, 0.030, 0.030), 3),  # all equal the best: the last
        ((0.030, 0.045, 0.034), 2),  # the last is significantly worse
        ((0.030, 0.024, 0.018), 2),  # relative to the best so far, not to the previous one
        ((-0.02, -0.01, -0.005), None),  # none is better than the start
        ((0.006, -0.001, -0.002), 1),
    ],
)
def test_of_equal_scores_the_last_is_kept(scene, scores, kept):
    """Both while it runs and in a resumed run; SCORE_TOLERANCE is .01."""
    source = with_mean(scene[0], "turned", 0.5)
    monitor = Monitor(source)
    for step, score in enumerate(scores, 1):
        reading = monitor.watch(step, with_mean(source, "turned", 0.5 + score), FINE)
        assert reading.score == pytest.approx(score)
    assert (monitor.best and monitor.best.step) == kept
    resumed = Monitor(source)
    resumed.recall(monitor.history)
    assert resumed.best == monitor.best


def test_the_histogram_is_relative_to_the_start(scene):
    source, measured = scene
    values = (
        Monitor(source).watch(10, measured(lambda crops: 0.5 * unsteady(0.1)(crops)), FINE).values
    )
    start, now = source.histogram.mean(0), [values[f"bin_{n}"] for n in range(5)]
    for n in range(5):
        assert values[f"bin_{n}_ratio"] == pytest.approx(now[n] / start[n])
    assert values["bin_4_ratio"] == 0
    assert values["bin_0_ratio"] > 1


def test_the_score_uses_the_rotated_views_alone_where_defined(scene):
    """Not flip equivariance and agreement with a teacher that contains the upright view."""
    source, measured = scene
    before = with_mean(source, "turned", 0.5)
    after = with_mean(measured(unsteady(0.05)), "turned", 0.6)
    assert Monitor(before).watch(100, after, FINE).score == pytest.approx(0.1)
    worse = with_mean(after, "turned", 0.48)
    assert Monitor(before).watch(100, worse, FINE).score == pytest.approx(-0.02)


def test_readings_have_the_same_ranking_after_json(scene):
    source, measured = scene
    monitor = Monitor(source)
    for step, noise in ((100, 0.05), (200, 0.02), (300, 0.08)):
        monitor.watch(step, measured(unsteady(noise)), FINE)
    stored = json.loads(json.dumps([each.to_dict() for each in monitor.history]))
    resumed = Monitor(source)
    resumed.recall([MonitorReading.from_dict(each) for each in stored])
    assert json.dumps([each.to_dict() for each in resumed.history]) == json.dumps(
        stored
    )  # NaNs too
    assert resumed.best.step == monitor.best.step
    assert resumed.best.score == monitor.best.score == max(each.score for each in resumed.history)


def test_two_equal_networks_are_reported_as_one(scene):
    source, _ = scene
    equal = Monitor(source).watch(10, source, FINE, distance=0.004)
    assert any("effectively a single network" in warning for warning in equal.warnings)
    two = Monitor(source).watch(10, source, FINE, distance=0.02)
    assert two.values["apart"] == 0.02
    assert not two.warnings
    assert "apart" not in Monitor(source).watch(10, source, FINE).values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(scene, value):
    monitor = Monitor(scene[0])
    with pytest.raises(DivergedError, match=r"step 7.*consistency"):
        monitor.watch(7, scene[0], {"supervised": 0.1, "consistency": value})
    assert monitor.history[-1].step == 7


def test_heatmaps_that_are_not_finite_stop_the_run(scene):
    with pytest.raises(DivergedError, match="no longer finite"):
        Monitor(scene[0]).watch(1, with_mean(scene[0], "response", np.nan), FINE)


def test_a_vanishing_response_is_a_collapse_although_joints_stay_in_place(scene):
    source, measured = scene
    faint = measured(lambda crops: 0.3 * unsteady(0.1)(crops))
    assert faint.mean("teacher") == source.mean("teacher")
    monitor = Monitor(source)
    with pytest.raises(CollapsedError, match="mean peak fell") as caught:
        monitor.watch(50, faint, FINE)
    assert caught.value.exit_code == 5
    assert monitor.best is None


def test_a_moderately_lower_response_is_a_warning(scene):
    source, measured = scene
    reading = Monitor(source).watch(50, measured(lambda crops: 0.6 * unsteady(0.1)(crops)), FINE)
    assert any("mean peak went" in warning for warning in reading.warnings)
    assert Monitor(source).watch(50, source, FINE).warnings == ()


def test_a_confident_constant_output_is_a_collapse(scene):
    source, measured = scene
    constant = drawn_model(figures(1)[0].crops([0]))
    with pytest.raises(CollapsedError, match="nearly constant"):
        Monitor(source).watch(50, measured(lambda crops: np.repeat(constant, len(crops), 0)), FINE)


def test_drift_from_the_frozen_teacher_is_detected_at_full_response(scene):
    source, measured = scene
    drifted = measured(unsteady(0.25))
    assert drifted.mean("response") > 0.9 * source.mean("response")
    with pytest.raises(CollapsedError, match="agreement with the frozen teacher"):
        Monitor(source).watch(50, drifted, FINE)


def test_drift_is_measured_by_the_rotated_views_where_defined(scene):
    source, measured = scene
    drifted = measured(unsteady(0.25))
    before = with_mean(source, "turned", 0.5)
    Monitor(before).watch(50, with_mean(drifted, "turned", 0.55), FINE)
    with pytest.raises(CollapsedError, match="drift"):
        Monitor(before).watch(50, with_mean(measured(unsteady(0.05)), "turned", 0.4), FINE)


def test_with_labels_the_student_may_leave_the_frozen_teacher(scene):
    source, measured = scene
    reading = Monitor(source, labeled=True).watch(50, measured(unsteady(0.25)), FINE)
    assert reading.score < 0


def test_a_loss_that_is_not_significant_does_not_stop_the_run(scene):
    source, _ = scene
    few = source.column("teacher").copy()
    few[0] = few[0] - 24 * 0.04  # of one person alone: 4 points of the mean, not significant
    Monitor(source).watch(50, with_mean(source, "teacher", few), FINE)


def test_an_untrained_network_is_not_held_to_the_floors(scene):
    _, measured = scene
    blank = measured(lambda crops: 0.01 * drawn_model(crops))
    reading = Monitor(blank).watch(50, measured(lambda crops: 0.004 * drawn_model(crops)), FINE)
    assert reading.step == 50


def test_a_reading_is_described_in_words(scene):
    """Consistency is the mean over the probe views, at the start and now."""
    source, measured = scene
    reading = Monitor(source).watch(10, measured(drawn_model), FINE)
    views = ("flip", "turn", "zoom", "move", "odd")
    before = np.mean([source.mean(view) for view in views])
    after = np.mean([reading.values[view] for view in views])
    assert reading.consistency == pytest.approx((before, after))
    text = reading.describe()
    assert text.startswith(f"held-out consistency {before:.2f} -> {after:.2f}, ")
    assert f"agreement with the teacher {reading.values['teacher']:.2f}" in text
    assert text.endswith("consistency loss 0.1")
    assert "nan" not in text


def test_a_reading_stored_without_its_consistency_is_read(scene):
    source, measured = scene
    stored = Monitor(source).watch(10, measured(drawn_model), FINE).to_dict()
    again = MonitorReading.from_dict(json.loads(json.dumps(stored)))
    assert again.consistency == pytest.approx(stored["consistency"])
    del stored["consistency"]
    assert np.isnan(MonitorReading.from_dict(stored).consistency).all()
