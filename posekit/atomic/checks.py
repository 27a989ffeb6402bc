"""What is checked of outputs before any work: their names are free, and none is an input."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from posekit.errors import SourceError

_Identity = tuple[int, int]  # device and inode

_RESULTS = frozenset([".json", ".jsonl", ".csv", ".parquet", ".html", ".posekit", ".onnx", ".plan"])
"""Endings of what posekit writes."""

_CONFIGS = ("config.json", "model.json")
"""Of a checkpoint's folder: inputs, whatever their ending."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCKED = (errno.EEXIST, errno.ENOTDIR)


def check_free(*paths: Path | None, overwrite: bool) -> None:
    """Whether outputs may have these names, before hours are spent. Raises SourceError."""
    for path in paths:
        if path is not None and os.path.lexists(path) and not overwrite:
            raise SourceError(f"{path}: exists; choose another name or pass --overwrite")


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None]) -> None:
    """No output may replace an input, a file of an input folder, or a folder that an input lies in.

    Links are resolved and patterns expanded; inputs that are no files or folders (names, URLs,
    None) are left out. Files that posekit itself writes, such as an older report, are no inputs
    merely because they lie in an input folder.  Raises SourceError.
    """
    existing = [path for path in outputs if path is not None and path.exists()]
    sources = _identities(inputs) if existing else {}
    for output in existing:
        if source := sources.get(_identity(output)):
            raise SourceError(
                f"{output}: writing it would replace the input {source}; choose another output"
            )


def _identities(inputs: Iterable[str | Path | None]) -> dict[_Identity, Path]:
    """Every input, the files in it and the folders that it lies in, whatever links there are."""
    sources = [path for each in inputs if each is not None for path in _paths(each)]
    found: dict[_Identity, Path] = {}
    parents: set[Path] = set()
    for source in sources:
        parent = source.resolve().parent
        if parent not in parents:
            parents.add(parent)
            found |= {_identity(each): source for each in (parent, *parent.parents)}
    for source in sources:
        found |= {_identity(each): each for each in _files_in(source)}
    return found | {_identity(source): source for source in sources}


def _paths(text: str | Path) -> list[Path]:
    """What an input names: itself, or what its pattern matches; with `**` the folder before it."""
    path = Path(str(text).removeprefix("file://")).expanduser()
    if _exists(path):
        return [path]
    parts = path.parts
    start = parts[: parts.index("**")] if "**" in parts else parts
    try:
        matches = glob.glob(str(Path(*start)))  # noqa: PTH207  # takes absolute patterns too
    except (OSError, ValueError):
        return []
    return [Path(match) for match in matches if _exists(match)]


def _files_in(folder: Path) -> Iterator[Path]:
    """Files at any depth of a folder, each real folder once, but for those that posekit writes."""
    visited = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in names:
            path = Path(place, name)
            is_result = path.suffix.lower() in _RESULTS and name not in _CONFIGS
            if not is_result and path.exists():
                yield path


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or a null byte: no file
        return False


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a SourceError: `path` and the reason in one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            reason = f"no room left on its disk ({reason}); free some or choose another folder"
        elif error.errno in _FORBIDDEN:
            reason = f"its folder cannot be written to ({reason}); choose another one"
        elif error.errno in _BLOCKED:
            reason = f"a file stands where its folder should be ({reason}); choose another one"
        raise SourceError(f"{path}: cannot be written: {reason}") from error
