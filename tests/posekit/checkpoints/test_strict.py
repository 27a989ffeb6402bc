"""Loading is strict, runs nothing, and names what other files are."""

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posekit import checkpoints
from posekit.checkpoints import Overrides
from posekit.errors import CheckpointError
from tests.support.states import FLAT, State, blank, first_values, renamed, saved, values


def broken(change: Callable[[State], object], tmp_path: Path) -> Path:
    state = renamed(blank("simple-baseline-r18"), FLAT)
    change(state)
    return saved(state, tmp_path / "broken.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.0.bn1.bias"), r"missing tensor backbone\.layer2\.0\.bn1\.bias"),
        (lambda s: s.update(extra=torch.ones(1)), r"surplus tensor extra"),
        (lambda s: s.update({"conv1.weight": torch.ones(64, 3, 3, 3)}), r"conv1\.weight: shape"),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.nan)}), r"bn1\.bias: .*finite"),
        (lambda s: s.pop("final_layer.weight"), "no heatmaps"),
        (lambda s: s.update({"layer1.2.conv1.weight": torch.ones(1)}), "simple-baseline-r?"),
    ],
)
def test_loading_is_strict(change: Callable[[State], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(broken(change, tmp_path))


def test_only_the_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = renamed(blank("simple-baseline-r18"), FLAT)
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    converted = checkpoints.load(saved(old, tmp_path / "old.pth"))
    assert values(converted) == first_values(blank("simple-baseline-r18"))


def test_the_wrong_architecture_is_refused(tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="tensors are those of simple-baseline-r18"):
        checkpoints.load(path, Overrides(architecture="hrnet-w32"))
    with pytest.raises(CheckpointError, match="did you mean hrnet-w32"):
        checkpoints.load(path, Overrides(architecture="hrnet-w33"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Overrides(network="2"), "one network"),
        (Overrides(head="mpii"), "no 24-joint head"),
        (Overrides(experts=1), "experts"),
    ],
)
def test_a_choice_that_is_not_there(flags: Overrides, message: str, tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(path, flags)


class _Poison:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('ran', 'w').close()",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"conv1.weight": torch.ones(1)}, "hook": _Poison()}
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"calls exec.*runs no code.*where you trust"):
        checkpoints.load(path)
    path.write_bytes(pickle.dumps(_Poison()))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        checkpoints.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = saved({"state_dict": torch.nn.Linear(1, 1)}, tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="save its tensors alone"):
        checkpoints.load(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "cut.pth")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.pth: (damaged|is empty)"):
        checkpoints.load(path)


def test_a_zip_whose_directory_is_damaged_is_refused(tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "odd.pth")
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03", 1))
    with pytest.raises(
        CheckpointError, match=r"odd\.pth: damaged, or not a PyTorch file"
    ) as caught:
        checkpoints.load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("b.pth", b"<!DOCTYPE html><html></html>", "web page"),
        ("c.safetensors", b"\x08\0\0\0\0\0\0\0{}      garbage", "damaged"),
        ("d.onnx", b"\x08\x08", "exported graph"),
        ("e.posekit", b"PK", "bundle already"),
        ("f.pth", bytes(range(256)), "not a PyTorch file"),
        ("g.pth.tar", b"PK\x03\x04" + bytes(50), "not a PyTorch file"),
    ],
)
def test_other_files_are_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(tmp_path / name)


@pytest.mark.parametrize("url", ["https://example.org/x.pth", "hf://owner/name"])
def test_nothing_is_downloaded(url: str) -> None:
    for path in (url, Path(url)):
        with pytest.raises(CheckpointError, match="downloads nothing by itself"):
            checkpoints.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot be read: No such file"):
        checkpoints.load(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": 1, "conv1.weight": 1, "layer4.0.conv1.weight": 1}, "classifier"),
        ({"backbone.conv1.weight": 1, "bbox_head.cls.weight": 1}, "detection model"),
        ({"a": 1, "b": 1}, "no layout that posekit knows"),
        ({}, "got nothing"),
    ],
)
def test_other_networks_are_named(content: dict[str, int], message: str, tmp_path: Path) -> None:
    state = {name: torch.ones(1) for name in content}
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(saved(state, tmp_path / "net.pth"))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"a": 3}}, torch.ones(2)])
def test_what_is_not_a_state_dict_is_named(content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="state dict"):
        checkpoints.load(saved(content, tmp_path / "net.pth"))


@pytest.mark.usefixtures("_mmengine")
def test_training_logs_of_mmengine_do_no_harm(tmp_path: Path) -> None:
    """A class called mmengine...HistoryBuffer, as 1.x files hold, is replaced, not imported."""
    content = {"state_dict": blank("simple-baseline-r18"), "message_hub": [_Buffer()]}
    path = saved(content, tmp_path / "epoch_1.pth")
    assert path.read_bytes().count(b"mmengine.logging.history_buffer\nHistoryBuffer\n") == 1
    assert checkpoints.load(path).spec.architecture == "simple-baseline-r18"


class _Buffer:
    def __init__(self) -> None:
        self.history = np.array([0.5, 0.25])


_Buffer.__module__, _Buffer.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"


@pytest.fixture
def _mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pickle write _Buffer under mmengine's name; the reader never imports it."""
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[_Buffer.__module__].HistoryBuffer = _Buffer  # type: ignore[attr-defined]


def test_imagenet_backbones(tmp_path: Path) -> None:
    state = blank("hrnet-w18")
    flat = {k: v for k, v in renamed(state, FLAT).items() if not k.startswith("final_layer")}
    extra = ("classifier.weight", "incre_modules.0.x", "stage4.2.fuse_layers.1.0.0.0.weight")
    path = saved(flat | {name: torch.ones(1) for name in extra}, tmp_path / "hrnet_w18.pth")
    found = checkpoints.backbone(path, "hrnet-w18")
    wanted = {k: v for k, v in first_values(state).items() if k.startswith("backbone.")}
    assert {name: float(value.flat[0]) for name, value in found.items()} == wanted
    with pytest.raises(CheckpointError, match="shape"):
        checkpoints.backbone(path, "hrnet-w32")
