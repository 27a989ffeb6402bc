"""Recorded activations and errors are those of the given crops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper

from posekit import Bundle, codecs
from posekit.bundle import find
from posekit.errors import InputError
from posekit.stats.parity import HIGH_CONFIDENCE
from posekit_engines.precision.activations import record_activations, split_feeds
from posekit_engines.precision.int8_error import TrialOutputs, int8_error, trial_outputs
from tests.engines.plain_graphs import (
    blurred,
    bumps_spec,
    graph,
    lightning,
    open_model,
    peaked,
)


def doubled() -> object:
    """heatmaps = relu(2 image - 1), with named tensors in between."""
    values = {"two": np.float32(2), "one": np.float32(1)}
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["twice"]),
        helper.make_node("Sub", ["twice", "one"], ["less"]),
        helper.make_node("Relu", ["less"], ["heatmaps"]),
    ]
    return graph(nodes, values, joints=3)


def test_every_crop_of_every_feed_is_recorded_once_in_order() -> None:
    """Feeds of several crops are split; values are right whether or not another node reads them."""
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


def test_recording_leaves_the_model_unchanged() -> None:
    model = doubled()
    before = model.SerializeToString()
    list(record_activations(model, [{"image": np.zeros((1, 3, 2, 2), np.float32)}], ["less"]))
    assert model.SerializeToString() == before


def test_no_crops_are_an_error_and_not_an_empty_range() -> None:
    with pytest.raises(InputError, match="no crops; wanted one or more"):
        split_feeds([])
    with pytest.raises(InputError, match="no crops; wanted one or more"):
        list(
            record_activations(doubled(), [{"image": np.zeros((0, 3, 2, 2), np.float32)}], ["less"])
        )


@pytest.mark.parametrize("flip", [False, True])
def test_outputs_are_the_graphs_own_points(flip: bool) -> None:
    """The maps are the network's: with the flip test inside, two a crop, upright and mirrored."""
    model, crops = lightning(flip=flip)
    spec = Bundle.open(find("movenet-lightning")).pose_spec
    outputs = trial_outputs(model, [{"crops": crops[:2]}], spec)
    assert outputs.maps.shape == (4 if flip else 2, 17, 48, 48)
    assert outputs.points.shape == (2, 17, 2)
    assert outputs.scores.shape == (2, 17)
    first = outputs.first(1, of=2)
    alone = trial_outputs(model, [{"crops": crops[:1]}], spec)
    for given, wanted in zip(vars(first).values(), vars(alone).values(), strict=True):
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("cell_px", [1.0, 4.0])
def test_maps_of_a_graph_without_points_are_decoded_by_the_codecs(cell_px: float) -> None:
    """In the spec's own pixels, whatever a cell measures; close to the bumps' centers."""
    images, spec = peaked(2), bumps_spec(cell_px=cell_px)
    outputs = trial_outputs(blurred(1), [{"image": images}], spec)
    (maps,) = open_model(blurred(1)).run(None, {"image": images})
    points, scores = codecs.decode(maps, spec)
    np.testing.assert_array_equal(outputs.points, points)
    np.testing.assert_array_equal(outputs.scores, scores)
    assert outputs.points == pytest.approx(codecs.decode(images, spec)[0], abs=0.05 * cell_px)


def outputs_of(points: object, *, scores: object = 0.9, maps: object = 1.0) -> TrialOutputs:
    points = np.asarray(points, np.float32)
    heights = np.broadcast_to(np.asarray(scores, np.float32), points.shape[:2])
    return TrialOutputs(np.full((1, 2, 2, 2), maps, np.float32), points, heights)


def test_the_error_is_that_of_the_high_confidence_keypoints() -> None:
    source = outputs_of(
        [[[0, 0], [10, 10], [5, 5]]], scores=[[0.9, HIGH_CONFIDENCE + 0.01, HIGH_CONFIDENCE]]
    )
    found = int8_error(outputs_of([[[3, 4], [10, 11], [99, 99]]]), source)
    assert found.points == 2  # the threshold itself is not above
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


def test_nan_and_infinity_are_infinite_deviations() -> None:
    source = outputs_of([[[0, 0], [1, 1]]])
    for broken in (np.nan, np.inf, -np.inf):
        found = int8_error(outputs_of([[[broken, 0], [1, 1]]], maps=broken), source)
        assert found.mean_px == math.inf
        assert found.maps == found.maps_rms == math.inf
