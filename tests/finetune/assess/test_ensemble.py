"""Net 1, net 2 and the mean of their maps, each decoded by itself."""

import numpy as np
import pytest

from posekit import codecs
from posekit_finetune.assess.ensemble import apart, load_members, mean_maps
from posekit_finetune.assess.predict import of_network
from tests.finetune.train.test_step import lively
from tests.synthetic.people import SPEC, people


def test_the_ensemble_decodes_the_mean_of_the_maps() -> None:
    nets, persons = [lively(1), lively(2)], people(6, 1, "none").persons
    rows = np.array([4, 1])
    seen = load_members(nets, persons, rows)
    assert [each.name for each in seen] == ["net 1", "net 2", "ensemble"]
    maps = [of_network(net, SPEC)(persons.crops(rows)) for net in nets]
    for member, wanted in zip(seen, (*maps, (maps[0] + maps[1]) / 2), strict=True):
        points, scores = codecs.decode(wanted, SPEC)
        np.testing.assert_allclose(member.points, points, atol=1e-4)
        np.testing.assert_allclose(member.scores, scores, atol=1e-5)
        assert member.response == pytest.approx(float(scores.mean()), rel=1e-5)
        shares = np.histogram(np.clip(wanted, 0, 0.999), 5, (0, 1))[0] / wanted.size
        np.testing.assert_allclose(member.histogram, shares, atol=1e-6)


def test_the_distance_of_two_answers_is_a_share_of_the_crop() -> None:
    """64 px high: 6.4 px are a tenth; what lies further than a fifth counts as a fifth."""
    first = np.zeros((3, 14, 2), np.float32)
    assert apart(first, first, SPEC) == 0
    assert apart(first, first + np.float32([0, 6.4]), SPEC) == pytest.approx(0.1)
    assert apart(first, first + np.float32(60), SPEC) == pytest.approx(0.2)


def test_both_is_the_mean_of_the_maps() -> None:
    crops = people(2, 1, "none").persons.crops(slice(None))
    first, second = (of_network(lively(n), SPEC) for n in (1, 2))
    np.testing.assert_allclose(
        mean_maps(first, second)(crops), (first(crops) + second(crops)) / 2, atol=1e-6
    )


def test_one_network_is_its_own_ensemble() -> None:
    assert [each.name for each in load_members([lively(1)], people(6, 1, "none").persons)] == [
        "net 1"
    ]
