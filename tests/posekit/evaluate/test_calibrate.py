"""posekit calibrate: probabilities that hold on images that the fit did not use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posekit.bundle import Bundle
from posekit.errors import DataError, InputError
from posekit.evaluate import calibration_error, reliability
from posekit.evaluate.calibrate import (
    PART,
    Recipe,
    Samples,
    calibrate,
    calibrated,
    cross_fitted,
    fit,
)
from posekit.evaluate.calibrate import _fitted as fitted
from posekit.evaluate.calibrate import _logistic as logistic
from posekit.evaluate.outcome import save_reliability
from posekit.stats.calibration import Calibration
from tests.support.assets import shipped


def drawn(persons: int, seed: int, keypoints: int = 5) -> tuple[Samples, np.ndarray]:
    """Scores whose true probability is known and differs by keypoint."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.95, (persons, keypoints))
    offset = np.linspace(-1, 2, keypoints)
    truth = 1 / (1 + np.exp(-(offset + 1.5 * np.log(scores / (1 - scores)))))
    hits = (rng.uniform(size=truth.shape) < truth).astype(float)
    hits[rng.uniform(size=truth.shape) < 0.2] = np.nan
    return Samples(scores, hits, rng.integers(0, persons // 3, persons)), truth


def test_fit_finds_the_true_probabilities_of_new_persons() -> None:
    data, _ = drawn(1500, 0)
    calibration, _ = fit(data)
    fresh, truth = drawn(2000, 1)
    # 240 samples a keypoint and decile would err by 0.03; a curve of two numbers errs by less.
    assert np.abs(calibration(fresh.scores.astype(np.float32)) - truth).mean() < 0.03


def test_held_out_error_is_below_half_of_the_raw_one() -> None:
    data, _ = drawn(1500, 2)
    known = ~np.isnan(data.hits)
    raw = calibration_error(data.scores[known], data.hits[known])
    held = calibration_error(cross_fitted(data)[known], data.hits[known])
    assert held < raw / 2


def test_a_keypoint_without_labels_gets_the_pooled_curve() -> None:
    data, _ = drawn(900, 3)
    data.hits[:, 2] = np.nan
    data.hits[:, 3] = np.where(np.arange(900) < 3, data.hits[:, 3], np.nan)
    pooled = fitted(data, Recipe(np.inf, isotonic=False)).probabilities[0]
    pulled = fitted(data, Recipe(10.0, isotonic=False)).probabilities
    np.testing.assert_array_equal(pulled[2], pooled)
    # Three samples move a curve that is pulled by ten a little; hundreds move it a lot.
    assert np.abs(pulled[3] - pooled).max() < 0.15 < np.abs(pulled[4] - pooled).max()


def test_fitting_is_logistic_regression_as_others_do_it() -> None:
    """The same line as a general optimiser finds for the same cost."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(7)
    x = rng.normal(0, 2, 300)
    hits = (rng.uniform(size=300) < 1 / (1 + np.exp(-(0.4 + 0.7 * x)))).astype(float)

    def cost(line: np.ndarray) -> float:
        z = line[0] + line[1] * x
        return float((np.logaddexp(0, z) - hits * z).sum() + 2.5 * ((line - (1, 2)) ** 2).sum())

    wanted = minimize(cost, np.array([1.0, 2.0])).x
    np.testing.assert_allclose(logistic(x, hits, (1.0, 2.0), strength=5.0), wanted, atol=1e-3)
    assert logistic(x, 1 - hits, (0.0, 1.0), strength=1e-3)[1] == 0.0


def test_too_few_samples_are_refused() -> None:
    data, _ = drawn(12, 4)
    with pytest.raises(DataError, match="label more"):
        fit(data)


def test_curves_never_fall_and_end_where_they_end() -> None:
    calibration, _ = fit(drawn(600, 5)[0])
    scores = np.linspace(-1, 3, 400, dtype=np.float32)[:, None].repeat(5, 1)
    probabilities = calibration(scores)
    assert (np.diff(probabilities, axis=0) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    np.testing.assert_allclose(again(scores), probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("knots", "probabilities"),
    [
        ([0.0], [[0.1]]),
        ([0.0, 0.0], [[0.1, 0.2]]),
        ([0.0, 1.0], [[0.2, 0.1]]),
        ([0.0, 1.0], [[0.2, 1.1]]),
        ([0.0, 1.0], [0.2, 0.3]),
        ([0.0, 1.0], [[0.2, float("nan")]]),
    ],
)
def test_impossible_curves_are_refused(knots: list[float], probabilities: list[object]) -> None:
    with pytest.raises(InputError):
        Calibration(np.array(knots), np.array(probabilities))


def test_scores_of_another_skeleton_are_refused() -> None:
    calibration = Calibration(np.array([0, 1]), np.array([[0.1, 0.9]] * 3))
    assert calibration(np.full((2, 3), np.nan, np.float32)).tolist() == [[0.0] * 3] * 2
    with pytest.raises(InputError, match="calibrated for"):
        calibration(np.zeros((2, 4), np.float32))


def test_calibration_error_by_hand() -> None:
    probabilities, hits = [0.15, 0.15, 0.95, 0.95], [0, 1, 1, 1]
    rows = reliability(probabilities, hits)
    assert [count for _, _, count in rows] == [2, 2]
    assert calibration_error(probabilities, hits) == pytest.approx((0.35 * 2 + 0.05 * 2) / 4)
    assert calibration_error([1.5, -1.0], [1, 0]) == 0.0


def test_bundle_keeps_the_curves_beside_its_other_parts(tmp_path: Path) -> None:
    bundle = Bundle.open(shipped("posekit/models/movenet-lightning.posekit"))
    found = calibrate({"plain": drawn(300, 6)[0]})
    result = calibrated(bundle, found.curves, {"file": "labels.json"})
    content = json.loads(result.extras[PART])
    assert content["data"] == {"file": "labels.json"}
    assert set(content["graphs"]) == {"plain"}
    assert result.graphs == bundle.graphs
    assert PART in result.manifest()["parts"]
    save_reliability(found.report, tmp_path / "r.html", title="a & b")
    page = (tmp_path / "r.html").read_text()
    assert "a &amp; b" in page
    assert page.count("<svg") == 1
