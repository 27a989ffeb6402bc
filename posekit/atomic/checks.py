"""What is checked of outputs before any work: their names are free, and none is an input."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from posekit.errors import SourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCKED = (errno.EEXIST, errno.ENOTDIR)


def check_free(*paths: Path | None, overwrite: bool) -> None:
    """Whether outputs may have these names, before hours are spent. Raises SourceError."""
    for path in paths:
        if path is not None and os.path.lexists(path) and not overwrite:
            raise SourceError(f"{path}: exists; choose another name or pass --overwrite")


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None]) -> None:
    """No output may replace an input, or a folder that an input lies in; links are resolved.

    Inputs that are no files or folders (names, URLs, None) are left out. Raises SourceError.
    """
    there = [path for path in outputs if path is not None and path.exists()]
    sources = _identities(inputs) if there else {}
    for output in there:
        if source := sources.get(_identity(output)):
            raise SourceError(
                f"{output}: writing it would replace the input {source}; choose another output"
            )


def _identities(inputs: Iterable[str | Path | None]) -> dict[tuple[int, int], Path]:
    """Every input, and every folder that one lies in, whatever links and letter case say."""
    sources = [Path(each) for each in inputs if each is not None and _exists(each)]
    found: dict[tuple[int, int], Path] = {}
    parents: set[Path] = set()
    for source in sources:
        parent = source.resolve().parent
        if parent not in parents:
            parents.add(parent)
            found |= {_identity(each): source for each in (parent, *parent.parents)}
    return found | {_identity(source): source for source in sources}


def _identity(path: Path) -> tuple[int, int]:
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
