"""The drawn figures that networks with peaks learn from, and how those are kept; small scale."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import figures
from posekit import codecs
from tests.assets import ROOT


def test_a_picture_depends_on_its_seed_alone_and_its_joints_lie_in_it() -> None:
    pictures, joints = figures.figures(6, 3)
    again, other = figures.figures(6, 3), figures.figures(6, 4)
    assert (pictures == again[0]).all()
    assert (joints == again[1]).all()
    assert (pictures != other[0]).any()
    assert pictures.shape == (6, 96, 64, 3)
    assert pictures.dtype == np.uint8
    assert (joints >= 1).all()
    assert (joints <= np.array(figures.SIZE) - 2).all()
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_limbs_are_drawn_where_the_joints_are() -> None:
    """Of many figures of one pose, what they share is the figure: the ground averages out."""
    joints = figures.posed(np.random.default_rng(1))
    seen = [figures.drawn(joints, np.random.default_rng(n)).astype(float) for n in range(60)]
    hue = cv2.cvtColor(np.mean(seen, 0).astype(np.uint8), cv2.COLOR_RGB2HSV)[..., 1].astype(float)
    middles = np.array([(joints[a] + joints[b]) / 2 for a, b in figures.BONES])
    on = [hue[round(y), round(x)] for x, y in middles]
    assert np.median(on) > 2 * np.median(hue)


def test_targets_are_decoded_to_the_joints() -> None:
    """Maps and decoding share one convention: a parabola on the logarithm of a Gaussian is exact.

    On the outer two cells the decoder does not refine: half a cell, 2 px.
    """
    _, joints = figures.figures(8, 5)
    points, scores = codecs.decode(figures.targets(joints), figures.spec(figures.NETS[0]))
    inside = (np.array(figures.SIZE) - 11 > joints).all(2) & (joints > 10).all(2)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(points[inside], joints[inside], atol=0.1)
    np.testing.assert_allclose(points, joints, atol=2.1)
    assert (scores[inside] > 0.7).all()


def test_sides_are_mirror_pairs() -> None:
    skeleton = figures.skeleton()
    for joint, other in enumerate(skeleton.mirror):
        names = skeleton.keypoints[joint], skeleton.keypoints[other]
        assert names[0].replace("right", "left") == names[1].replace("right", "left")
        assert (joint == other) == (joint < len(figures.NAMES))


@pytest.mark.parametrize("name", figures.NETS)
def test_a_network_takes_the_pictures_and_gives_the_specs_maps(name: str) -> None:
    pictures, joints = figures.figures(2, 0)
    with torch.no_grad():
        maps = figures.blank(name).eval()(figures.normalised(pictures))
    assert maps.shape == figures.targets(joints).shape


def loss(net: nn.Module) -> float:
    pictures, joints = figures.figures(8, 1)
    wanted = torch.from_numpy(figures.targets(joints))
    with torch.no_grad():
        given = net(figures.normalised(pictures))
    return float(((given - wanted) ** 2 * (1 + 10 * wanted)).mean())


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_training_lowers_the_loss(torch_as_it_was: None) -> None:
    """On figures that it did not see; a network of two layers finds limbs' colours at least."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 7, 4, 3), nn.ReLU(), nn.Conv2d(24, 13, 5, padding=2))
    before = loss(net)
    figures.learn(net, steps=60, batch=4, seed=0)
    assert not net.training
    assert loss(net) < 0.9 * before


def test_a_trained_network_is_kept_and_read_again(
    torch_as_it_was: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network, steps, batch and seed name the file; weights are such as a bundle stores."""
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    settings = {"steps": 2, "batch": 2}
    net = figures.trained("simple-baseline-r18", **settings)
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    again = figures.trained("simple-baseline-r18", **settings)
    assert file.stat().st_mtime_ns == made
    for first, second in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    for value in net.state_dict().values():
        assert torch.equal(value, value.half().to(value.dtype))
    figures.trained("simple-baseline-r18", **settings, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_precision_tells_which_rows_were_not_run() -> None:
    """Each network of the plan has a line: its figures, or that there are none."""
    folders = [str(ROOT / folder) for folder in (".", "engines", "finetune", "benchmarks")]
    run = subprocess.run(
        [sys.executable, "benchmarks/precision.py", "--rows"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    for name in (
        "movenet-lightning",
        "movenet-thunder",
        "simple-baseline-r18, 64x96",
        "hrnet-w8, 64x96",
        "simple-baseline-r50, 192x256",
        "hrnet-w32, 192x256",
        "vitpose-s-classic, 192x256",
    ):
        assert re.search(rf"^{name} +(fp32 .* MB|not run)", run.stdout, re.MULTILINE), name
    assert re.search(r"^VNNI: (yes|no)", run.stdout, re.MULTILINE)
