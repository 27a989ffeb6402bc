"""A tfjs graph model (.json and the .bin that it names) to arrays, without TensorFlow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import CheckpointError
from posekit.inputs.parsing import numbers, parse_json, reason

_LARGEST_JSON = 1 << 24
_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


def is_model(path: Path) -> bool:
    """Whether the name is that of a tfjs model's JSON and the file begins like one."""
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"weightsManifest" in file.read(_LARGEST_JSON)


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of the model at `path`; its .bin files lie beside it. Raises CheckpointError."""
    with path.open("rb") as file:
        model = file.read(_LARGEST_JSON + 1)
    try:
        groups = _manifest(model, str(path))
        names = [str(name) for group in groups for name in group["paths"]]
        strange = [name for name in names if Path(name).name != name]
        if strange:
            raise CheckpointError(f"{path}: names {strange[0]!a}, which is not beside it")
        weights = b"".join(path.with_name(name).read_bytes() for name in dict.fromkeys(names))
        return tensors(model, weights)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the {error.filename} that it names cannot be read ({error.strerror}); copy "
            "both"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: damaged, or not a tfjs model ({reason(error)})") from error


def _manifest(model: bytes, name: str) -> list[Any]:
    """The groups of weights that a model's JSON names. Raises CheckpointError."""
    data = parse_json(model, name=name, error=CheckpointError, max_bytes=_LARGEST_JSON)
    groups: list[Any] = data["weightsManifest"]
    return groups


def tensors(model: bytes, weights: bytes) -> dict[str, NDArray[Any]]:
    """Each tensor of the weights manifest by name, in the type that the .bin stores.

    model: the JSON.  weights: the .bin that it names.  Raises ValueError where the sizes differ
    or a tensor is quantized to integers, CheckpointError for what is no JSON.
    """
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for entry in (e for group in _manifest(model, "tfjs model") for e in group["weights"]):
        name = str(entry["name"])
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        if stored not in (*_STORED, "float16"):
            raise ValueError(f"{name}: stored as {stored}; only float16 is lossless")
        dtype = np.dtype(_STORED.get(stored, np.float16)).newbyteorder("<")
        shape = [int(n) for n in numbers(entry["shape"], name=f"{name}: shape", low=0)]
        count = math.prod(shape)
        if count > (len(weights) - at) // dtype.itemsize:
            raise ValueError(f"{name}: shape {shape[:8]} is beyond the .bin's {len(weights)} bytes")
        array = np.frombuffer(weights, dtype, count, at).reshape(shape)
        arrays[name] = array.astype(dtype.newbyteorder("="))
        at += array.nbytes
    if at != len(weights):
        raise ValueError(f"the weights manifest describes {at} bytes, the .bin has {len(weights)}")
    return arrays
