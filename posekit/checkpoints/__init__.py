"""Any public checkpoint of a top-down heatmap network -> (ModelSpec, weights), strictly.

The names and shapes of the tensors determine the layout, the network and its joints. The rest
comes from flags, a config beside the file or in it, the file's name, then the family's
default, in this order; each is a `ResolvedField` with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posekit.checkpoints import configs, files, layouts, movenet, weight_sets
from posekit.checkpoints.layouts import UNION, Canonical, Choice, Head, Network
from posekit.checkpoints.resolve import ResolvedField, Source, SpecHints, resolve
from posekit.errors import CheckpointError
from posekit.nets import build, check_name
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec

__all__ = ["Converted", "Overrides", "ResolvedField", "SpecHints", "backbone", "load"]

_OPTIONAL = "num_batches_tracked"  # old files lack it, and nothing but training uses it


@dataclass(frozen=True, kw_only=True)
class Overrides(SpecHints):
    """The user's own values, which come first; None: not given.

    weights: which of several sets in the file.  architecture: must agree with the tensors.
    network: of a dual file (1, 2 or student).  head: which joints of a 24-joint union head.
    experts: of a ViTPose++.  config: its path.
    """

    weights: str | None = None
    architecture: str | None = None
    network: Network | None = None
    head: Head | None = None
    experts: int | None = None
    config: Path | None = None


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted checkpoint: its spec, weights by posekit's names, and the source of each field.

    weights: the floating entries of the network's state dict, float32 or float16 as in the file.
    parity: of the bundle made of it, how far each graph deviates from the file's own weights.
    """

    spec: ModelSpec
    weights: dict[str, NDArray[Any]]
    items: tuple[ResolvedField, ...]
    parity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load(path: str | Path, overrides: Overrides = Overrides()) -> Converted:
    """Read, recognize and check a checkpoint; nothing in it is ever run.

    path: a PyTorch or safetensors file, MoveNet's tfjs .json, or a Hugging Face folder.
    Raises CheckpointError: unreadable, of an unknown layout, or a tensor that is missing,
    surplus, misshapen or not finite.
    """
    path = Path(path)
    checkpoint = files.read(path)
    config, hints = _sources(path, checkpoint.meta, overrides)
    try:
        chosen = weight_sets.choose(checkpoint.content, overrides.weights, layouts.is_known)
        found = layouts.canonical(files.arrays(chosen.tensors), _choice(overrides, hints))
        name = _architecture(found, overrides)
        converted = _converted(name, found, config=config, hints=hints)
        return replace(converted, items=(*chosen.items, *converted.items))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _sources(
    path: Path, meta: Mapping[str, Any], overrides: Overrides
) -> tuple[Path | None, dict[Source, SpecHints]]:
    """The config's path, and the hints of each source, in order of precedence."""
    config, beside = configs.find(path, overrides.config)
    inside = configs.mmpose(str(meta.get("cfg") or meta.get("config") or ""))
    data = meta.get("dataset_meta")
    if isinstance(data, dict) and (skeleton := configs.dataset(data).skeleton):
        inside = replace(inside, skeleton=skeleton)
    flags = SpecHints(**{f.name: getattr(overrides, f.name) for f in fields(SpecHints)})
    name = configs.from_name(path)
    return config, {
        "flag": flags,
        "config beside it": beside,
        "config in the file": inside,
        "file name": name,
    }


def _choice(overrides: Overrides, hints: Mapping[Source, SpecHints]) -> Choice:
    """The network, head and experts to take; a data set that a source names chooses the head."""
    head, source = overrides.head, next(iter(hints))
    heads = {skeleton.name: name for name, (skeleton, _) in UNION.items()}
    for where, one in hints.items():
        if head is None and one.skeleton is not None and one.skeleton.name in heads:
            head, source = heads[one.skeleton.name], where
    insist = overrides.head is not None
    return Choice(overrides.network, head, overrides.experts, insist, source)


def _architecture(found: Canonical, overrides: Overrides) -> str:
    """What the tensors are. Raises CheckpointError where --architecture differs."""
    name = layouts.architecture(found.state)
    wanted = overrides.architecture
    if wanted is not None and check_name(wanted) != name:
        raise CheckpointError(f"--architecture {wanted}: the tensors are those of {name}")
    return name


def _converted(
    name: str, found: Canonical, *, config: Path | None, hints: dict[Source, SpecHints]
) -> Converted:
    """The spec and the checked weights of canonical tensors. Raises CheckpointError."""
    final = found.state.get("head.final_layer.weight", found.state.get(movenet.HEAD))
    if final is None or final.ndim != 4:
        raise CheckpointError("has no head.final_layer.weight (out, in, h, w): no heatmaps")
    if found.skeleton is not None:  # the cut has settled it; only a flag may name another
        flags, others = hints["flag"], hints
        hints = {source: replace(one, skeleton=None) for source, one in others.items()}
        hints["flag"] = flags
    hints = {**hints, "weights": SpecHints(skeleton=found.skeleton, input_size=_grid(found))}
    if found.family == "movenet":
        hints["family default"] = movenet.spec_hints(name)
    spec, items = resolve(name, found.family, len(final), hints=hints)
    if found.family == "movenet":
        spec = replace(spec, gate=movenet.GATE)
    weights = _fitting(found.state, spec, found.origin)
    first = [ResolvedField("config", config.name, "config beside it")] if config else []
    stored = ResolvedField("storage", _storage(found.state, weights), "weights")
    known = [*found.items, ResolvedField("architecture", name, "weights"), stored]
    return Converted(spec, weights, (*first, *known, *items))


def _grid(found: Canonical) -> tuple[int, int] | None:
    """(W, H) that a transformer's position embedding was made for, if it is 3:4 or square."""
    embedding = found.state.get("backbone.pos_embed")
    if embedding is None or embedding.ndim != 3:
        return None
    tokens = embedding.shape[1] - 1
    for across, down in ((3, 4), (1, 1)):
        unit = round((tokens / (across * down)) ** 0.5)
        if unit and unit * unit * across * down == tokens:
            return 16 * unit * across, 16 * unit * down
    return None


def _fitting(
    state: files.State, spec: ModelSpec, origin: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """The floating tensors, if they are the network's and no others. Raises CheckpointError."""
    with torch.device("meta"):
        wanted = {name: tuple(v.shape) for name, v in build(spec).state_dict().items()}
    surplus = [origin.get(name, name) for name in state if name not in wanted]
    missing = [name for name in wanted if name not in state and not name.endswith(_OPTIONAL)]
    if surplus or missing:
        kind, names = ("surplus", surplus) if surplus else ("missing", missing)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(f"not quite a {spec.architecture}: {kind} tensor {names[0]}{more}")
    weights = {name: state[name] for name in wanted if not name.endswith(_OPTIONAL)}
    for name, value in weights.items():
        if value.shape != wanted[name]:
            raise CheckpointError(
                f"{origin.get(name, name)}: shape {value.shape}; a {spec.architecture} at "
                f"{spec.input_size[0]} x {spec.input_size[1]} px has {wanted[name]}"
            )
        if value.dtype.kind != "f":
            raise CheckpointError(f"{origin.get(name, name)}: holds {value.dtype}; wanted floats")
        if value.dtype == np.float64:
            with np.errstate(over="ignore"):  # refused below
                weights[name] = value.astype(np.float32)
        if not np.isfinite(weights[name]).all():
            raise CheckpointError(f"{origin.get(name, name)}: holds values that are not finite")
    return weights


def _storage(state: files.State, weights: Mapping[str, NDArray[Any]]) -> str:
    """The types in which weights are stored, and what they were where that is another."""
    types = sorted({str(value.dtype) for value in weights.values()})
    rounded = any(state[name].dtype != value.dtype for name, value in weights.items())
    return " and ".join(types) + (", rounded from float64" if rounded else "")


# What ImageNet files hold beside the backbone: classifiers, and branches that pose does not use.
_CLASSIFIER = ("fc.", "classifier.", "incre_modules.", "downsamp_modules.", "final_layer.")
_is_backbone = {"conv1.weight", "bn1.weight"}.issubset
_UNUSED_BRANCHES = tuple(f"stage4.2.fuse_layers.{n}." for n in (1, 2, 3))


def backbone(path: str | Path, architecture: str) -> dict[str, NDArray[Any]]:
    """A backbone's weights from a torchvision ResNet or HRNet ImageNet file, `backbone.` names.

    Raises CheckpointError unless it fits `architecture` strictly, its classifier aside.
    """
    spec = ModelSpec(check_name(architecture), (192, 256), (48, 64), COCO_17)
    skipped = (*_CLASSIFIER, *_UNUSED_BRANCHES)
    content = files.read(Path(path)).content
    state = files.arrays(weight_sets.choose(content, None, _is_backbone).tensors)
    kept = {f"backbone.{name}": v for name, v in state.items() if not name.startswith(skipped)}
    with torch.device("meta"):
        head = {k: v for k, v in build(spec).state_dict().items() if k.startswith("head.")}
    blank = {name: np.zeros(tuple(v.shape), np.float32) for name, v in head.items()}
    try:
        fitted = _fitting({**kept, **blank}, spec, {name: name[9:] for name in kept})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {name: value for name, value in fitted.items() if name.startswith("backbone.")}
