"""From a file or folder to named tensors, without ever running what a pickle says."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
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

from posekit.bundle import check_entries
from posekit.checkpoints import tfjs
from posekit.errors import CheckpointError
from posekit.inputs import parsing

State = dict[str, NDArray[Any]]
_LARGEST, _MOST = 1 << 27, 1 << 32
"""Values of one tensor and of all: the largest networks here have 2**23 and 2**31."""
FLOATS = (torch.float64, torch.float32, torch.float16)
"""Kept as they are; other floating types become float32, which holds bfloat16 exactly."""
_LONGEST_HEADER, _LARGEST_JSON = 100_000_000, 1 << 24
_ZIP_START = b"PK\3\4"
_ZIP_END64 = 56 + 20 + 22  # bytes of the end records of a zip: the long one, its locator, the short
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
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, maybe under further keys; meta: what else mmpose wrote beside them."""

    content: Mapping[Any, Any]
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
        state = {name: torch.from_numpy(value) for name, value in tfjs.read(path).items()}
        return Checkpoint(state)
    return _read(path)


def _read(path: Path) -> Checkpoint:
    """A file's content, by its first bytes, whatever its name. Raises CheckpointError."""
    start = _start(path)
    if path.suffix in _OTHERS:
        raise CheckpointError(f"{path}: {_OTHERS[path.suffix]}")
    if _is_safetensors(start) or (path.suffix == ".safetensors" and not start.startswith(b"PK")):
        return Checkpoint(_safetensors(path))
    if start.lstrip()[:1] in (b"<", b"{"):
        raise CheckpointError(f"{path}: is a text file (a web page?), not a checkpoint")
    content = _torch_load(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; wanted a dict of tensors (a state dict)"
        )
    meta = content.get("meta")
    return Checkpoint(content, meta if isinstance(meta, dict) else {})


def _is_safetensors(start: bytes) -> bool:
    """A header's length in 8 bytes, little-endian, then its JSON."""
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _start(path: Path) -> bytes:
    """The first bytes. Raises CheckpointError: cannot be read, empty, or a pointer to a file."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error
    if not start:
        raise CheckpointError(f"{path}: is empty (0 bytes); fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull`"
        )
    return start


def _folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder, in one file or several."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: a folder without config.json; wanted a Hugging Face one")
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    state: dict[str, Tensor] = {}
    for path in files:
        state.update(_read(path).content)
    if not state:
        raise CheckpointError(f"{folder}: holds no .safetensors file and no pytorch_model.bin")
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        why = parsing.reason(error)
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({why})") from error


def _torch_load(path: Path) -> Any:
    """The objects of a PyTorch file; only tensors and plain data. Raises CheckpointError."""
    try:
        if _start(path).startswith(_ZIP_START):  # what torch goes by
            _check_zip(path)
        # Opened here: of a path, torch believes the name.
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_stand_ins()),
        ):
            warnings.simplefilter("ignore")  # about pickle protocols and old storages
            return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: {_reason(str(error))}") from error


def _check_zip(path: Path) -> None:
    """Whether torch finds the entries that Python's zipfile finds, one behind another.

    They search for the end over different lengths, and torch takes the directory from where the
    end states it, Python from where it should be.  Raises CheckpointError, OSError, BadZipFile.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        check_entries(archive, str(path), error=CheckpointError)
        size = file.seek(0, 2)
        file.seek(max(0, size - _ZIP_END64))
        stated = _stated_directory(file.read(), size)
        if stated != archive.start_dir:
            raise CheckpointError(f"{path}: damaged: its zip directory is not where its end says")


def _stated_directory(end: bytes, size: int) -> int | None:
    """Where a zip of `size` bytes states its directory; None unless it ends with its end record.

    end: its last bytes.  Source: APPNOTE.TXT 4.3.14-4.3.16, without a comment.
    """
    record, locator, record64 = end[-22:], end[-42:-22], end[:-42]
    if not record.startswith(b"PK\5\6") or record[-2:] != b"\0\0":
        return None
    if not locator.startswith(b"PK\6\7"):
        return int.from_bytes(record[16:20], "little")
    is_before = int.from_bytes(locator[8:16], "little") == size - _ZIP_END64
    return int.from_bytes(record64[48:56], "little") if is_before else None


def _reason(message: str) -> str:
    """Why torch.load refused a file, in one sentence, with the way out where there is one."""
    if called := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"its pickle calls {called[1]}, and posekit runs no code from a file; where you "
            "trust it, save its tensors alone elsewhere, with "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)"
        )
    detail = re.search(r"WeightsUnpickler error: (.*)", message)
    line = detail[1] if detail else message.strip().partition("\n")[0]
    return f"damaged, or not a PyTorch file ({parsing.printable(line[:200]) or 'no reason given'})"


def arrays(tensors: Mapping[str, Tensor]) -> State:
    """Tensors as numpy; types beside FLOATS and integers become float32.

    Raises CheckpointError: what is no dense tensor of real numbers, or is larger than any here.
    """
    if sum(tensor.numel() for tensor in tensors.values()) > _MOST:
        raise CheckpointError(f"its tensors are over {_MOST:,} values; no network here has as many")
    return {name: _array(name, tensor) for name, tensor in tensors.items()}


def _array(name: str, tensor: Tensor) -> NDArray[Any]:
    if tensor.numel() > _LARGEST:
        raise CheckpointError(f"{name}: over {_LARGEST:,} values; no layer here has as many")
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex())
    if not plain or tensor.device.type != "cpu":
        kind = f"{tensor.layout}, {tensor.dtype}, on {tensor.device}".replace("torch.", "")
        raise CheckpointError(f"{name}: is {kind}; wanted a dense tensor of real numbers")
    known = tensor.dtype in FLOATS or not tensor.is_floating_point()
    array: NDArray[Any] = (tensor if known else tensor.float()).detach().numpy()
    return array


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    data = parsing.read_json(path, error=CheckpointError, max_bytes=_LARGEST_JSON)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: wanted a JSON object, got a {type(data).__name__}")
    return data
