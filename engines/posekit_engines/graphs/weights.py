"""Weights of an ONNX graph: load, inline, or write to a safetensors file beside it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from posekit.errors import ExportError
from posekit_engines.graphs.edit import copy_model

Storage = Literal["fp32", "fp16"]
"""The type in which a bundle stores its weights; None is the source's own."""
_HALF_MAX = float(np.finfo(np.float16).max)
_ALIGN = 4096  # a page: a runtime may map the file into memory


def load_weights(net: nn.Module, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    """`net` with the weights, in evaluation mode; strict, except for batch norm's counters.

    The network computes in float32, whatever the weights' type.
    """
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
    counters = {name: v for name, v in net.state_dict().items() if not v.is_floating_point()}
    net.load_state_dict({**counters, **state})
    return net.eval()


def write_data(model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the weights to a safetensors file at `path` and point the model's initializers to it.

    ONNX readers find them through the graph; safetensors readers need no ONNX.
    """
    values = [(tensor, np.ascontiguousarray(v)) for tensor, v in external_values(model, weights)]
    values.sort(key=lambda pair: -pair[1].itemsize)  # stable; every tensor stays aligned
    with path.open("wb") as file:
        file.write(_header(values))
        for tensor, value in values:
            start = file.tell()
            file.write(value.tobytes())
            tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            del tensor.external_data[:]
            location = {"location": path.name, "offset": start, "length": value.nbytes}
            for key, entry in location.items():
                tensor.external_data.add(key=key, value=str(entry))


def _header(values: Sequence[tuple[onnx.TensorProto, NDArray[Any]]]) -> bytes:
    """The header of a safetensors file of these tensors, padded to a page.

    Source: the format's description in the safetensors project.
    """
    entries: dict[str, Any] = {}
    end = 0
    for tensor, value in values:
        dtype = f"{value.dtype.kind.upper()}{8 * value.itemsize}"  # F16, F32
        offsets = [end, end + value.nbytes]
        entries[tensor.name] = {"dtype": dtype, "shape": value.shape, "data_offsets": offsets}
        end += value.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    return struct.pack("<Q", len(text)) + text


def bundle_weights(net: nn.Module) -> dict[str, NDArray[Any]]:
    """The floating-point entries of a network's state dict, float32."""
    state = {name: v for name, v in net.state_dict().items() if v.is_floating_point()}
    return {name: v.float().cpu().numpy() for name, v in state.items()}


def stored(
    weights: Mapping[str, NDArray[Any]], storage: Storage | None
) -> Mapping[str, NDArray[Any]]:
    """The weights in the type of `storage`. Raises ExportError where one is beyond float16."""
    if storage is None:
        return weights
    if storage == "fp32":
        return {name: value.astype(np.float32) for name, value in weights.items()}
    for name, value in weights.items():
        largest = float(np.abs(value).max(initial=0.0))
        if largest > _HALF_MAX:
            raise ExportError(
                f"{name}: holds {largest:g}, beyond float16's {_HALF_MAX:g}; leave out "
                "--storage fp16, or rescale that layer"
            )
    return {name: value.astype(np.float16) for name, value in weights.items()}


def inline_weights(model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A stand-alone copy of `model`: each external initializer gets its value from `weights`.

    Raises ExportError where one is missing or differs in shape.
    """
    whole = copy_model(model)
    for tensor, value in external_values(whole, weights):
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype), tensor.name))
    return whole


def external_values(
    model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]
) -> list[tuple[onnx.TensorProto, NDArray[Any]]]:
    """Each external initializer of `model` with its value.

    Raises ExportError where one is missing or differs in shape.
    """
    found = []
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        value = weights.get(tensor.name)
        if value is None or list(value.shape) != list(tensor.dims):
            got = "nothing" if value is None else f"shape {list(value.shape)}"
            wanted = list(tensor.dims)
            raise ExportError(f"{tensor.name}: the graph wants shape {wanted}, weights hold {got}")
        found.append((tensor, value))
    return found
