"""Network 1, network 2 and the mean of their maps, each decoded separately."""

import numpy as np
import pytest

from posekit import codecs
from posekit_finetune.assess.ensemble import mean_distance, mean_maps, predict_members
from posekit_finetune.assess.predict import of_network
from tests.finetune.training import unit_net
from tests.synthetic.people import SPEC, people


def test_the_ensemble_decodes_the_mean_of_the_maps() -> None:
    nets, persons = [unit_net(1), unit_net(2)], people(6, 1, "none").persons
    rows = np.array([4, 1])
    members = predict_members(nets, persons, rows)
    assert [each.name for each in members] == ["net 1", "net 2", "ensemble"]
    maps = [of_network(net, SPEC)(persons.crops(rows)) for net in nets]
    for member, expected in zip(members, (*maps, (maps[0] + maps[1]) / 2), strict=True):
        points, scores = codecs.decode(expected, SPEC)
        np.testing.assert_allclose(member.points, points, atol=1e-4)
        np.testing.assert_allclose(member.scores, scores, atol=1e-5)
        assert member.response == pytest.approx(float(scores.mean()), rel=1e-5)
        shares = np.histogram(np.clip(expected, 0, 0.999), 5, (0, 1))[0] / expected.size
        np.testing.assert_allclose(member.histogram, shares, atol=1e-6)


def test_the_distance_of_two_predictions_is_a_share_of_the_crop() -> None:
    """64 px high: 6.4 px are a tenth; distances are clipped at a fifth."""
    first = np.zeros((3, 14, 2), np.float32)
    assert mean_distance(first, first, SPEC) == 0
    assert mean_distance(first, first + np.float32([0, 6.4]), SPEC) == pytest.approx(0.1)
    assert mean_distance(first, first + np.float32(60), SPEC) == pytest.approx(0.2)


def test_mean_maps_is_the_mean_of_the_maps() -> None:
    crops = people(2, 1, "none").persons.crops(slice(None))
    first, second = (of_network(unit_net(n), SPEC) for n in (1, 2))
    np.testing.assert_allclose(
        mean_maps(first, second)(crops), (first(crops) + second(crops)) / 2, atol=1e-6
    )


def test_one_network_has_no_ensemble() -> None:
    assert [each.name for each in predict_members([unit_net(1)], people(6, 1, "none").persons)] == [
        "net 1"
    ]
