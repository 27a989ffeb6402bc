import dataclasses

import numpy as np
import pytest
import torch

from posekit.bundle import Bundle
from posekit.errors import BundleError
from posekit_finetune.assess.predict import of_bundle, of_network
from posekit_finetune.train.networks import load_network
from tests.support.assets import shipped


@pytest.fixture(scope="module")
def lightning():
    return Bundle.open(shipped("posekit/models/movenet-lightning.posekit"))


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 255, (3, 192, 192, 3), np.uint8)


def test_the_bundle_and_its_network_in_torch_give_the_same_maps(lightning, crops):
    net = load_network(lightning).train()
    maps, torch_maps = of_bundle(lightning)(crops), of_network(net, lightning.pose_spec)(crops)
    assert maps.shape == (3, 17, 48, 48)
    assert maps.dtype == torch_maps.dtype == np.float32
    np.testing.assert_allclose(maps, torch_maps, atol=1e-4)
    assert net.training  # as it was before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_prediction_does_not_change_batch_norm_statistics(lightning, crops):
    net = torch.nn.Sequential(load_network(lightning), torch.nn.BatchNorm2d(17))
    net.train()
    before = net[1].running_mean.clone()
    of_network(net, lightning.pose_spec)(crops)
    assert torch.equal(net[1].running_mean, before)


def test_other_weights_of_the_network_are_used(lightning, crops):
    zero = {name: np.zeros_like(value) for name, value in lightning.weights.items()}
    maps = of_bundle(lightning, weights=zero)(crops)
    # A network of zeros has equal maps for every image and every keypoint.
    np.testing.assert_allclose(maps, np.broadcast_to(maps[:1, :1], maps.shape))
    assert np.ptp(of_bundle(lightning)(crops), axis=0).max() > 0.01


def test_crops_do_not_depend_on_the_number_of_others(lightning, crops):
    predict = of_bundle(lightning)
    many = predict(np.concatenate([crops] * 6))
    np.testing.assert_allclose(many[-3:], predict(crops), atol=1e-6)
    assert predict(crops[:0]).shape == (0, 17, 48, 48)


def test_a_bundle_without_the_maps_graph_is_refused(lightning):
    old = dataclasses.replace(lightning, graphs={"plain": lightning.graphs["plain"]})
    with pytest.raises(BundleError, match="maps graph"):
        of_bundle(old)
