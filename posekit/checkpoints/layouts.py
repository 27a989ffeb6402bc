"""From the names that others gave their tensors to posekit's own: `backbone.` and `head.`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posekit.checkpoints import movenet
from posekit.checkpoints.files import State
from posekit.checkpoints.resolve import Family, ResolvedField, Source
from posekit.errors import CheckpointError
from posekit.nets import ARCHITECTURES
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Skeleton

Network = Literal["1", "2", "student"]
Head = Literal["coco", "mpii", "aic"]
Names = tuple[tuple[str, str], ...]

_FLAT: Names = (
    (r"^final_layer(_1)?\.", "head.final_layer."),
    (r"^deconv_layers\.", "head.deconv_layers."),
    (r"^(?!head\.)", "backbone."),
)
_MMPOSE_0: Names = ((r"^keypoint_head\.", "head."),)
_MMPOSE_1: Names = (
    (r"^backbone\.patch_embed\.projection\.", "backbone.patch_embed.proj."),
    (r"^backbone\.ln1\.", "backbone.last_norm."),
    (r"^backbone\.layers\.", "backbone.blocks."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_HUGGING_FACE: Names = (
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "backbone.patch_embed.proj."),
    (r"^backbone\.embeddings\.position_embeddings$", "backbone.pos_embed"),
    (r"^backbone\.layernorm\.", "backbone.last_norm."),
    (r"^backbone\.encoder\.layer\.", "backbone.blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^head\.deconv1\.", "head.deconv_layers.0."),
    (r"^head\.batchnorm1\.", "head.deconv_layers.1."),
    (r"^head\.deconv2\.", "head.deconv_layers.3."),
    (r"^head\.batchnorm2\.", "head.deconv_layers.4."),
    (r"^head\.conv\.", "head.final_layer."),
)
# Tensors of other parts of the program, and a class token that ViTPose never uses.
_DROPPED = re.compile(r"data_preprocessor\.|associate_heads\.|backbone\.cls_token$")

# YOLO numbers its layers; YOLOX has three kinds of prediction.
_DETECTOR = re.compile(r"\.anchor_generator\.|^(model\.)*\d+\.|^head\.(cls|reg|obj)_preds\.")

_NETWORKS: dict[Network, str] = {"student": "final_resnet.", "1": "resnet.", "2": "resnet2."}
# Channels of Semi_Human_Pose's 24-joint head that make up each data set's skeleton.
UNION: dict[Head, tuple[Skeleton, tuple[int, ...]]] = {
    "coco": (COCO_17, (11, 21, 20, 23, 22, 14, 17, 15, 18, 16, 19, 4, 1, 5, 2, 6, 3)),
    "mpii": (MPII_16, (3, 2, 1, 4, 5, 6, 0, 8, 10, 13, 19, 18, 17, 14, 15, 16)),
    "aic": (AIC_14, (17, 18, 19, 14, 15, 16, 1, 2, 3, 4, 5, 6, 13, 9)),
}
# Keypoints of ViTPose++'s data sets: COCO, AIC, MPII, AP-10K, APT-36K, COCO-WholeBody.
_EXPERT_JOINTS = (17, 14, 16, 17, 17, 133)
_RESNETS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
_VITS = {384: "s", 768: "b", 1024: "l", 1280: "h"}
_COUNTER = "num_batches_tracked"
_FINAL = ("head.final_layer.weight", "head.final_layer.bias")


@dataclass(frozen=True)
class Choice:
    """Which of several networks, heads or experts in one file; None: the usual one.

    insist: the head must be there to be cut.  head_source: who named it.
    """

    network: Network | None = None
    head: Head | None = None
    experts: int | None = None
    insist: bool = False
    head_source: Source = "flag"


@dataclass(frozen=True, eq=False)
class Canonical:
    """Tensors under posekit's names; `origin` gives the file's own name of each.

    skeleton: where a cut of the head decides it.
    """

    layout: str
    family: Family
    state: State
    origin: dict[str, str]
    items: list[ResolvedField] = field(default_factory=list)
    skeleton: Skeleton | None = None


def canonical(state: State, choice: Choice) -> Canonical:
    """Recognize the layout by its names and give the tensors ours. Raises CheckpointError."""
    single = [name for name, value in state.items() if not (value.ndim or name.endswith(_COUNTER))]
    if single:
        raise CheckpointError(f"{single[0]}: a single number; no layer has such weights")
    if movenet.is_one(state):
        return Canonical("MoveNet (tfjs)", "movenet", *movenet.canonical(state))
    layout, family, rules = _recognize(state)
    items = [ResolvedField("layout", layout, "weights")]
    prefix = ""
    if family == "semi":
        prefix, item = _network(state, choice.network)
        items += item
    elif choice.network:
        raise CheckpointError(f"--network {choice.network}: a {layout} file holds one network")
    renamed, origin = _renamed(state, prefix, rules)
    if family in ("vitpose", "hugging face"):
        items += _merge_experts(renamed, choice.experts)
        _merge_qkv(renamed)
        _add_token(renamed, missing=rules is _MMPOSE_1 and "backbone.ln1.weight" in state)
    elif choice.experts is not None:
        raise CheckpointError(f"--experts: a {layout} file has none")
    skeleton = _cut_union(renamed, items, family, choice=choice)
    return Canonical(layout, family, renamed, origin, items, skeleton)


def is_known(names: Collection[str]) -> bool:
    """Whether tensors of these names are those of a network that posekit knows."""
    try:
        return movenet.is_one(names) or bool(_recognize(names))
    except CheckpointError:
        return False


def _recognize(tensors: Collection[str]) -> tuple[str, Family, Names]:
    """The layout's label, its family and its renaming rules. Raises CheckpointError."""
    names, starts = set(tensors), {name.partition(".")[0] for name in tensors}
    _refuse_others(names, starts)
    transformer = "backbone.pos_embed" in names
    if any(name.startswith("backbone.embeddings.") for name in names):
        return "Hugging Face VitPose", "hugging face", _HUGGING_FACE
    if starts & {"resnet", "resnet2", "final_resnet"}:
        return "Semi_Human_Pose", "semi", _FLAT
    if {"backbone", "keypoint_head"} <= starts:
        label = "ViTPose (mmpose 0.x)" if transformer else "mmpose 0.x"
        return label, "vitpose" if transformer else "mmpose", _MMPOSE_0
    if {"backbone", "head"} <= starts:
        return "mmpose 1.x", "vitpose" if transformer else "mmpose 1.x", _MMPOSE_1
    if "final_layer.weight" in names and "transition1" in starts:
        return "official HRNet", "hrnet", _FLAT
    if {"conv1", "layer4", "deconv_layers"} <= starts:
        return "Microsoft SimpleBaseline", "simple-baseline", _FLAT
    shown = ", ".join(sorted(names)[:3])
    raise CheckpointError(
        f"{len(names)} tensors of no layout that posekit knows (such as {shown}); known are "
        "SimpleBaseline, HRNet, Semi_Human_Pose, mmpose and ViTPose top-down heatmap networks"
    )


def _refuse_others(names: set[str], starts: set[str]) -> None:
    """CheckpointError for detectors, classifiers and heads that give no heatmaps."""
    boxes = {"bbox_head", "rpn_head", "roi_head", "rpn", "roi_heads", "box_head", "bbox_embed"}
    if starts & boxes or any(_DETECTOR.search(name) for name in names):
        raise CheckpointError("a detection model; wanted a top-down pose network with heatmaps")
    ends = {"fc", "classifier", "incre_modules", "heads"}
    classifier = ends & starts or {"head.weight", "head.fc.weight"} & names
    if classifier and not starts & {"deconv_layers", "keypoint_head", "resnet"}:
        raise CheckpointError(
            "an image classifier (an ImageNet file): it has no heatmap head; wanted a pose network"
        )


def _network(state: State, wanted: Network | None) -> tuple[str, list[ResolvedField]]:
    """The prefix of the network to take, and an item where there was a choice."""
    there = {
        name: prefix
        for name, prefix in _NETWORKS.items()
        if any(key.startswith(prefix) for key in state)
    }
    if wanted is not None and wanted not in there:
        raise CheckpointError(f"--network {wanted}: the file holds network {', '.join(there)}")
    name = next(iter(there)) if wanted is None else wanted
    if len(there) == 1 and wanted is None:
        return there[name], []
    source: Source = "flag" if wanted else "family default"
    return there[name], [ResolvedField("network", name, source, assumed=wanted is None)]


def _renamed(state: State, prefix: str, rules: Names) -> tuple[State, dict[str, str]]:
    """Tensors under their new names, and the old name of each."""
    renamed: State = {}
    origin: dict[str, str] = {}
    for old, value in state.items():
        if not old.startswith(prefix) or _DROPPED.match(old):
            continue
        new = old[len(prefix) :]
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise CheckpointError(f"{old} and {origin[new]} are one and the same layer's")
        renamed[new], origin[new] = value, old
    return renamed, origin


def _merge_qkv(state: State) -> None:
    """Query, key and value as the one matrix of the original."""
    for query in [name for name in state if ".attn.query." in name]:
        parts = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            merged = _joined([state.pop(part) for part in parts], query)
            state[query.replace(".query.", ".qkv.")] = merged


def _joined(parts: list[NDArray[Any]], name: str) -> NDArray[Any]:
    """The rows of several tensors. Raises CheckpointError where they are of different widths."""
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise CheckpointError(f"{name}: shapes {shapes} do not fit together")
    return np.concatenate(parts)


def _add_token(state: State, *, missing: bool) -> None:
    """Put zeros where mmpose 1.x, which has no token 0, lacks its embedding."""
    embedding = state.get("backbone.pos_embed")
    if missing and embedding is not None and embedding.ndim == 3:
        first = np.zeros_like(embedding[:, :1])
        state["backbone.pos_embed"] = np.concatenate([first, embedding], 1)


def _merge_experts(state: State, wanted: int | None) -> list[ResolvedField]:
    """ViTPose++: the chosen expert's rows joined to the shared ones, the others dropped."""
    found = {int(m[1]) for name in state if (m := re.search(r"\.mlp\.experts\.(\d{1,3})\.", name))}
    if not found:
        if wanted is not None:
            raise CheckpointError("--experts: a plain ViTPose, not a ViTPose++")
        return []
    index = wanted or 0
    if index not in found:
        raise CheckpointError(f"--experts {index}: the file has experts {sorted(found)}")
    for name in [name for name in state if ".mlp.fc2." in name]:
        expert = state.get(name.replace(".fc2.", f".experts.{index}."))
        norm = state.get(name.split(".mlp.")[0] + ".norm1.weight")
        # The original's splitting program joins the rows and leaves the experts in the file.
        if expert is not None and norm is not None and len(state[name]) < len(norm):
            state[name] = _joined([state[name], expert], name)
    for name in [name for name in state if ".mlp.experts." in name]:
        del state[name]
    _choose_head(state, index)
    source: Source = "family default" if wanted is None else "flag"
    return [ResolvedField("experts", index, source, assumed=wanted is None)]


def _choose_head(state: State, index: int) -> None:
    """The head that goes with expert `index`, where the original file has one for each."""
    prefix = f"associate_keypoint_heads.{index - 1}."
    own = {name: state[name] for name in state if name.startswith(prefix)}
    for name in [name for name in state if name.startswith("associate_keypoint_heads.")]:
        del state[name]
    for name, value in own.items():
        new = "head." + name[len(prefix) :]
        joints = _EXPERT_JOINTS[index] if index < len(_EXPERT_JOINTS) else len(value)
        state[new] = value[:joints] if new in _FINAL else value


def _cut_union(
    state: State, items: list[ResolvedField], family: Family, *, choice: Choice
) -> Skeleton | None:
    """Cut Semi_Human_Pose's 24-joint head to one data set's joints."""
    weight = state.get(_FINAL[0])
    if family != "semi" or weight is None or len(weight) != 24:
        if choice.insist:
            raise CheckpointError(f"--head {choice.head}: the file has no 24-joint head to cut")
        return None
    name = choice.head or "coco"
    skeleton, channels = UNION[name]
    for key in _FINAL:
        if key in state and len(state[key]) == 24:
            state[key] = state[key][list(channels)]
    source: Source = choice.head_source if choice.head else "family default"
    items.append(ResolvedField("head", f"{name} of 24", source, assumed=choice.head is None))
    return skeleton


def architecture(state: State) -> str:
    """The network that canonical tensors belong to. Raises CheckpointError."""
    if (embedding := state.get("backbone.pos_embed")) is not None:
        decoder = "classic" if "head.deconv_layers.0.weight" in state else "simple"
        name = f"vitpose-{_VITS.get(embedding.shape[-1], embedding.shape[-1])}-{decoder}"
    elif movenet.HEAD in state:
        name = movenet.architecture(state)
    elif (branch := state.get("backbone.stage2.0.branches.0.0.conv1.weight")) is not None:
        name = f"hrnet-w{len(branch)}"
    else:
        counts = tuple(_count(state, f"backbone.layer{n}.") for n in (1, 2, 3, 4))
        depth = _RESNETS.get((counts, "backbone.layer1.0.conv3.weight" in state))
        name = f"simple-baseline-r{depth or '?'}"
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"a network like {name}, which posekit does not have; known are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return name


def _count(names: Iterable[str], prefix: str) -> int:
    """How many numbered blocks there are under `prefix`."""
    return len({name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)})
