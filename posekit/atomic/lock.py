"""One process at a time writes an output: a lock file that a killed process no longer holds."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from posekit.errors import SourceError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: set[Lock] = set()

if sys.platform == "win32":
    import msvcrt

    def _try_lock(number: int) -> None:
        """Raises PermissionError where another process holds it."""
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(number: int) -> None:
        """Raises BlockingIOError where another process holds it."""
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """An empty file that is held from here to `release`, which removes it.

    was_left: it was there already, of a process that was killed. On a file system without locks
    it keeps no one out.  Raises SourceError that says `refusal` where another process holds it,
    OSError where it cannot be made.
    """

    def __init__(self, path: Path, refusal: str) -> None:
        self.path = path
        self.was_left = False
        while True:
            self._number = self._opened(refusal)
            if self._acquired(refusal):
                break
            os.close(self._number)
        _held.add(self)

    def _opened(self, refusal: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            number = os.open(self.path, flags | os.O_EXCL, 0o666)
        except FileExistsError:
            pass
        else:
            return number
        if self.path.is_symlink():
            raise SourceError(f"{refusal}, or {self.path.name} beside it is a link: remove that")
        self.was_left = True
        return os.open(self.path, flags, 0o666)

    def _acquired(self, refusal: str) -> bool:
        """False where the file was removed by its holder meanwhile, and another try is due."""
        try:
            _try_lock(self._number)
        except (BlockingIOError, PermissionError) as error:
            os.close(self._number)
            raise SourceError(f"{refusal}; wait for it, or choose another name") from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(self._number)
                raise
        ours = os.fstat(self._number)
        try:
            named = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116  # not that of a link
        except FileNotFoundError:
            return False
        return os.path.samestat(ours, named)

    def release(self) -> None:
        """Let others write. Safe to call twice."""
        if self in _held:
            _held.discard(self)
            if sys.platform == "win32":  # an open file cannot be removed there
                os.close(self._number)
            with contextlib.suppress(OSError):  # the folder may be gone, and the lock with it
                self.path.unlink()
            if sys.platform != "win32":
                os.close(self._number)


def release_all() -> None:
    """Release every lock of this process; for its end only."""
    for lock in list(_held):
        lock.release()
