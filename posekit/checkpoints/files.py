"""From a file or folder to named tensors, without ever running what a pickle says."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from posekit.checkpoints import tfjs
from posekit.errors import CheckpointError

State = dict[str, NDArray[Any]]
FLOATS = (torch.float64, torch.float32, torch.float16)
"""Kept as they are; other floating types become float32, which holds bfloat16 exactly."""
_WRAPPERS = ("state_dict", "best_state_dict", "model_state_dict", "model")
_OTHERS = {
    ".posekit": "is a bundle already: give it to infer, export or adapt as it is",
    ".onnx": "is an exported graph: give the checkpoint it was made from",
    ".plan": "is a TensorRT engine: give the checkpoint it was made from",
    ".engine": "is a TensorRT engine: give the checkpoint it was made from",
}
# What torch.load raises for files that are damaged or of another kind.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    AssertionError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, `module.` removed; meta: what else mmpose wrote beside them."""

    state: State
    meta: Mapping[str, Any] = field(default_factory=dict)


class _Record:
    """Stands in for a class whose contents nothing here needs: takes its state and forgets it."""

    def __setstate__(self, state: object) -> None:
        """Nothing of a training log is needed."""


class _Dtype:
    """Stands in for numpy.dtype, whose own __setstate__ a crafted file can crash."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = str(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: numbers are taken as little-endian."""

    def numbers(self, data: object) -> list[Any]:
        """The plain numbers in `data`; none for anything but them."""
        if not isinstance(data, bytes) or not re.fullmatch(r"[iuf][248]|[iub]1", self.code):
            return []
        size = int(self.code[1])
        return list(np.frombuffer(data[: len(data) // size * size], f"<{self.code}").tolist())


class _Array:
    """Stands in for numpy.ndarray: iterates over its numbers, flat."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        """(version, shape, dtype, order, bytes), as numpy writes it."""
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype):
            self.values = state[2].numbers(state[4])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


def _empty_array(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: object, data: object = b"") -> Any:
    values = dtype.numbers(data) if isinstance(dtype, _Dtype) else []
    return values[0] if values else None


def _stand_ins() -> list[Any]:
    """What mmengine's files hold beside tensors, and what is made instead: nothing of numpy's."""
    old, new = "numpy.core.multiarray", "numpy._core.multiarray"
    return [
        *((_empty_array, f"{module}._reconstruct") for module in (old, new)),
        *((_scalar, f"{module}.scalar") for module in (old, new)),
        (_Array, "numpy.ndarray"),
        (_Dtype, "numpy.dtype"),
        (_Record, "mmengine.logging.history_buffer.HistoryBuffer"),
    ]


def read(path: Path) -> Checkpoint:
    """The tensors of a PyTorch, .safetensors or tfjs .json file, or of a Hugging Face folder.

    Raises CheckpointError: missing, empty, a pointer, code inside, no state dict.
    """
    if re.match(r"\w{2,}:/", str(path)):  # Path has taken one slash of a URL
        url = re.sub(":/+", "://", str(path))
        raise CheckpointError(
            f"{url}: posekit downloads nothing by itself; fetch the file and give its path"
        )
    if path.is_dir():
        return Checkpoint(_folder(path))
    if tfjs.is_model(path):
        return Checkpoint(tfjs.read(path))
    _refuse_other_files(path)
    if path.suffix == ".safetensors":
        return Checkpoint(_arrays(_safetensors(path), path))
    return _unwrapped(_torch_load(path), path)


def _refuse_other_files(path: Path) -> None:
    """CheckpointError for what cannot be a checkpoint."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if path.suffix in _OTHERS:
        raise CheckpointError(f"{path}: {_OTHERS[path.suffix]}")
    if not start:
        raise CheckpointError(f"{path}: is empty (0 bytes); fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull`"
        )
    if start.lstrip()[:1] in (b"<", b"{"):
        raise CheckpointError(f"{path}: is a text file (a web page?), not a checkpoint")


def _folder(folder: Path) -> State:
    """The tensors of a Hugging Face folder, in one file or several."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: a folder without config.json; wanted a Hugging Face one")
    files = sorted(folder.glob("*.safetensors"))
    if not files and (folder / "pytorch_model.bin").is_file():
        path = folder / "pytorch_model.bin"
        return dict(_unwrapped(_torch_load(path), path).state)
    state: State = {}
    for path in files:
        _refuse_other_files(path)
        state |= _arrays(_safetensors(path), path)
    if not state:
        raise CheckpointError(f"{folder}: holds no .safetensors file and no pytorch_model.bin")
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error})") from error


def _torch_load(path: Path) -> Any:
    """The objects of a PyTorch file; only tensors and plain data. Raises CheckpointError."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins()):
            warnings.simplefilter("ignore")  # about pickle protocols and old storages
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """Why torch.load refused a file, in one sentence, with the way out where there is one."""
    if called := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"its pickle calls {called[1]}, and posekit runs no code from a file; where you "
            "trust it, save its tensors alone elsewhere, with "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)"
        )
    detail = re.search(r"WeightsUnpickler error: (.*)", message)
    lines = [detail[1]] if detail else message.strip().splitlines()
    return f"damaged, or not a PyTorch file ({lines[0][:200] if lines else 'no reason given'})"


def _unwrapped(content: Any, path: Path) -> Checkpoint:
    """The state dict inside whatever a trainer wrapped it in."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; wanted a dict of tensors (a state dict)"
        )
    meta = content.get("meta")
    for name in _WRAPPERS:
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    state = _arrays(content, path)
    return Checkpoint(state, meta if isinstance(meta, dict) else {})


def _arrays(content: Mapping[Any, Any], path: Path) -> State:
    """Tensors as numpy, floating ones as float32. Raises CheckpointError."""
    odd = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if odd or not content:
        got = f"{', '.join(odd[:4])} beside the tensors" if content else "nothing"
        raise CheckpointError(
            f"{path}: wanted a state dict, plain or under {' or '.join(_WRAPPERS[:2])}; got {got}"
        )
    state = {str(name).removeprefix("module."): _array(v) for name, v in content.items()}
    if len(state) != len(content):
        raise CheckpointError(f"{path}: holds tensors both with and without `module.`")
    return state


def _array(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    known = plain.dtype in FLOATS or not plain.is_floating_point()
    array: NDArray[Any] = (plain if known else plain.float()).numpy()
    return array


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: wanted a JSON object, got a {type(data).__name__}")
    return data
