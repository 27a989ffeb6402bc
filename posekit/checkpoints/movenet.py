"""MoveNet as npm packages carry it: a tfjs graph model of one published network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from posekit.checkpoints.resolve import ResolvedField, SpecHints
from posekit.errors import CheckpointError
from posekit.nets.movenet import weights_from_tfjs
from posekit.skeletons import COCO_17

HEAD = "head.heatmap.out.weight"
GATE = 0.5
"""What the embedded models have; see scripts/make_models, which says how it was chosen."""
_STEM = "backbone.stem.weight"
_BY_STEM = {56: ("movenet-thunder", 256), 32: ("movenet-lightning", 192)}
_GRAPH = "StatefulPartitionedCall/"
_UNUSED = ("head.center.", "head.offset.")  # of the published heads, those that posekit leaves out
State = dict[str, NDArray[Any]]


def is_one(state: Iterable[str]) -> bool:
    """Whether the names are those of a tfjs graph, as nothing else here has them."""
    return any(name.startswith(_GRAPH) for name in state)


def canonical(state: State) -> tuple[State, dict[str, str], list[ResolvedField]]:
    """The tensors by posekit's names, float16 as stored; no other names, and the layout's item.

    Raises CheckpointError for a tfjs graph that is not MoveNet's.
    """
    try:
        every = weights_from_tfjs(state)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"a tfjs graph, but not MoveNet SinglePose ({error})") from error
    kept = {name: value for name, value in every.items() if not name.startswith(_UNUSED)}
    return kept, {}, [ResolvedField("layout", "MoveNet (tfjs)", "weights")]


def architecture(state: Mapping[str, NDArray[Any]]) -> str:
    """Thunder or Lightning, by the width of the first layer; else a name that is not known."""
    width = len(state[_STEM])
    return _BY_STEM.get(width, (f"movenet-{width}", 0))[0]


def spec_hints(name: str) -> SpecHints:
    """What holds for both: there is one published network of each.

    Source: benchmarks/accuracy/conventions.py measured where cells lie and how peaks are refined.
    """
    side = dict(_BY_STEM.values())[name]
    grey = (127.5, 127.5, 127.5)
    return SpecHints(
        input_size=(side, side),
        skeleton=COCO_17,
        mean=grey,
        std=grey,
        padding=1.0,
        convention="half-pixel",
        flip_shift=0.0,
        sigma=1.1,
        decode="dark",
        blur=3,
    )
