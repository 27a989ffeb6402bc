"""Whatever a trainer wrapped the weights in: which ones are taken is a choice that is printed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from posekit import checkpoints
from posekit.checkpoints import Overrides
from posekit.errors import CheckpointError
from tests.support.states import FLAT, State, blank, first_values, item, renamed, saved, values

Wrap = Callable[[State], Any]


@pytest.fixture(scope="module")
def flat() -> State:
    return renamed(blank("simple-baseline-r18"), FLAT)


WANTED = first_values(blank("simple-baseline-r18"))


def prefixed(state: State, *prefixes: str) -> State:
    for prefix in prefixes:
        state = {f"{prefix}{name}": value for name, value in state.items()}
    return state


def more(state: State, by: float) -> State:
    return {k: v + by if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"pytorch-lightning_version": "2.4.0", "state_dict": prefixed(s, "model.")},
        lambda s: {"state_dict": {**prefixed(s, "net."), "loss.weight": torch.ones(3)}},
        lambda s: prefixed(s, "_orig_mod."),
        lambda s: prefixed(s, "module.", "module."),
        lambda s: prefixed(s, "_orig_mod.", "module.", "model.net."),
        lambda s: {"epoch": 3, "net_params": {"generator": s}, "optimizer": {"state": {0: {}}}},
        lambda s: {**s, "epoch": 3, "best_accuracy": 0.7},
        lambda s: {f"layer1.module.{k[7:]}" if k.startswith("layer1.") else k: s[k] for k in s},
    ],
)
def test_wrappers_are_stripped_wherever_they_stand(wrap: Wrap, flat: State, tmp_path: Path) -> None:
    converted = checkpoints.load(saved(wrap(flat), tmp_path / "net.pth"))
    assert values(converted) == WANTED
    assert not [each for each in converted.items if each.name == "weights"]


def test_a_layout_with_its_own_prefixes_is_unwrapped_too(tmp_path: Path) -> None:
    """mmpose's backbone. and head. are its layout's; only what stands before them goes."""
    state = blank("vitpose-s-simple")
    content = {"state_dict": prefixed(renamed(state, [("^head\\.", "keypoint_head.")]), "model.")}
    converted = checkpoints.load(saved(content, tmp_path / "net.ckpt"))
    assert values(converted) == first_values(state)


@pytest.mark.parametrize(
    ("wrap", "usual", "other"),
    [
        (lambda s: {"state_dict_ema": more(s, 1), "state_dict": s}, "state_dict", "state_dict_ema"),
        (lambda s: {"model": s, "model_ema": more(s, 1)}, "model", "model_ema"),
        (
            lambda s: {
                "state_dict": s,
                "ema_state_dict": {"steps": torch.tensor(3), **prefixed(more(s, 1), "module.")},
            },
            "state_dict",
            "ema_state_dict",
        ),
        (
            lambda s: {"student": s, "teacher": more(s, 1)},
            "student",
            "teacher",
        ),
        (
            lambda s: prefixed(s, "model.") | prefixed(more(s, 1), "ema_model."),
            "tensors.model",
            "tensors.ema_model",
        ),
    ],
)
def test_of_several_sets_the_choice_is_an_item_and_a_flag(
    wrap: Wrap, usual: str, other: str, flat: State, tmp_path: Path
) -> None:
    path = saved(wrap(flat), tmp_path / "net.pth")
    first = checkpoints.load(path)
    assert values(first) == WANTED
    value, source, assumed = item(first, "weights")
    assert value.startswith(f"{usual};")
    assert other in value
    assert (source, assumed) == ("family default", True)
    second = checkpoints.load(path, Overrides(weights=other))
    assert values(second) == {name: value + 1 for name, value in WANTED.items()}
    assert item(second, "weights")[1:] == ("flag", False)
    with pytest.raises(CheckpointError, match=f"--weights other: the file holds {usual}, {other}"):
        checkpoints.load(path, Overrides(weights="other"))


def test_averages_under_flat_names_are_a_set_of_their_own(flat: State, tmp_path: Path) -> None:
    """As mmcv's EMAHook writes parameters; buffers have no average and come from the plain set."""
    averages = {f"ema_{k.replace('.', '_')}": v + 1 for k, v in flat.items() if "running" not in k}
    averages = {k: v for k, v in averages.items() if "num_batches" not in k}
    path = saved({"meta": {}, "state_dict": {**flat, **averages}}, tmp_path / "net.pth")
    assert values(checkpoints.load(path)) == WANTED
    found = values(checkpoints.load(path, Overrides(weights="state_dict.ema")))
    assert found == {k: v + ("running" not in k) for k, v in WANTED.items()}


def test_counters_of_other_tools_are_left_out_and_named(flat: State, tmp_path: Path) -> None:
    extra = {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}
    converted = checkpoints.load(saved(flat | extra, tmp_path / "net.pth"))
    assert values(converted) == WANTED
    assert item(converted, "left out")[0] == (
        "2 tensors of no layer: total_ops, layer1.0.total_params"
    )


def test_other_surplus_tensors_are_still_refused(flat: State, tmp_path: Path) -> None:
    path = saved({**flat, "layer4.0.extra": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"surplus tensor layer4\.0\.extra"):
        checkpoints.load(path)


def test_names_that_become_one_are_refused(flat: State, tmp_path: Path) -> None:
    path = saved({**flat, "module.conv1.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"both with and without `module\.`"):
        checkpoints.load(path)


@pytest.mark.parametrize("name", ["net.pth", "net.bin", "net"])
def test_a_safetensors_file_is_known_by_its_bytes(name: str, flat: State, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file({k: v.contiguous() for k, v in flat.items()}, path, metadata={"format": "pt"})
    assert values(checkpoints.load(path)) == WANTED


@pytest.mark.parametrize("first", [b"<", b"{", b" "])
def test_a_header_s_length_is_no_text(first: bytes, flat: State, tmp_path: Path) -> None:
    """The first byte is the header's length, which may be that of a letter."""
    path = tmp_path / "net.safetensors"
    save_file({k: v.contiguous() for k, v in flat.items()}, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    padding = (first[0] - size) % 256
    header = (size + padding).to_bytes(8, "little") + data[8 : 8 + size] + b" " * padding
    path.write_bytes(header + data[8 + size :])
    assert path.read_bytes()[:1] == first
    assert values(checkpoints.load(path)) == WANTED


def test_a_pytorch_file_under_the_name_of_another_is_read(flat: State, tmp_path: Path) -> None:
    assert values(checkpoints.load(saved(flat, tmp_path / "net.safetensors"))) == WANTED


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(4).to_sparse(), "is sparse_coo"),
        (torch.ones(3, dtype=torch.complex64).conj(), "complex64"),
        (torch.empty(3, device="meta"), "on meta"),
        (torch.ones(1).expand(1 << 20, 1 << 20), "values; no network here has as many"),
        (torch.ones(1).expand(1 << 14, 1 << 14), "values; no layer here has as many"),
        (torch.tensor(3.0), "a single number"),
    ],
)
def test_what_is_no_dense_tensor_is_refused_before_it_takes_memory(
    tensor: torch.Tensor, message: str, flat: State, tmp_path: Path
) -> None:
    path = saved({**flat, "conv1.weight": tensor}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(path)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(
    flat: State, tmp_path: Path
) -> None:
    path = saved(flat, tmp_path / "net.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoints.load(path)


def _hidden_directory(data: bytes) -> bytes:
    """A second directory before the one that stands where it should: torch reads the first."""
    start = int.from_bytes(data[-6:-2], "little")
    return data[:-98] + data[start:-98] + data[-98:-22] + data[-22:]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"x" * 69_000,  # beyond what Python searches, not what torch does
        lambda data: data + b"x",
        lambda data: data[:-98] + b"x" * 46 + data[-98:],
        _hidden_directory,
    ],
)
def test_a_zip_that_python_and_torch_read_differently_is_refused(
    change: Callable[[bytes], bytes], flat: State, tmp_path: Path
) -> None:
    path = saved(flat, tmp_path / "net.pth")
    path.write_bytes(change(path.read_bytes()))
    assert torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=r"net\.pth: damaged"):
        checkpoints.load(path)


def test_weights_of_mismatched_widths_are_one_sentence(tmp_path: Path) -> None:
    state = blank("vitpose-s-simple")
    rules = [("\\.attn\\.qkv\\.", ".attention.attention.query.")]
    names = renamed(state, [("^backbone\\.blocks", "backbone.encoder.layer"), *rules])
    names["backbone.embeddings.position_embeddings"] = names.pop("backbone.pos_embed")
    for name in [name for name in names if ".query.weight" in name]:
        names[name.replace("query", "key")] = torch.ones(3, 5)
        names[name.replace("query", "value")] = torch.ones(3, 5)
    with pytest.raises(CheckpointError, match="do not fit together"):
        checkpoints.load(saved(names, tmp_path / "net.pth"))
