"""What flows through a graph: intermediate tensors on real crops, and how far answers stray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from posekit.errors import InputError

Feed = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]


def session(model: onnx.ModelProto, *, exact: bool = False) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU with one thread; `exact` keeps every operator as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def single(feeds: Sequence[Feed]) -> list[Arrays]:
    """The feeds cut into one crop each. Raises InputError where there is none."""
    parts = [
        {name: value[n : n + 1] for name, value in feed.items()}
        for feed in feeds
        for n in range(len(next(iter(feed.values()))))
    ]
    if not parts:
        raise InputError("no crops to look at: wanted one or more, such as {'crops': uint8 array}")
    return parts


def record_activations(
    model: onnx.ModelProto, feeds: Sequence[Feed], names: Iterable[str]
) -> Iterator[Arrays]:
    """The float32 tensors `names` of each crop in turn; one crop's at a time are in memory."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = list(dict.fromkeys(names))
    there = {value.name for value in copy.graph.output}
    for name in wanted:
        if name not in there:
            kind = onnx.TensorProto.FLOAT
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    run = session(copy)
    for feed in single(feeds):
        yield dict(zip(wanted, run.run(wanted, feed), strict=True))
