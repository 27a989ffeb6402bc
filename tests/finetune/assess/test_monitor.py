import dataclasses
import json

import numpy as np
import pytest

from posekit.errors import CollapsedError, DivergedError
from posekit_finetune.assess.indicators import NAMES, measure
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.train.teacher import PseudoLabels
from tests.figures import drawn_model, figures, unsteady

EVERY = np.arange(24)
FINE = {"consistency": 0.1}


@pytest.fixture(scope="module")
def scene():
    persons, joints = figures(24)
    teacher = PseudoLabels(
        np.zeros((24, 1, 1, 1), np.float16), joints, np.ones((24, 9), np.float32)
    )
    source = measure(unsteady(0.1), persons, EVERY, teacher=teacher)

    def look(predict):
        return measure(predict, persons, EVERY, teacher=teacher, source=source)

    return source, look


def with_mean(seen, name, value):
    """The same look with another figure for everybody."""
    values = seen.values.copy()
    values[:, NAMES.index(name)] = value
    return dataclasses.replace(seen, values=values)


def test_the_best_look_is_kept_and_clearly_worse_ones_do_not_replace_it(scene):
    source, look = scene
    monitor = Monitor(source)
    same = monitor.watch(100, source, FINE)
    assert same.score == 0
    assert monitor.best is None  # nothing is better than the start yet
    better = monitor.watch(200, look(drawn_model), FINE)
    assert better.score > 0.1
    assert monitor.best is better
    middle = monitor.watch(300, look(unsteady(0.06)), FINE)
    assert 0 < middle.score < better.score
    assert monitor.best is better
    assert [reading.step for reading in monitor.history] == [100, 200, 300]
    assert better.values["flip"] > same.values["flip"]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.035, 0.030, 0.030), 3),  # no look can be told from the best: the last
        ((0.030, 0.045, 0.034), 2),  # the last is worse by more than chance
        ((0.030, 0.024, 0.018), 2),  # against the best so far, not the one before
        ((-0.02, -0.01, -0.005), None),  # none is better than the start
        ((0.006, -0.001, -0.002), 1),
    ],
)
def test_of_looks_that_cannot_be_told_apart_the_last_is_kept(scene, scores, kept):
    """Both while it runs and in a run that goes on; ALIKE is .01."""
    source = with_mean(scene[0], "turned", 0.5)
    monitor = Monitor(source)
    for step, score in enumerate(scores, 1):
        reading = monitor.watch(step, with_mean(source, "turned", 0.5 + score), FINE)
        assert reading.score == pytest.approx(score)
    assert (monitor.best and monitor.best.step) == kept
    again = Monitor(source)
    again.recall(monitor.history)
    assert again.best == monitor.best


def test_the_histogram_is_told_against_the_start(scene):
    source, look = scene
    values = Monitor(source).watch(10, look(lambda crops: 0.5 * unsteady(0.1)(crops)), FINE).values
    start, now = source.histogram.mean(0), [values[f"bin_{n}"] for n in range(5)]
    for n in range(5):
        assert values[f"bin_{n}_ratio"] == pytest.approx(now[n] / start[n])
    assert values["bin_4_ratio"] == 0
    assert values["bin_0_ratio"] > 1


def test_turned_views_alone_score_where_they_were_asked(scene):
    """Flip equivariance and agreement with a teacher that holds the upright view say no more."""
    source, look = scene
    before = with_mean(source, "turned", 0.5)
    after = with_mean(look(unsteady(0.05)), "turned", 0.6)
    assert Monitor(before).watch(100, after, FINE).score == pytest.approx(0.1)
    worse = with_mean(after, "turned", 0.48)
    assert Monitor(before).watch(100, worse, FINE).score == pytest.approx(-0.02)


def test_readings_go_through_json_and_rank_again(scene):
    source, look = scene
    monitor = Monitor(source)
    for step, noise in ((100, 0.05), (200, 0.02), (300, 0.08)):
        monitor.watch(step, look(unsteady(noise)), FINE)
    told = json.loads(json.dumps([each.to_dict() for each in monitor.history]))
    again = Monitor(source)
    again.recall([MonitorReading.from_dict(each) for each in told])
    assert json.dumps([each.to_dict() for each in again.history]) == json.dumps(told)  # NaNs too
    assert again.best.step == monitor.best.step
    assert again.best.score == monitor.best.score == max(each.score for each in again.history)


def test_two_networks_that_answer_alike_are_called_one(scene):
    source, _ = scene
    twins = Monitor(source).watch(10, source, FINE, apart=0.004)
    assert any("effectively a single network" in warning for warning in twins.warnings)
    two = Monitor(source).watch(10, source, FINE, apart=0.02)
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
    source, look = scene
    faint = look(lambda crops: 0.3 * unsteady(0.1)(crops))
    assert faint.mean("teacher") == source.mean("teacher")
    monitor = Monitor(source)
    with pytest.raises(CollapsedError, match="mean peak fell") as caught:
        monitor.watch(50, faint, FINE)
    assert caught.value.exit_code == 5
    assert monitor.best is None


def test_a_response_that_only_sinks_is_a_warning(scene):
    source, look = scene
    reading = Monitor(source).watch(50, look(lambda crops: 0.6 * unsteady(0.1)(crops)), FINE)
    assert any("mean peak went" in warning for warning in reading.warnings)
    assert Monitor(source).watch(50, source, FINE).warnings == ()


def test_a_confident_constant_is_a_collapse(scene):
    source, look = scene
    always = drawn_model(figures(1)[0].crops([0]))
    with pytest.raises(CollapsedError, match="answers with a constant"):
        Monitor(source).watch(50, look(lambda crops: np.repeat(always, len(crops), 0)), FINE)


def test_quiet_drift_from_the_frozen_teacher_is_found_at_full_response(scene):
    source, look = scene
    drifted = look(unsteady(0.25))
    assert drifted.mean("response") > 0.9 * source.mean("response")
    with pytest.raises(CollapsedError, match="agreement with the frozen teacher"):
        Monitor(source).watch(50, drifted, FINE)


def test_drift_is_told_by_the_turned_views_where_they_were_asked(scene):
    source, look = scene
    drifted = look(unsteady(0.25))
    before = with_mean(source, "turned", 0.5)
    Monitor(before).watch(50, with_mean(drifted, "turned", 0.55), FINE)
    with pytest.raises(CollapsedError, match="drift"):
        Monitor(before).watch(50, with_mean(look(unsteady(0.05)), "turned", 0.4), FINE)


def test_labels_may_lead_away_from_the_frozen_teacher(scene):
    source, look = scene
    reading = Monitor(source, labelled=True).watch(50, look(unsteady(0.25)), FINE)
    assert reading.score < 0


def test_a_fall_that_may_be_chance_does_not_stop_the_run(scene):
    source, _ = scene
    few = source.column("teacher").copy()
    few[0] = few[0] - 24 * 0.04  # one person's alone: 4 points of the mean, no certainty
    Monitor(source).watch(50, with_mean(source, "teacher", few), FINE)


def test_a_network_that_had_not_begun_to_answer_may_be_watched(scene):
    _, look = scene
    blank = look(lambda crops: 0.01 * drawn_model(crops))
    reading = Monitor(blank).watch(50, look(lambda crops: 0.004 * drawn_model(crops)), FINE)
    assert reading.step == 50
