"""Which weights of a file to take: a trainer's, their averages, or one part of a larger model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from posekit.checkpoints.resolve import ResolvedField, Source
from posekit.errors import CheckpointError

Tensors = dict[str, Tensor]
IsKnown = Callable[[Collection[str]], bool]
"""Whether tensors of such names are those of a network that posekit knows."""

_FIRST = ("state_dict", "best_state_dict", "model_state_dict", "model", "network", "net", "weights")
_AVERAGES = re.compile(r"ema|swa|average|teacher")
_TOP = "tensors"
"""What the tensors are called that lie directly in the file, under no key."""
_DEEPEST = 4
_LEAST = 8  # tensors of a network
_SHOWN = 4
# What wrappers of a module put into names; none of them is a layer.
_WRAPPER = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module"
    r"|_checkpoint_wrapped_module)\."
)
# thop's and torch's own counts.
_COUNT = re.compile(r"(?:^|\.)total_(?:ops|params)$|^(?:steps|n_averaged)$")
_EMA = "ema_"


@dataclass(frozen=True, eq=False)
class Chosen:
    """One set of weights under bare names, and items that say what was beside it."""

    tensors: Tensors
    items: tuple[ResolvedField, ...]


def choose(content: Mapping[Any, Any], wanted: str | None, is_known: IsKnown) -> Chosen:
    """The set called `wanted`, of None the one that the trainer itself would load.

    content: what a file holds, at any depth, under any names. Where none is known, the largest is
    taken, so that what recognizes layouts can say what it is.
    Raises CheckpointError: no tensors, or none of that name.
    """
    every = dict(_candidates(content, _TOP, 0))
    if not every:
        keys = ", ".join(repr(str(key)[:30]) for key in list(content)[:_SHOWN]) or "nothing"
        raise CheckpointError(
            f"wanted a state dict (tensors by name), plain or wrapped; got {keys}"
        )
    known: dict[str, Tensors] = {}
    for name, tensors in every.items():
        known |= _parts(name, tensors, is_known)
    if not known:
        largest = max(every, key=lambda name: len(every[name]))
        known = {largest: every[largest]}
    order = sorted(known, key=_rank)
    if wanted is not None and wanted not in known:
        raise CheckpointError(f"--weights {wanted}: the file holds {', '.join(order)}")
    name = order[0] if wanted is None else wanted
    return Chosen(known[name], (*_choice(name, order, wanted), *_left_out(content, every, known)))


def _rank(name: str) -> tuple[bool, int]:
    """Averages last, then by a trainer's usual names; equal ones stay in the file's order."""
    top = name.partition(".")[0]
    rank = _FIRST.index(top) if top in _FIRST else len(_FIRST)
    return bool(_AVERAGES.search(name)), rank


def _choice(name: str, order: list[str], wanted: str | None) -> list[ResolvedField]:
    """Which set it is, where the file has several."""
    if len(order) == 1:
        return []
    source: Source = "family default" if wanted is None else "flag"
    others = ", ".join(each for each in order if each != name)
    value = f"{name}; --weights may name {others}"
    return [ResolvedField("weights", value, source, assumed=wanted is None)]


def _left_out(
    content: Mapping[Any, Any], every: Mapping[str, Tensors], known: Mapping[str, Tensors]
) -> list[ResolvedField]:
    """Tensors beside the network's own in the same dict."""
    taken = {id(value) for tensors in known.values() for value in tensors.values()}
    tops = {name.removesuffix(".ema") for name in every}
    names = [
        str(key)
        for top in tops
        for key, value in _level(content, top).items()
        if isinstance(value, Tensor) and id(value) not in taken
    ]
    if not names or not taken:
        return []
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return [ResolvedField("left out", f"{len(names)} tensors of no layer: {shown}", "weights")]


def _level(content: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """The dict that `_candidates` called `name`."""
    found: Any = content
    for key in [] if name == _TOP else name.split("/"):
        found = next((v for k, v in found.items() if str(k) == key), {})
    return found if isinstance(found, Mapping) else {}


def _candidates(content: Mapping[Any, Any], name: str, depth: int) -> Iterator[tuple[str, Tensors]]:
    """Each dict of tensors, its name the keys that lead to it, and averages beside plain ones."""
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        bare = _bare(tensors)
        flat = {_EMA + each.replace(".", "_"): each for each in bare}
        averages = {flat[each]: bare[each] for each in bare if each in flat}
        plain = {each: value for each, value in bare.items() if each not in flat}
        yield name, plain
        if averages:
            yield f"{name}.ema", {**plain, **averages}  # buffers have no average
    for key, value in content.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _candidates(value, str(key) if depth == 0 else f"{name}/{key}", depth + 1)


def _bare(tensors: Tensors) -> Tensors:
    """Without what wrappers and counters add to the names. Raises CheckpointError."""
    kept = [name for name in tensors if not _COUNT.search(name)]
    bare = {_WRAPPER.sub("", name): tensors[name] for name in kept}
    if len(bare) != len(kept):
        raise CheckpointError("holds tensors both with and without `module.`")
    return bare


def _parts(name: str, tensors: Tensors, is_known: IsKnown, *, depth: int = 0) -> dict[str, Tensors]:
    """The networks that posekit knows in tensors, whole or under prefixes of their names."""
    if is_known(tensors):
        return {name: tensors}
    groups: dict[str, Tensors] = {}
    for key, value in tensors.items():
        first, _, rest = key.partition(".")
        groups.setdefault(first, {})[rest] = value
    found: dict[str, dict[str, Tensors]] = {}
    for first, part in groups.items():
        if depth < _DEEPEST and len(part) >= _LEAST:
            found[first] = _parts(f"{name}.{first}", part, is_known, depth=depth + 1)
    several = sum(map(bool, found.values())) > 1
    return {
        label if several else name + label.removeprefix(f"{name}.{first}"): part
        for first, parts in found.items()
        for label, part in parts.items()
    }
