"""Ranges and shifts that precision is decided on are those of the crops that were given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper

from posekit.errors import InputError
from posekit_engines.precision.activations import record_activations, single
from posekit_engines.precision.int8_error import (
    CELL_PX,
    TrialOutputs,
    int8_error,
    peaks,
    trial_outputs,
)
from tests.engines.plain_graphs import blurred, graph, lightning, peaked


def doubled() -> object:
    """heatmaps = relu(2 image - 1), with names of their own between."""
    values = {"two": np.float32(2), "one": np.float32(1)}
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["twice"]),
        helper.make_node("Sub", ["twice", "one"], ["less"]),
        helper.make_node("Relu", ["less"], ["heatmaps"]),
    ]
    return graph(nodes, values, joints=3)


def test_every_crop_of_every_feed_is_seen_once_in_order() -> None:
    """Feeds of several crops are cut; the values are the tensors' own, inputs of others or not."""
    crops = np.arange(5 * 3 * 2 * 2, dtype=np.float32).reshape(5, 3, 2, 2) / 10
    feeds = [{"image": crops[:2]}, {"image": crops[2:]}]
    found = list(record_activations(doubled(), feeds, ["less", "twice", "less", "heatmaps"]))
    assert [list(each) for each in found] == [["less", "twice", "heatmaps"]] * 5
    for each, crop in zip(found, crops, strict=True):
        assert each["twice"] == pytest.approx(2 * crop[None])
        assert each["less"] == pytest.approx(2 * crop[None] - 1)
        assert each["heatmaps"] == pytest.approx(np.maximum(2 * crop[None] - 1, 0))
    assert min(each["less"].min() for each in found) == -1  # of the first crop
    assert max(each["less"].max() for each in found) == pytest.approx(2 * 5.9 - 1)  # of the last


def test_a_model_that_is_looked_at_stays_as_it_is() -> None:
    model = doubled()
    before = model.SerializeToString()
    list(record_activations(model, [{"image": np.zeros((1, 3, 2, 2), np.float32)}], ["less"]))
    assert model.SerializeToString() == before


def test_no_crop_is_an_error_and_not_an_empty_range() -> None:
    with pytest.raises(InputError, match="no crops to look at"):
        single([])
    with pytest.raises(InputError, match="no crops to look at"):
        list(
            record_activations(doubled(), [{"image": np.zeros((0, 3, 2, 2), np.float32)}], ["less"])
        )


def test_peaks_are_those_of_a_parabola() -> None:
    """Exact where the map is one, in px of 4 to a cell; on the border, the cell's own place."""
    rows, columns = np.mgrid[:8, :6]
    maps = np.stack([5 - (columns - 2.3) ** 2 - (rows - 4.75) ** 2, -columns - rows.astype(float)])
    points, scores = peaks(maps[None].astype(np.float32))
    assert points[0, 0] == pytest.approx([2.3 * CELL_PX, 4.75 * CELL_PX], abs=1e-4)
    assert scores[0, 0] == pytest.approx(5 - 0.3**2 - 0.25**2)
    assert points[0, 1] == pytest.approx([0, 0])


@pytest.mark.parametrize("flip", [False, True])
def test_answers_are_the_graphs_own_points(flip: bool) -> None:
    """The maps are the network's: with the flip test inside, two a crop, its own and mirrored."""
    model, crops = lightning(flip=flip)
    found = trial_outputs(model, [{"crops": crops[:2]}])
    assert found.maps.shape == (4 if flip else 2, 17, 48, 48)
    assert found.points.shape == (2, 17, 2)
    assert found.scores.shape == (2, 17)
    part = found.first(1, of=2)
    alone = trial_outputs(model, [{"crops": crops[:1]}])
    for mine, wanted in zip(vars(part).values(), vars(alone).values(), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_a_graph_without_points_has_its_peaks() -> None:
    pictures = peaked(2)
    found = trial_outputs(blurred(1), [{"image": pictures}])
    assert found.points == pytest.approx(peaks(pictures)[0], abs=0.05 * CELL_PX)


def made(points: object, *, scores: object = 0.9, maps: object = 1.0) -> TrialOutputs:
    points = np.asarray(points, np.float32)
    heights = np.broadcast_to(np.asarray(scores, np.float32), points.shape[:2])
    return TrialOutputs(np.full((1, 2, 2, 2), maps, np.float32), points, heights)


def test_a_shift_is_a_distance_of_joints_that_the_source_is_sure_of() -> None:
    source = made([[[0, 0], [10, 10], [5, 5]]], scores=[[0.9, 0.31, 0.3]])
    found = int8_error(made([[[3, 4], [10, 11], [99, 99]]]), source)
    assert found.points == 2  # 0.3 itself is not above
    assert found.mean_px == pytest.approx(3)
    assert found.p99_px == pytest.approx(1 + 0.99 * 4)
    assert found.maps == found.maps_rms == 0


def test_maps_differ_by_a_share_of_the_largest_value() -> None:
    source = TrialOutputs(np.array([[[[2.0, -4.0]]]], np.float32), *2 * (np.zeros((1, 0, 2)),))
    other = TrialOutputs(np.array([[[[2.0, -3.0]]]], np.float32), *2 * (np.zeros((1, 0, 2)),))
    source, other = (
        TrialOutputs(each.maps, each.points, np.zeros((1, 0))) for each in (source, other)
    )
    found = int8_error(other, source)
    assert found.maps == pytest.approx(1 / 4)
    assert found.maps_rms == pytest.approx(math.sqrt(1 / 2) / math.sqrt((4 + 16) / 2))
    assert (found.mean_px, found.p99_px, found.points) == (None, None, 0)


def test_what_is_no_number_is_infinitely_far() -> None:
    source = made([[[0, 0], [1, 1]]])
    for broken in (np.nan, np.inf, -np.inf):
        found = int8_error(made([[[broken, 0], [1, 1]]], maps=broken), source)
        assert found.mean_px == math.inf
        assert found.maps == found.maps_rms == math.inf
