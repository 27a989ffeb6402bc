"""A tfjs graph model (.json and the .bin that it names) to arrays, without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import CheckpointError

_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


def is_model(path: Path) -> bool:
    """Whether the name is that of a tfjs model's JSON and the file begins like one."""
    if path.suffix != ".json" or not path.is_file():
        return False
    return b"weightsManifest" in path.read_bytes()


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of the model at `path`; its .bin files lie beside it. Raises CheckpointError."""
    model = path.read_bytes()
    try:
        groups = json.loads(model)["weightsManifest"]
        names = [str(name) for group in groups for name in group["paths"]]
        strange = [name for name in names if Path(name).name != name]
        if strange:
            raise CheckpointError(f"{path}: names {strange[0]!r}, which is not beside it")
        weights = b"".join(path.with_name(name).read_bytes() for name in names)
        return tensors(model, weights)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the {error.filename} that it names cannot be read ({error.strerror}); copy "
            "both"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, or not a tfjs model ({error})") from error


def tensors(model: bytes, weights: bytes) -> dict[str, NDArray[Any]]:
    """Each tensor of the weights manifest by name, in the type that the .bin stores.

    model: the JSON.  weights: the .bin that it names.  Raises ValueError where the sizes differ
    or a tensor is quantised to integers.
    """
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for entry in (e for group in json.loads(model)["weightsManifest"] for e in group["weights"]):
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        if stored not in (*_STORED, "float16"):
            raise ValueError(f"{entry['name']}: stored as {stored}; only float16 is lossless")
        dtype = np.dtype(_STORED.get(stored, np.float16)).newbyteorder("<")
        count = int(np.prod(entry["shape"], dtype=np.int64))
        array = np.frombuffer(weights, dtype, count, at).reshape(entry["shape"])
        arrays[entry["name"]] = array.astype(dtype.newbyteorder("="))
        at += array.nbytes
    if at != len(weights):
        raise ValueError(f"the weights manifest describes {at} bytes, the .bin has {len(weights)}")
    return arrays
