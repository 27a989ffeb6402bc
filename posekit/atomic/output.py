"""Files and folders in the making, alone or several together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from posekit.atomic import hidden
from posekit.atomic.checks import check_free, explained
from posekit.atomic.lock import Lock, release_all

INCOMPLETE = ".incomplete"
"""What the names of unfinished outputs end with."""

_TRIES = 5
_STALE_S = 86_400.0  # a hidden file of a cache that is older was left by a killed process


class _Atomic:
    """What all of them share: commit or abort, once; the first one counts."""

    def __init__(self, outputs: Sequence[Path], *, overwrite: bool | None) -> None:
        self._open = True
        self._locks: list[Lock] = []
        self._new: list[Path] = []
        existed = {path: os.path.lexists(path) for path in outputs}
        # what appeared since then is another run's and is not replaced, unless that was requested
        self._replaced = existed if overwrite is None else dict.fromkeys(outputs, overwrite)
        try:
            for path in outputs:
                with explained(path):
                    self._claim(path)
            check_free(*(each for each in outputs if not self._replaced[each]), overwrite=False)
        except BaseException:
            self._release()
            raise

    def _claim(self, path: Path) -> None:
        """Make the folder, keep other runs out, and clear what a killed one left."""
        for tries in reversed(range(_TRIES)):
            self._new[:0] = hidden.make_folder(path.parent)
            try:
                lock = Lock(hidden.beside(path, "lock"), f"{path}: another run is writing it")
            except FileNotFoundError:  # a run that failed took the folder back
                if not tries:
                    raise
                continue
            self._locks.append(lock)
            if lock.was_left:
                hidden.clear_leftovers(path)
            return

    def commit(self) -> None:
        """Give the output its name, replacing what had it. Raises SourceError; nothing is left.

        What has appeared under the name since this was opened is not replaced.
        """
        if not self._open:
            return
        try:
            self._finish()
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._release()

    def abort(self) -> None:
        """Remove what was written, without complaint; what had the name before stays.

        Folders made for it go too, where nothing else is in them by now.
        """
        if self._open:
            self._open = False
            # an abort often follows a full or unplugged disk: there is nothing more to do about it
            with contextlib.suppress(OSError):
                self._discard()
            self._release()

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks.clear()
        hidden.remove_empty(self._new)

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


class _AtomicOne(_Atomic):
    """One file or folder: it can also be kept unfinished, under a name that says so.

    partial: its hidden path until then, for what writes by path.
    """

    partial: Path

    def __init__(self, path: str | Path, *, overwrite: bool | None = None) -> None:
        self.path = Path(path)
        super().__init__([self.path], overwrite=overwrite)

    def keep_incomplete(self) -> Path:
        """Keep what was written as `<name>.incomplete`, whose path is returned.

        An older one of that name is replaced. Raises SourceError; nothing is left then.
        """
        path = self.path.with_name(self.path.name + INCOMPLETE)
        try:
            with explained(path):
                self._close()
                if path.is_dir() and not path.is_symlink():
                    hidden.remove(path)
                hidden.give_name(self.partial, path, replace=True)
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._release()
        return path

    def _close(self) -> None:
        """Close what is open; nothing by default."""


class AtomicFile(_AtomicOne):
    """A file in the making: write to `.file` (text is UTF-8), then `commit()` or `abort()`.

    As a context manager it commits at the end and aborts after any exception. Writing to `.file`
    raises OSError: wrap it in `explained(path)`.
    overwrite: False: the name must be free; None: what has it now may be replaced, but nothing
    that appears later.  Raises SourceError, also where another run is writing the same file.
    """

    def __init__(
        self,
        path: str | Path,
        mode: Literal["w", "wb"] = "w",
        *,
        overwrite: bool | None = None,
    ) -> None:
        super().__init__(path, overwrite=overwrite)
        text: dict[str, str] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        try:
            with explained(self.path):
                number, self.partial = hidden.create_file(self.path)
                self.file: IO[Any] = os.fdopen(number, mode, **text)  # type: ignore[call-overload]
        except BaseException:
            self._release()
            raise

    def _finish(self) -> None:
        with explained(self.path):
            self._close()
            hidden.give_name(self.partial, self.path, replace=self._replaced[self.path])

    def _close(self) -> None:
        self.file.close()

    def _discard(self) -> None:
        try:
            self.file.close()  # flushes, which fails again on a full disk
        finally:
            hidden.discard(self.partial)


class AtomicFolder(_AtomicOne):
    """A folder in the making: put files into `.folder`, then `commit()` or `abort()`.

    A folder that had the name is removed only once the new one is whole. overwrite: as for
    AtomicFile.  Raises SourceError.
    """

    def __init__(self, path: str | Path, *, overwrite: bool | None = None) -> None:
        super().__init__(path, overwrite=overwrite)
        try:
            with explained(self.path):
                self.partial = self.folder = hidden.create_folder(self.path)
        except BaseException:
            self._release()
            raise

    def _finish(self) -> None:
        with explained(self.path):
            if not self._replaced[self.path]:
                hidden.give_name(self.folder, self.path, replace=False)
                return
            old = hidden.unique(self.path, hidden.OLD)
            done: list[tuple[Path, Path]] = []
            with _undone(done):
                _move(self.path, old, done)
                _move(self.folder, self.path, done)
            hidden.remove(old)

    def _discard(self) -> None:
        hidden.discard(self.folder)


class AtomicFiles(_Atomic):
    """Several outputs that appear together or not at all, the first of them last.

    Write each to `place(output)`: hidden, under its own name, beside others of the same folder.
    Where the first was written, others that were not are removed: they belonged to what it
    replaced. An output that is None is not wanted.  Raises SourceError (exists, cannot be written,
    another run is writing one of them).
    """

    def __init__(self, outputs: Sequence[str | Path | None], *, overwrite: bool) -> None:
        self.outputs = [Path(path) for path in outputs if path is not None]
        self._folders: dict[Path, Path] = {}
        super().__init__(self.outputs, overwrite=overwrite)
        try:
            for path in self.outputs:
                if path.parent not in self._folders:
                    with explained(path):
                        folder = self._folders[path.parent] = hidden.create_folder(path, hidden.SET)
                        for name in (hidden.NEW, hidden.OLD):
                            (folder / name).mkdir()
        except BaseException:
            self.abort()
            raise

    def place(self, output: str | Path) -> Path:
        """Where to write an output until `commit`."""
        path = Path(output)
        return self._folders[path.parent] / hidden.NEW / path.name

    def optional(self, output: Path | None) -> Path | None:
        """`place` of an output that may not be wanted."""
        return None if output is None else self.place(output)

    def _finish(self) -> None:
        written = [path for path in self.outputs if self.place(path).exists()]
        leaving = self.outputs if self.outputs[:1] == written[:1] else written
        done: list[tuple[Path, Path]] = []
        for folder in self._folders.values():
            with explained(self.outputs[0]):
                hidden.note_moves(folder)
        with _undone(done):
            for path in leaving:
                if self._replaced[path]:
                    _move(path, self._folders[path.parent] / hidden.OLD / path.name, done)
            for path in reversed(written):
                _move(self.place(path), path, done)
        self._discard()

    def _discard(self) -> None:
        for folder in self._folders.values():
            hidden.discard(folder)


def write_atomic(
    path: str | Path, data: bytes | str, *, overwrite: bool | None = None, shared: bool = False
) -> None:
    """Write a whole file (text as UTF-8), or none. Raises SourceError.

    shared: other processes may write the same file at the same time, as in a cache: each succeeds,
    and the last one's stays.  overwrite: as for AtomicFile.
    """
    path, content = Path(path), data.encode() if isinstance(data, str) else data
    if not shared:
        with AtomicFile(path, "wb", overwrite=overwrite) as output, explained(path):
            output.file.write(content)
        return
    with explained(path):
        hidden.make_folder(path.parent)
        hidden.clear_leftovers(path, older_s=_STALE_S)
        number, place = hidden.create_file(path)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
            hidden.give_name(place, path, replace=True)
        finally:
            hidden.discard(place)


def discard_all() -> None:
    """Remove what this process has under way; for the end of the process only."""
    hidden.discard_all()
    release_all()


@contextlib.contextmanager
def _undone(done: list[tuple[Path, Path]]) -> Iterator[None]:
    """Take back the renames that the block has noted, where it fails."""
    try:
        yield
    except BaseException:
        for source, target in reversed(done):
            target.replace(source)
        raise


def _move(source: Path, target: Path, done: list[tuple[Path, Path]]) -> None:
    """Rename and remember it; what is not there is left out. Raises SourceError."""
    if os.path.lexists(source):
        with explained(target):
            hidden.give_name(source, target, replace=False)
        done.append((source, target))
