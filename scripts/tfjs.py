"""Reads a tfjs model (JSON and one .bin) into arrays, without TensorFlow."""

import json

import numpy as np
from numpy.typing import NDArray

_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


def tensors(model: bytes, weights: bytes) -> dict[str, NDArray[np.generic]]:
    """Each tensor of the weights manifest by name, in the type that the .bin stores.

    model: the JSON.  weights: the .bin that it names.  Raises ValueError where the sizes differ
    or a tensor is quantised to integers.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
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
