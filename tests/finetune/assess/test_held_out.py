"""The best weights of a run, and of one that was cut off and went on."""

from pathlib import Path

import numpy as np
import pytest

from posekit.bundle import Weights
from posekit_finetune import recipe
from posekit_finetune.assess.held_out import HeldOut, learn
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels, with_rotated_views
from tests.finetune.train.test_networks import lightning, persons

HELD = np.array([6, 7])
MADE = recipe.load("default", ["steps=4", "watch_every=2", "batch=2", "rate=2e-4", "warm_up=1"])


def watched() -> tuple[HeldOut, PseudoLabels]:
    seen = persons()
    plain = predict_pseudo_labels(seen, lightning(), views=1, threads=1)
    teacher = with_rotated_views(plain, seen, HELD, bundle=lightning(), threads=1)
    return HeldOut(lightning(), seen, HELD, teacher, 1), plain


def run(
    watched: HeldOut, plain: PseudoLabels, state: Path, *, stop: int = -1
) -> tuple[Weights, list[int], float]:
    """Best weights, steps of the looks and the best score, up to `stop` steps."""
    material = TrainingData(watched.persons, np.arange(6), plain, plain)
    loop = Loop(lightning(), material, MADE, state=state)
    loop.stopped = lambda: loop.step == stop
    monitor = Monitor(watched.measure(lightning().weights, None))
    best = learn(loop, monitor, watched, on_reading=lambda _reading, _seconds: None)
    return best, [each.step for each in monitor.history], max(r.score for r in monitor.history)


def test_a_resumed_run_knows_what_was_best_before_it_was_cut_off(tmp_path: Path) -> None:
    """Cut off after the first look, and once more after the last: the same weights to the bit."""
    scene, plain = watched()
    whole, looks, score = run(scene, plain, tmp_path / "whole.pt")
    assert looks == [2, 4]
    assert any((whole[k] != v).any() for k, v in lightning().weights.items())
    state = tmp_path / "cut.pt"
    with pytest.raises(KeyboardInterrupt):
        run(scene, plain, state, stop=2)
    for _ in range(2):  # the second one finds a run that has nothing left to do
        again, seen, best = run(scene, plain, state)
        assert seen == [2, 4]
        assert best == score
        assert all(np.array_equal(again[name], value) for name, value in whole.items())


def test_turned_views_judge_the_held_out_alone() -> None:
    scene, plain = watched()
    turned = scene.teacher.turned
    assert turned is not None
    assert np.isnan(turned[:6]).all()
    told = predict_pseudo_labels(scene.persons.select(HELD), lightning(), views=14, threads=1)
    np.testing.assert_array_equal(turned[HELD], told.points)
    # other views than the upright one say something else
    assert np.abs(turned[HELD] - plain.points[HELD]).max() > 1
    seen = scene.measure(lightning().weights, None)
    near = np.linalg.norm(told.points - seen.points, axis=2)[:, 5:] < 0.05 * 192
    assert seen.mean("turned") == pytest.approx(near.mean(), abs=1e-6)
