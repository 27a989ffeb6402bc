"""The best weights of a run, and of one that was interrupted and resumed."""

from pathlib import Path

import numpy as np
import pytest

from posekit.bundle import Weights
from posekit_finetune import recipe
from posekit_finetune.assess.held_out import HeldOut, train
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels, with_rotated_views
from tests.finetune.lightning import lightning, persons

HELD = np.array([6, 7])
RECIPE = recipe.load("default", ["steps=4", "watch_every=2", "batch=2", "rate=2e-4", "warm_up=1"])


def evaluation() -> tuple[HeldOut, PseudoLabels]:
    every = persons()
    plain = predict_pseudo_labels(every, lightning(), views=1, threads=1)
    teacher = with_rotated_views(plain, every, HELD, bundle=lightning(), threads=1)
    return HeldOut(lightning(), every, HELD, teacher, 1), plain


def run(
    held_out: HeldOut, plain: PseudoLabels, state: Path, *, stop: int = -1
) -> tuple[Weights, list[int], float]:
    """Best weights, steps of the readings and the best score, up to `stop` steps."""
    data = TrainingData(held_out.persons, np.arange(6), plain, plain)
    loop = Loop(lightning(), data, RECIPE, state=state)
    loop.stopped = lambda: loop.step == stop
    monitor = Monitor(held_out.measure(lightning().weights, None))
    best = train(loop, monitor, held_out, on_reading=lambda _reading, _seconds: None)
    return best, [each.step for each in monitor.history], max(r.score for r in monitor.history)


def test_a_resumed_run_knows_the_best_weights_of_before(tmp_path: Path) -> None:
    """Interrupted after the first reading, and resumed twice: the same weights bit for bit."""
    held_out, plain = evaluation()
    whole, steps, score = run(held_out, plain, tmp_path / "whole.pt")
    assert steps == [2, 4]
    assert any((whole[k] != v).any() for k, v in lightning().weights.items())
    state = tmp_path / "cut.pt"
    with pytest.raises(KeyboardInterrupt):
        run(held_out, plain, state, stop=2)
    for _ in range(2):  # the second one resumes a finished run
        resumed, steps, best = run(held_out, plain, state)
        assert steps == [2, 4]
        assert best == score
        assert all(np.array_equal(resumed[name], value) for name, value in whole.items())


def test_rotated_views_are_predicted_for_the_held_out_persons_only() -> None:
    held_out, plain = evaluation()
    rotated = held_out.teacher.rotated
    assert rotated is not None
    assert np.isnan(rotated[:6]).all()
    labels = predict_pseudo_labels(held_out.persons.select(HELD), lightning(), views=14, threads=1)
    np.testing.assert_array_equal(rotated[HELD], labels.points)
    # they differ from the upright view
    assert np.abs(rotated[HELD] - plain.points[HELD]).max() > 1
    measured = held_out.measure(lightning().weights, None)
    near = np.linalg.norm(labels.points - measured.points, axis=2)[:, 5:] < 0.05 * 192
    assert measured.mean("turned") == pytest.approx(near.mean(), abs=1e-6)
