"""Outputs appear whole or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from posekit.errors import SourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCKED = (errno.EEXIST, errno.ENOTDIR)


def check_free(*paths: Path | None, overwrite: bool) -> None:
    """Whether outputs may have these names, before hours are spent. Raises SourceError."""
    for path in paths:
        if path is not None and os.path.lexists(path) and not overwrite:
            raise SourceError(f"{path}: exists; choose another name or pass --overwrite")


def partial(path: Path) -> Path:
    """The hidden name beside `path` that holds it while it is written."""
    return path.with_name(f".{path.name}.partial")


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


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were not there, innermost first."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return new


def take_back(folders: list[Path]) -> None:
    """Remove folders that `make_folder` made, as far as nothing else is in them by now."""
    for folder in folders:
        with contextlib.suppress(OSError):  # something is in it, or it is gone already
            folder.rmdir()


class _Atomic:
    """What AtomicFile and AtomicFolder share: commit or abort, once; the first one counts."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._partial = partial(self.path)
        self._open = True
        with explained(self.path):
            self._new = make_folder(self.path.parent)

    def commit(self) -> None:
        """Give the output its name, replacing what had it. Raises SourceError; nothing is left."""
        if not self._open:
            return
        try:
            with explained(self.path):
                self._finish()
        except BaseException:
            self.abort()
            raise
        self._open = False

    def abort(self) -> None:
        """Remove what was written, without complaint; what had the name before stays.

        Folders made for it go too, where nothing else is in them by now.
        """
        if self._open:
            self._open = False
            # an abort often follows a full or unplugged disk: there is nothing more to do about it
            with contextlib.suppress(OSError):
                self._discard()
            take_back(self._new)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()

    def _finish(self) -> None:
        raise NotImplementedError

    def _discard(self) -> None:
        raise NotImplementedError


class AtomicFile(_Atomic):
    """A file in the making: write to `.file` (text is UTF-8), then `commit()` or `abort()`.

    As a context manager it commits at the end and aborts after any exception. Writing to `.file`
    raises OSError: wrap it in `explained(path)`. Raises SourceError.
    """

    def __init__(self, path: str | Path, mode: Literal["w", "wb"] = "w") -> None:
        super().__init__(path)
        text: dict[str, str] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with explained(self.path):
            self.file: IO[Any] = self._partial.open(mode, **text)  # type: ignore[call-overload]

    def _finish(self) -> None:
        self.file.close()
        self._partial.replace(self.path)

    def _discard(self) -> None:
        try:
            self.file.close()  # flushes, which fails again on a full disk
        finally:
            self._partial.unlink(missing_ok=True)


class AtomicFolder(_Atomic):
    """A folder in the making: put files into `.folder`, then `commit()` or `abort()`.

    A folder that had the name is removed only once the new one is whole. Raises SourceError.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.folder = self._partial
        with explained(self.path):
            _remove(self.folder)  # of a run that was killed
            self.folder.mkdir()

    def _finish(self) -> None:
        if not os.path.lexists(self.path):
            self.folder.replace(self.path)
            return
        old = self.path.with_name(f".{self.path.name}.old")
        _remove(old)
        self.path.replace(old)
        try:
            self.folder.replace(self.path)
        except OSError:
            old.replace(self.path)
            raise
        _remove(old)

    def _discard(self) -> None:
        _remove(self.folder)


def _remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a whole file (text as UTF-8), or none. Raises SourceError."""
    with AtomicFile(path, "wb") as output, explained(output.path):
        output.file.write(data.encode() if isinstance(data, str) else data)
