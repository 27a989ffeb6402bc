"""A model whose skeleton does not tell left from right is never averaged with its mirror image."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posekit
from posekit import api, skeletons
from posekit.bundle import Bundle
from posekit.checkpoints import Overrides
from posekit.diagnostics.verify import measure
from posekit.errors import InputError
from posekit.nets import build
from posekit.types import ModelSpec
from tests.support.processes import run
from tests.support.states import FLAT, joints, renamed, saved

SIDED = '["nose", "left_paw", "right_paw", "tail"]'
PLAIN = '["nose", "paw1", "paw2", "tail"]'


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    net = build(ModelSpec("simple-baseline-r18", (64, 64), (16, 16), joints(4)))
    path = tmp_path_factory.mktemp("animal") / "animal_64x64.pth"
    return Path(saved(renamed(dict(net.state_dict()), FLAT), path))


@pytest.fixture(scope="module")
def bundles(checkpoint: Path) -> dict[str, Path]:
    """Of the same weights: without mirror pairs, and with those that the names give."""
    made = {}
    for name, keypoints in (("plain", PLAIN), ("sided", SIDED)):
        file = checkpoint.with_name(f"{name}.toml")
        file.write_text(f"keypoints = {keypoints}\n")
        made[name] = checkpoint.with_name(f"{name}.posekit")
        code, out, err = run("convert", checkpoint, "-o", made[name], "--skeleton", file)
        assert code == 0, err
        made[f"{name}.txt"] = checkpoint.with_name(f"{name}.txt")
        made[f"{name}.txt"].write_text(out)
    return made


def test_convert_lists_what_the_file_leaves_out(bundles: dict[str, Path]) -> None:
    plain, sided = (bundles[f"{name}.txt"].read_text() for name in ("plain", "sided"))
    assert "mirror: not known, so the flip test is off (family default, assumed)" in plain
    assert "mirror: 1 pairs (names of keypoints, assumed)" in sided
    for text in (plain, sided):
        assert "sigmas: 0.06 each (family default, assumed)" in text
        assert "bones: 0 (family default, assumed)" in text
    assert set(Bundle.open(bundles["plain"]).graphs) == {"plain", "maps"}
    assert set(Bundle.open(bundles["sided"]).graphs) == {"flip", "plain", "maps"}


def test_what_a_file_states_is_not_assumed(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    text = 'mirror = [[1, 2]]\nsigmas = [0.1, 0.2, 0.2, 0.1]\nbones = [["nose", "tail"]]\n'
    file.write_text(f"keypoints = {PLAIN}\n{text}")
    skeleton, stated = skeletons.find(file), skeletons.stated(file)
    overrides = Overrides(skeleton=skeleton, skeleton_stated=stated)
    items = {
        each.name: each for each in api.convert(checkpoint, tmp_path / "x.posekit", overrides).items
    }
    assert [str(items[name]) for name in ("mirror", "sigmas", "bones")] == [
        "mirror: 1 pairs (flag)", "sigmas: 0.1 to 0.2 (flag)", "bones: 1 (flag)",
    ]  # fmt: skip


def test_it_runs_without_the_flip_test_and_says_so(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    image = np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)
    box = np.array([[5.0, 5, 110, 85]])
    plain = posekit.load(bundles["plain"], "cpu", 1)
    assert plain.runtime.flip is False
    assert any("flip test is off" in note for note in plain.runtime.notes)
    alone = posekit.load(bundles["sided"], "cpu", 1, flip=False)
    np.testing.assert_array_equal(plain(image, box).points, alone(image, box).points)
    both = posekit.load(bundles["sided"], "cpu", 1)
    assert both.runtime.flip
    assert not both.runtime.notes
    assert (both(image, box).scores != alone(image, box).scores).any()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    arguments = ("-m", bundles["plain"], "--boxes", "full", "-o", tmp_path / "out")
    code, out, err = run("infer", tmp_path / "a.png", *arguments)
    assert code == 0, err
    assert "flip off" in out
    assert "note: the flip test is off" in out


def test_it_is_verified_exported_and_run_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    found = measure(Bundle.open(bundles["plain"]))
    assert set(found) == {"plain", "maps"}
    assert all(parity is not None for parity in found.values())
    file = tmp_path / "x.onnx"
    code, out, err = run("export", bundles["plain"], "-o", file)
    assert code == 0, err
    assert "note: the flip test is off" in out
    report = json.loads((tmp_path / "x.onnx.parity.json").read_text("utf-8"))
    assert report["flip"] is False
    again = posekit.load(file, "cpu", 1)
    assert again.runtime.flip is False


def test_mirrored_views_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    options = posekit.EstimateOptions(views=8)
    with pytest.raises(InputError, match="some of them are mirrored, and the mirror pairs"):
        posekit.load(bundles["plain"], "cpu", 1, options=options)
    turned = posekit.load(bundles["plain"], "cpu", 1, options=posekit.EstimateOptions(views=4))
    image = np.zeros((64, 64, 3), np.uint8)
    assert turned(image, np.array([[0.0, 0, 63, 63]])).points.shape == (1, 4, 2)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="adapt learns from mirrored views"):
        posekit.adapt(bundles["plain"], tmp_path / "photos", tmp_path / "out.posekit")
