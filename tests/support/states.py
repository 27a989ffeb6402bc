"""State dicts in public layouts, made by hand-written tables.

Each tensor is one number of its own, spread over the right shape, so that a swapped name cannot
pass; it costs no room either.
"""

import itertools
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posekit.checkpoints import Converted
from posekit.nets import build
from posekit.types import ModelSpec, Skeleton

State = dict[str, Tensor]
_SHAPES: dict[tuple[str, int, tuple[int, int]], dict[str, tuple[int, ...]]] = {}


def joints(count: int) -> Skeleton:
    names = tuple(f"joint{k}" for k in range(count))
    return Skeleton("plain", names, (), tuple(range(count)), (0.1,) * count)


def blank(architecture: str, count: int = 17, size: tuple[int, int] = (192, 256)) -> State:
    """A state dict in posekit's names; tensor n is n + 1 everywhere."""
    key = (architecture, count, size)
    if key not in _SHAPES:
        spec = ModelSpec(architecture, size, (size[0] // 4, size[1] // 4), joints(count))
        with torch.device("meta"):
            state = build(spec).state_dict()
        _SHAPES[key] = {name: tuple(v.shape) for name, v in state.items()}
    numbers = itertools.count(1)
    return {
        name: torch.tensor(0)
        if name.endswith("num_batches_tracked")
        else torch.tensor([float(next(numbers))]).expand(shape)
        for name, shape in _SHAPES[key].items()
    }


def renamed(state: State, rules: list[tuple[str, str]], prefix: str = "") -> State:
    """`state` with each rule's first text replaced by its second, then the prefix."""
    out = {}
    for name, value in state.items():
        new = name
        for old, text in rules:
            new = re.sub(old, text, new)
        out[prefix + new] = value
    return out


FLAT = [("^backbone\\.", ""), ("^head\\.", "")]
MMPOSE_0 = [("^head\\.", "keypoint_head.")]


def values(converted: Converted) -> dict[str, float]:
    return {name: float(value.flat[0]) for name, value in converted.weights.items()}


def first_values(state: State) -> dict[str, float]:
    return {k: float(v.flatten()[0]) for k, v in state.items() if v.is_floating_point()}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def item(converted: Converted, name: str) -> tuple[Any, str, bool]:
    found = next(each for each in converted.items if each.name == name)
    return found.value, found.source, found.assumed


def wrapped(state: State) -> dict[str, Any]:
    """A trainer's checkpoint: module. before each name, and other things beside the weights."""
    inner = OrderedDict((f"module.{name}", value) for name, value in state.items())
    optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 9, "model": "pose", "state_dict": inner, "perf": 0.7, "optimizer": optimizer}
