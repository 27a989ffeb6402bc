"""Networks trained on synthetic people: their images, their training, their cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from posekit import codecs
from tests.synthetic import networks


def test_an_image_depends_on_its_seed_alone_and_its_joints_lie_in_it() -> None:
    images, joints = networks.people(6, 3)
    again, other = networks.people(6, 3), networks.people(6, 4)
    assert (images == again[0]).all()
    assert (joints == again[1]).all()
    assert (images != other[0]).any()
    assert images.shape == (6, 96, 64, 3)
    assert images.dtype == np.uint8
    assert (joints >= 1).all()
    assert (joints <= np.array(networks.SIZE) - 2).all()
    assert len({image.tobytes() for image in images}) == 6


def test_limbs_are_drawn_where_the_joints_are() -> None:
    """The mean of many images of one pose is the person: backgrounds average out."""
    joints = networks.random_pose(np.random.default_rng(1))
    drawn = [networks.draw(joints, np.random.default_rng(n)).astype(float) for n in range(60)]
    hue = cv2.cvtColor(np.mean(drawn, 0).astype(np.uint8), cv2.COLOR_RGB2HSV)[..., 1].astype(float)
    middles = np.array([(joints[a] + joints[b]) / 2 for a, b in networks.BONES])
    on = [hue[round(y), round(x)] for x, y in middles]
    assert np.median(on) > 2 * np.median(hue)


def test_targets_are_decoded_to_the_joints() -> None:
    """Maps and decoding share one convention: a parabola on the logarithm of a Gaussian is exact.

    On the outer two cells the decoder does not refine: half a cell, 2 px.
    """
    _, joints = networks.people(8, 5)
    points, scores = codecs.decode(networks.targets(joints), networks.spec(networks.NETS[0]))
    inside = (np.array(networks.SIZE) - 11 > joints).all(2) & (joints > 10).all(2)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(points[inside], joints[inside], atol=0.1)
    np.testing.assert_allclose(points, joints, atol=2.1)
    assert (scores[inside] > 0.7).all()


def test_sides_are_mirror_pairs() -> None:
    skeleton = networks.skeleton()
    for joint, other in enumerate(skeleton.mirror):
        names = skeleton.keypoints[joint], skeleton.keypoints[other]
        assert names[0].replace("right", "left") == names[1].replace("right", "left")
        assert (joint == other) == (joint < len(networks.NAMES))


@pytest.mark.parametrize("name", networks.NETS)
def test_a_network_takes_the_images_and_gives_the_specs_maps(name: str) -> None:
    images, joints = networks.people(2, 0)
    with torch.no_grad():
        maps = networks.new_network(name).eval()(networks.normalized(images))
    assert maps.shape == networks.targets(joints).shape


def loss(net: nn.Module) -> float:
    images, joints = networks.people(8, 1)
    expected = torch.from_numpy(networks.targets(joints))
    with torch.no_grad():
        predicted = net(networks.normalized(images))
    return float(((predicted - expected) ** 2 * (1 + 10 * expected)).mean())


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_training_lowers_the_loss(torch_as_it_was: None) -> None:
    """On images that it was not trained on; two layers find the limbs' colors at least."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 7, 4, 3), nn.ReLU(), nn.Conv2d(24, 13, 5, padding=2))
    before = loss(net)
    networks.train(net, steps=60, batch=4, seed=0)
    assert not net.training
    assert loss(net) < 0.9 * before


def test_a_trained_network_is_kept_and_read_again(
    torch_as_it_was: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network, steps, batch and seed name the file; weights are such as a bundle stores."""
    monkeypatch.setattr(networks, "FOLDER", tmp_path)
    settings = {"steps": 2, "batch": 2}
    net = networks.trained_network("simple-baseline-r18", **settings)
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    again = networks.trained_network("simple-baseline-r18", **settings)
    assert file.stat().st_mtime_ns == made
    for first, second in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    for value in net.state_dict().values():
        assert torch.equal(value, value.half().to(value.dtype))
    networks.trained_network("simple-baseline-r18", **settings, seed=1)
    assert len(list(tmp_path.iterdir())) == 2
