"""Run a graph on crops and record tensors inside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from posekit.errors import InputError
from posekit.inference.session import open_cpu_session, session_options
from posekit_engines.graphs.edit import Arrays, copy_model

Feed = Mapping[str, NDArray[Any]]
"""A graph's inputs by name, each (N, ...)."""


def split_feeds(feeds: Sequence[Feed]) -> list[Arrays]:
    """The feeds as one feed for each crop, N = 1. Raises InputError where there is none."""
    single = [
        {name: value[n : n + 1] for name, value in feed.items()}
        for feed in feeds
        for n in range(len(next(iter(feed.values()))))
    ]
    if not single:
        raise InputError("feeds: no crops; wanted one or more, such as {'crops': uint8 array}")
    return single


def record_activations(
    model: onnx.ModelProto, feeds: Sequence[Feed], names: Iterable[str]
) -> Iterator[Arrays]:
    """The float32 tensors `names` for each crop in turn; those of one crop at a time in memory.

    Raises InputError where there is no crop.
    """
    copy = copy_model(model)
    recorded = list(dict.fromkeys(names))
    outputs = {value.name for value in copy.graph.output}
    for name in recorded:
        if name not in outputs:
            kind = onnx.TensorProto.FLOAT
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    session = open_cpu_session(copy.SerializeToString(), session_options(threads=1))
    for feed in split_feeds(feeds):
        yield dict(zip(recorded, session.run(recorded, feed), strict=True))
