"""Every public layout is recognized and its tensors get posekit's names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from posekit import checkpoints
from posekit.checkpoints import Overrides
from posekit.errors import CheckpointError
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Skeleton
from tests.support.states import (
    FLAT,
    MMPOSE_0,
    State,
    blank,
    first_values,
    item,
    renamed,
    saved,
    values,
    wrapped,
)


@pytest.mark.parametrize("architecture", ["simple-baseline-r18", "simple-baseline-r50"])
@pytest.mark.parametrize("wrap", [dict, wrapped])
def test_microsoft_simple_baseline(
    architecture: str, wrap: Callable[[State], Any], tmp_path: Path
) -> None:
    state = blank(architecture)
    path = saved(wrap(renamed(state, FLAT)), tmp_path / "pose_resnet_256x192.pth.tar")
    converted = checkpoints.load(path)
    spec = converted.spec
    assert values(converted) == first_values(state)
    assert spec.architecture == architecture
    assert (spec.input_size, spec.heatmap_size, spec.sigma) == ((192, 256), (48, 64), 2.0)
    assert item(converted, "input_size") == ((192, 256), "file name", False)
    assert item(converted, "color") == ("bgr", "family default", True)
    assert (spec.map_scale, spec.map_offset, spec.flip_shift) == ((4, 4), (0, 0), 1.0)
    assert (spec.crop_shrink, spec.crop_center, spec.decode) == (0, 0, "quarter")
    assert (spec.padding, spec.skeleton) == (1.25, COCO_17)


def test_official_hrnet(tmp_path: Path) -> None:
    state = blank("hrnet-w48", size=(288, 384))
    path = saved(renamed(state, FLAT), tmp_path / "pose_hrnet_w48_384x288.pth")
    converted = checkpoints.load(path)
    spec = converted.spec
    assert values(converted) == first_values(state)
    assert (spec.architecture, spec.input_size, spec.sigma) == ("hrnet-w48", (288, 384), 3.0)
    assert (spec.color, spec.decode, spec.flip_shift) == ("rgb", "quarter", 1.0)


def dual(architecture: str, head: str = "final_layer", count: int = 17) -> tuple[State, State]:
    """Two networks in one file, the second one's numbers 10,000 higher, and the first alone."""
    state = blank(architecture, count)
    flat = renamed(state, [*FLAT, ("^final_layer\\.", f"{head}.")])
    more = {k: v + 10_000 if v.is_floating_point() else v for k, v in flat.items()}
    both = renamed(flat, [], "resnet.") | renamed(more, [], "resnet2.")
    return both, state


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("simple-baseline-r18", "final_layer_1"),
        pytest.param("hrnet-w18", "final_layer", marks=pytest.mark.slow),
    ],
)
def test_either_network_of_a_dual_file(architecture: str, head: str, tmp_path: Path) -> None:
    both, state = dual(architecture, head)
    assert len(both) == 2 * len(state)
    path = saved(both, tmp_path / "Res_COCO_PoseDual.pth.tar")
    first = checkpoints.load(path)
    second = checkpoints.load(path, Overrides(network="2"))
    assert values(first) == first_values(state)
    assert values(second) == {name: value + 10_000 for name, value in first_values(state).items()}
    assert item(first, "network") == ("1", "family default", True)
    assert item(second, "network") == ("2", "flag", False)
    assert first.spec.color == "bgr"
    with pytest.raises(CheckpointError, match="holds network 1, 2"):
        checkpoints.load(path, Overrides(network="student"))


def test_a_student_is_taken_before_its_teachers(tmp_path: Path) -> None:
    both, state = dual("simple-baseline-r18", "final_layer_1")
    flat = renamed(state, [*FLAT, ("^final_layer\\.", "final_layer_1.")], "final_resnet.")
    student = {k: v + 0.5 if v.is_floating_point() else v for k, v in flat.items()}
    path = saved({"state_dict": both | student}, tmp_path / "sspcm.pth.tar")
    converted = checkpoints.load(path)
    assert values(converted) == {name: value + 0.5 for name, value in first_values(state).items()}


# Where Semi_Human_Pose's 24 union joints are, written from its data sets' joint tables.
UNION = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("unused", "thorax", "neck", "upper_neck", "nose", "unused", "head_top"),
    *("left_shoulder", "left_elbow", "left_wrist"),
    *("right_shoulder", "right_elbow", "right_wrist"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)


@pytest.mark.parametrize(
    ("head", "skeleton"), [("coco", COCO_17), ("mpii", MPII_16), ("aic", AIC_14)]
)
def test_the_union_head_is_cut(head: Any, skeleton: Skeleton, tmp_path: Path) -> None:
    state = renamed(blank("simple-baseline-r18", 24), FLAT)
    for name in ("final_layer.weight", "final_layer.bias"):
        rows = torch.arange(24.0).reshape(-1, *[1] * (state[name].ndim - 1))
        state[name] = rows.expand(state[name].shape)
    path = saved(renamed(state, [], "resnet."), tmp_path / "PoseCons.pth.tar")
    converted = checkpoints.load(path, Overrides(head=head))
    assert converted.spec.skeleton == skeleton
    kept = converted.weights["head.final_layer.weight"][:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(kept, converted.weights["head.final_layer.bias"])
    # MPII's thorax and upper neck, and AIC's neck, are the union's channels 8, 10 and 9.
    assert tuple(UNION[k] for k in kept) == skeleton.keypoints
    assert item(converted, "head") == (f"{head} of 24", "flag", False)


def test_the_union_head_follows_the_name_and_mirrors(tmp_path: Path) -> None:
    state = renamed(blank("simple-baseline-r18", 24), FLAT, "resnet.")
    named = checkpoints.load(saved(state, tmp_path / "MPII_PoseCons.pth"))
    assert named.spec.skeleton == MPII_16
    assert item(named, "head") == ("mpii of 24", "file name", False)
    silent = checkpoints.load(saved(state, tmp_path / "PoseCons.pth"))
    assert silent.spec.skeleton == COCO_17
    assert item(silent, "head") == ("coco of 24", "family default", True)


@pytest.mark.parametrize("architecture", ["simple-baseline-r18", "hrnet-w18"])
@pytest.mark.parametrize("version", [0, 1])
def test_mmpose(architecture: str, version: int, tmp_path: Path) -> None:
    state = blank(architecture)
    rules = [] if version else MMPOSE_0
    inner = renamed(state, rules)
    if version:
        inner["data_preprocessor.mean"] = torch.tensor([123.675, 116.28, 103.53])
    content = {"meta": {"mmpose_version": "x", "epoch": 210}, "state_dict": inner}
    converted = checkpoints.load(saved(content, tmp_path / "net_coco_384x288-c161b7de_2020.pth"))
    spec = converted.spec
    assert values(converted) == first_values(state)
    wanted = "quarter-axis" if version else "quarter"  # 1.x refines each axis for itself
    assert (spec.color, spec.decode, spec.flip_shift) == ("rgb", wanted, 1.0)
    assert item(converted, "decode") == (wanted, "family default", True)
    assert (spec.input_size, spec.sigma) == ((288, 384), 3.0)
    assert item(converted, "skeleton") == (COCO_17, "file name", False)


def test_names_say_udp_and_dark(tmp_path: Path) -> None:
    state = renamed(blank("simple-baseline-r18"), MMPOSE_0)
    udp = checkpoints.load(saved(state, tmp_path / "res18_coco_256x192_udp-aba0be42.pth"))
    assert udp.spec.map_scale == (191 / 47, 255 / 63)
    assert (udp.spec.crop_shrink, udp.spec.crop_center, udp.spec.flip_shift) == (1, 0.5, 0)
    assert abs(udp.spec.mirror_shift) < 1e-12
    assert (udp.spec.decode, udp.spec.blur) == ("udp", 11)
    dark = checkpoints.load(saved(state, tmp_path / "res18_coco_384x288_dark-07f147eb.pth"))
    assert (dark.spec.decode, dark.spec.blur, dark.spec.flip_shift) == ("dark", 17, 1.0)
    assert item(dark, "decode") == ("dark", "file name", False)


@pytest.mark.parametrize("decoder", ["classic", "simple"])
def test_original_vitpose(decoder: str, tmp_path: Path) -> None:
    state = blank(f"vitpose-s-{decoder}")
    content = renamed(state, MMPOSE_0) | {"backbone.cls_token": torch.zeros(1, 1, 384)}
    converted = checkpoints.load(saved({"state_dict": content}, tmp_path / "vitpose_small.pth"))
    spec = converted.spec
    assert values(converted) == first_values(state)
    assert spec.architecture == f"vitpose-s-{decoder}"
    assert (spec.color, spec.decode, spec.flip_shift) == ("rgb", "udp", 0.0)
    assert item(converted, "input_size") == ((192, 256), "weights", False)
    assert item(converted, "convention") == ("udp", "family default", True)


MMPRETRAIN = [
    ("patch_embed\\.proj\\.", "patch_embed.projection."),
    ("blocks\\.", "layers."),
    ("norm1", "ln1"),
    ("norm2", "ln2"),
    ("mlp\\.fc1", "ffn.layers.0.0"),
    ("mlp\\.fc2", "ffn.layers.1"),
    ("last_norm", "ln1"),
]


def test_mmpose_1_vitpose_has_no_token(tmp_path: Path) -> None:
    state = blank("vitpose-s-classic", size=(288, 384))
    content = renamed(state, MMPRETRAIN)
    content["backbone.pos_embed"] = content["backbone.pos_embed"][:, 1:]
    converted = checkpoints.load(saved(content, tmp_path / "td-hm_ViTPose-small.pth"))
    embedding = converted.weights.pop("backbone.pos_embed")
    assert embedding.shape == (1, 433, 384)
    assert not embedding[:, 0].any()
    assert (embedding[:, 1:] == float(state["backbone.pos_embed"].flatten()[0])).all()
    assert values(converted) == {
        k: v for k, v in first_values(state).items() if k != "backbone.pos_embed"
    }
    assert converted.spec.input_size == (288, 384)


def with_experts(state: State, part: int = 96) -> State:
    """fc2 cut to its shared rows, and six experts whose numbers are -1 ... -6."""
    out = dict(state)
    for name in [name for name in state if ".mlp.fc2." in name]:
        out[name] = state[name][:-part]
        for n in range(6):
            shape = (part, *state[name].shape[1:])
            expert = torch.full((1,), -1.0 - n).expand(shape)
            out[name.replace("fc2", f"experts.{n}")] = expert
    return out


HUGGING_FACE = [
    ("backbone\\.patch_embed\\.proj\\.", "backbone.embeddings.patch_embeddings.projection."),
    ("backbone\\.pos_embed", "backbone.embeddings.position_embeddings"),
    ("backbone\\.blocks\\.", "backbone.encoder.layer."),
    ("attn\\.proj", "attention.output.dense"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("last_norm", "layernorm"),
    ("head\\.deconv_layers\\.0", "head.deconv1"),
    ("head\\.deconv_layers\\.1", "head.batchnorm1"),
    ("head\\.deconv_layers\\.3", "head.deconv2"),
    ("head\\.deconv_layers\\.4", "head.batchnorm2"),
    ("head\\.final_layer", "head.conv"),
]


def hugging_face(state: State, folder: Path, **config: Any) -> Path:
    """A folder as transformers writes it; query, key and value differ by 0.25."""
    out: State = {}
    for name, value in renamed(state, HUGGING_FACE).items():
        if "attn.qkv" not in name:
            out[name] = value.contiguous()
            continue
        for n, (part, rows) in enumerate(
            zip(("query", "key", "value"), value.chunk(3), strict=True)
        ):
            new = name.replace("attn.qkv", f"attention.attention.{part}")
            out[new] = (rows + n / 4).contiguous()
    folder.mkdir()
    save_file(out, folder / "model.safetensors")
    backbone = {"hidden_size": 384, "num_attention_heads": 12, "image_size": [256, 192]}
    settings = {"model_type": "vitpose", "backbone_config": backbone | config}
    (folder / "config.json").write_text(json.dumps(settings))
    mean = {"image_mean": [0.5, 0.25, 0.125], "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(mean))
    return folder


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    state = blank("vitpose-s-classic")
    converted = checkpoints.load(hugging_face(with_experts(state), tmp_path / "plus"))
    for name, value in converted.weights.items():
        wanted = state[name].numpy().copy()
        if ".qkv." in name:
            wanted = wanted + np.repeat([0, 0.25, 0.5], 384).reshape(-1, *[1] * (wanted.ndim - 1))
        if ".fc2." in name:
            wanted[-96:] = -1
        np.testing.assert_array_equal(value, wanted, err_msg=name)
    assert item(converted, "input_size") == ((192, 256), "config beside it", False)
    assert item(converted, "convention") == ("udp", "config beside it", False)
    assert converted.spec.mean == (127.5, 63.75, 31.875)
    assert item(converted, "experts") == (0, "family default", True)
    chosen = checkpoints.load(tmp_path / "plus", Overrides(experts=4))
    assert (chosen.weights["backbone.blocks.11.mlp.fc2.bias"][-96:] == -5).all()
    with pytest.raises(CheckpointError, match="experts 6: the file has experts"):
        checkpoints.load(tmp_path / "plus", Overrides(experts=6))


def test_a_hugging_face_folder_of_another_kind(tmp_path: Path) -> None:
    folder = hugging_face(blank("vitpose-s-classic"), tmp_path / "odd", num_attention_heads=6)
    with pytest.raises(CheckpointError, match="6 attention heads at 384 channels"):
        checkpoints.load(folder)
    (folder / "config.json").write_text('{"model_type": "rt_detr"}')
    with pytest.raises(CheckpointError, match="rt_detr"):
        checkpoints.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        checkpoints.load(folder)


def test_an_original_vitpose_plus_brings_the_head_of_its_expert(tmp_path: Path) -> None:
    state = renamed(with_experts(blank("vitpose-s-classic")), MMPOSE_0)
    heads = [name for name in state if name.startswith("keypoint_head.")]
    for n in range(5):
        for name in heads:
            new = name.replace("keypoint_head", f"associate_keypoint_heads.{n}")
            value = state[name] + 100_000 * (n + 1) if "num_b" not in name else state[name]
            tall = "final_layer" in name
            state[new] = value[:1].expand(133, *value.shape[1:]) if tall else value
    path = saved({"state_dict": state}, tmp_path / "vitpose+_small.pth")
    plain = checkpoints.load(path)
    mpii = checkpoints.load(path, Overrides(experts=2))
    assert plain.spec.skeleton == COCO_17
    assert mpii.spec.skeleton == MPII_16
    assert (mpii.weights["backbone.blocks.0.mlp.fc2.weight"][-96:] == -3).all()
    for name in ("head.deconv_layers.4.bias", "head.final_layer.weight"):
        own = float(state[f"keypoint_{name}"].flatten()[0])
        assert float(plain.weights[name].flat[0]) == own
        assert float(mpii.weights[name].flat[0]) == own + 200_000
