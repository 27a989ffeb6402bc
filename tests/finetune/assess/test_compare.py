import json

import numpy as np
import pytest

from posekit.errors import InputError
from posekit.stats.bootstrap import paired_bootstrap
from posekit_finetune.assess.compare import MetricChange, compare, difference
from posekit_finetune.assess.indicators import Measure, measure
from posekit_finetune.assess.probe_views import PROBE_VIEWS
from tests.support.figures import drawn_model, figures, unsteady

HITS = Measure("hits", "of something", 1)


def test_a_difference_equals_the_paired_bootstrap():
    random = np.random.default_rng(0)
    before, groups = random.random((40, 12)), np.arange(40) // 2
    before[random.random(before.shape) < 0.2] = np.nan
    after = before + random.normal(0.05, 0.1, before.shape)
    found = difference(HITS, before, after, groups=groups, seed=3)
    expected = paired_bootstrap(before, after, groups, seed=3)
    np.testing.assert_allclose((found.difference, found.low, found.high), expected)
    assert found.gain == found.difference


def test_undefined_values_are_excluded_where_they_are_undefined():
    before, after = np.array([1.0, np.nan, 0.0, 0.0]), np.array([1.0, 1.0, np.nan, 0.0])
    found = difference(HITS, before, after, groups=np.arange(4), seed=0)
    np.testing.assert_allclose((found.before, found.after), (1 / 3, 2 / 3))
    undefined = difference(HITS, np.full(3, np.nan), np.ones(3), groups=np.arange(3), seed=0)
    assert not undefined.defined
    assert undefined.after == 1


def test_persons_of_one_image_are_drawn_together():
    random = np.random.default_rng(1)
    images = np.repeat(random.normal(size=30), 10)
    wide, narrow = (
        difference(HITS, np.zeros(300), images, groups=groups, seed=0)
        for groups in (np.repeat(np.arange(30), 10), np.arange(300))
    )
    # Ten equal persons of one image carry a tenth of the information: sqrt(10) times the width.
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert 2.5 < ratio < 4


def test_a_model_equals_itself_and_a_worse_one_differs():
    persons, _ = figures(24)
    rows = np.arange(24)
    before = measure(drawn_model, persons, rows)
    same = {each.name: each for each in compare(before, before)}
    assert all(each.difference == 0 for each in same.values() if each.defined)
    assert same["changed"].after == 0
    after = measure(unsteady(0.3), persons, rows, source=before)
    found = {each.name: each for each in compare(before, after)}
    for name in (*PROBE_VIEWS, "source"):
        assert found[name].high < 0, name
    np.testing.assert_allclose(found["changed"].after, 0.3, atol=0.1)
    with pytest.raises(InputError, match="other persons or views"):
        compare(before, measure(drawn_model, persons, rows[:9]))


def test_a_change_is_equal_after_json():
    found = MetricChange("a", "b", -1, 0.5, float("nan"), float("nan"), low=0.0, high=float("nan"))
    restored = MetricChange.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert restored.to_dict() == found.to_dict()
    assert not restored.defined
