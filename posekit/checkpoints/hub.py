"""hf://OWNER/NAME to files on disk: the one thing that posekit downloads, and only when asked."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posekit.errors import CheckpointError, MissingExtraError

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?")
_SINGLE = (".pth", ".pt", ".tar", ".ckpt", ".bin")


@dataclass(frozen=True)
class Fetched:
    """path: what to read, a file or a Hugging Face folder.  address: as it was asked for.

    revision: the commit.  sha256: of each file, by name.
    """

    path: Path
    address: str
    revision: str
    sha256: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """What the provenance of a bundle says of it."""
        return {"source": self.address, "revision": self.revision, "files": self.sha256}


def fetch(address: str, folder: Path) -> Fetched:
    """Download what a model repository holds of weights, and its config, into `folder`.

    address: hf://OWNER/NAME, or hf://OWNER/NAME/FILE where it holds several checkpoints; @REVISION
    behind it for another than the newest.  The server is that of HF_ENDPOINT where it is set.
    Raises CheckpointError (not there, no weights, no network), MissingExtraError.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise CheckpointError(f"{address}: wanted hf://OWNER/NAME, @REVISION behind it if need be")
    repository, file, revision = match.groups()
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{address} needs {error.name}: pip install 'posekit[hub]'"
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        found = huggingface_hub.HfApi(endpoint).model_info(repository, revision=revision)
        names = [each.rfilename for each in found.siblings or []]
        wanted = _wanted(names, file, address)
        commit = str(found.sha)
        root = folder / repository.partition("/")[2]
        for name in wanted:
            huggingface_hub.hf_hub_download(
                repository, name, revision=commit, local_dir=root, endpoint=endpoint
            )
    except _network_errors() as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{address}: cannot be fetched: {reason}") from error
    single = [name for name in wanted if name.endswith(_SINGLE)]
    path = root / single[0] if single else root
    return Fetched(path, address, commit, {name: _sha256(root / name) for name in wanted})


def _wanted(names: list[str], file: str | None, address: str) -> list[str]:
    """The files to fetch: config and safetensors, or one checkpoint. Raises CheckpointError."""
    configs = [name for name in names if name == "config.json"]
    if file is not None:
        if file not in names:
            raise CheckpointError(f"{address}: no such file; it holds {_listed(names)}")
        return [file]
    tensors = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if tensors and configs:
        return [*configs, *tensors]
    others = [name for name in names if name.endswith(_SINGLE) and "/" not in name]
    if len(others) != 1:
        raise CheckpointError(
            f"{address}: wanted config.json with .safetensors, or one checkpoint; it holds "
            f"{_listed(names)}: name one as hf://OWNER/NAME/FILE"
        )
    return others


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more if shown else "no files"


def _network_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises; which HTTP library it uses depends on its version."""
    found: list[type[Exception]] = [OSError]
    for module, name in (
        ("huggingface_hub.errors", "HfHubHTTPError"),
        ("huggingface_hub.errors", "HFValidationError"),
        ("httpx", "HTTPError"),
        ("httpx2", "HTTPError"),
        ("requests", "RequestException"),
    ):
        try:
            found.append(getattr(importlib.import_module(module), name))
        except ModuleNotFoundError:
            continue
    return tuple(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
