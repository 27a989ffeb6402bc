"""hf://OWNER/NAME to files on disk: the one thing that posekit downloads, and only on request."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posekit.errors import CheckpointError, MissingExtraError
from posekit.inputs.parsing import number, shown

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_LISTED, _MOST_FILES, _MOST_BYTES = 20_000, 64, 1 << 34
_TIMEOUT_S = 20.0
# What huggingface_hub raises for a response that is JSON of another shape, or none.
_UNEXPECTED = (AttributeError, LookupError, TypeError, ValueError, RecursionError, OverflowError)
_SINGLE = (".pth", ".pt", ".tar", ".ckpt", ".bin")


@dataclass(frozen=True)
class Fetched:
    """path: what to read, a file or a Hugging Face folder.  address: as it was given.

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
    Raises CheckpointError (not there, no weights, no network, too much, a sha256 that differs),
    MissingExtraError.
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
    hub = _Repository(huggingface_hub, address, repository)
    names, commit = hub.listed(revision)
    wanted = _wanted(names, file, address)
    root = folder / repository.partition("/")[2]
    announced, sizes = hub.announced(wanted, commit)
    for name in wanted:
        hub.download(name, commit, root, size=sizes[name])
    digests = {name: _sha256(root / name) for name in wanted}
    for name, digest in digests.items():
        if announced.get(name, digest) != digest:
            raise CheckpointError(
                f"{address}: {name} has sha256 {digest}, but the server announced "
                f"{announced[name]}: damaged or changed on the way; fetch it again"
            )
    single = [name for name in wanted if name.endswith(_SINGLE)]
    return Fetched(root / single[0] if single else root, address, commit, digests)


@dataclass(frozen=True)
class _Repository:
    """A model repository of the server of HF_ENDPOINT, whose responses may be anything."""

    client: Any
    address: str
    name: str
    endpoint: str | None = field(default_factory=lambda: os.environ.get("HF_ENDPOINT") or None)

    def listed(self, revision: str | None) -> tuple[list[str], str]:
        """The names of its files, and the commit. Raises CheckpointError."""
        with self._explained():
            api = self.client.HfApi(self.endpoint)
            found = api.model_info(self.name, revision=revision, timeout=_TIMEOUT_S)
            names = [each.rfilename for each in found.siblings or []]
            commit = str(found.sha)
        if not _COMMIT.fullmatch(commit) or not all(isinstance(each, str) for each in names):
            raise CheckpointError(f"{self.address}: the server's list of files is none")
        if len(names) > _MOST_LISTED:
            raise CheckpointError(f"{self.address}: {len(names)} files; no model has as many")
        strange = [each for each in names if not _is_plain(each)]
        if strange:
            raise CheckpointError(f"{self.address}: holds {shown(strange[0])}, no plain file name")
        return names, commit

    def announced(self, names: list[str], commit: str) -> tuple[dict[str, str], dict[str, int]]:
        """The sha256 of files for which the server states it, and the size of each, bytes.

        Raises CheckpointError: no size, too large.
        """
        found, sizes = {}, {}
        for name in names:
            with self._explained():
                url = self.client.hf_hub_url(
                    self.name, name, revision=commit, endpoint=self.endpoint
                )
                metadata = self.client.get_hf_file_metadata(url, timeout=_TIMEOUT_S)
                tag, size = str(metadata.etag).strip('"'), metadata.size
            number(
                size,
                name=f"{self.address}: size of {name}",
                low=0,
                whole=True,
                error=CheckpointError,
            )
            sizes[name] = int(size)
            if _SHA256.fullmatch(tag):
                found[name] = tag
        if (total := sum(sizes.values())) > _MOST_BYTES:
            raise CheckpointError(
                f"{self.address}: {total:,} bytes to fetch; posekit takes up to {_MOST_BYTES:,}"
            )
        return found, sizes

    def download(self, name: str, commit: str, folder: Path, *, size: int) -> None:
        """One file into the folder, of `size` bytes at most. Raises CheckpointError."""
        download = self.client.hf_hub_download
        more = {}
        if "tqdm_class" in inspect.signature(download).parameters:  # older ones have no hook
            more["tqdm_class"] = _counting(self.client.utils.tqdm, f"{self.address}: {name}", size)
        with self._explained():
            download(
                self.name, name, revision=commit, local_dir=folder, endpoint=self.endpoint, **more
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Around calls of huggingface_hub, which trusts its server."""
        try:
            yield
        except _network_errors() as error:
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            is_own = type(error).__module__.startswith("huggingface_hub")
            if isinstance(error, _UNEXPECTED) and not is_own:  # it failed to make sense of it
                reason = f"what the server sends is not what a hub sends ({reason})"
            raise CheckpointError(f"{self.address}: cannot be fetched: {reason}") from error


def _counting(bar: Any, what: str, size: int) -> Any:
    """A progress bar that ends the download it is shown beyond `size`. Raises CheckpointError."""
    received = 0

    def update(self: Any, count: float | None = 1) -> Any:
        nonlocal received
        received += int(count or 0)
        if received > size:
            raise CheckpointError(
                f"{what}: the server sends more than the {size:,} bytes it stated"
            )
        return bar.update(self, count)

    return type("Counting", (bar,), {"update": update})


def _is_plain(name: str) -> bool:
    """Whether a file of that name stays in its folder on every system."""
    parts = name.split("/")
    return (
        name.isprintable()
        and "\\" not in name
        and ":" not in name
        and not {"", ".", ".."} & set(parts)
    )


def _wanted(names: list[str], file: str | None, address: str) -> list[str]:
    """The files to fetch: config and safetensors, or one checkpoint. Raises CheckpointError."""
    configs = [name for name in names if name == "config.json"]
    if file is not None:
        if file not in names:
            raise CheckpointError(f"{address}: no such file; it holds {_listed(names)}")
        return [file]
    tensors = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if len(tensors) > _MOST_FILES:
        raise CheckpointError(
            f"{address}: {len(tensors)} .safetensors files; posekit takes up to {_MOST_FILES}"
        )
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
    found: list[type[Exception]] = [OSError, *_UNEXPECTED]
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
