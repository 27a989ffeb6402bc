"""A thread that reads each signal when it arrives, and ends the process after the second one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

INTERRUPTED = 130
"""What the process ends with after any of these signals."""

_ECHO_S = 0.1  # a terminal and a parent process may both pass on the same Ctrl-C
_CLEAN_S = 1.0  # for removing hidden files; then the process ends whatever the disk does
_UNWIND_S = 10.0  # for the end after an interruption; a C call may be in the way for longer


def tell(sentence: str) -> None:
    """A line on stderr from a signal handler, whatever is being printed there."""
    with contextlib.suppress(OSError):
        os.write(2, f"posekit: {sentence}\n".encode())


def watch(read_end: int, handled: set[int], interrupted_s: Callable[[], float | None]) -> None:
    """Read the numbers of signals from a pipe for ever, whatever the main thread does.

    interrupted_s: when the command was interrupted, on the monotonic clock, or None.
    """
    first_s: float | None = None
    while data := os.read(read_end, 1):
        if data[0] not in handled:
            continue
        now = time.monotonic()
        if first_s is not None and now - first_s > _ECHO_S:
            _end()
        if first_s is None:
            first_s = now
            late = threading.Thread(target=_end_late, args=(interrupted_s,), daemon=True)
            late.start()


def _end_late(interrupted_s: Callable[[], float | None]) -> None:
    """End the process where an interruption has not done so: swallowed, or held up in C."""
    while (since_s := interrupted_s()) is None or time.monotonic() - since_s < _UNWIND_S:
        time.sleep(0.2)
    _end()


def _end() -> None:
    """Remove what is under way and end the process, without waiting for any thread."""
    from posekit.atomic import discard_all

    cleaning = threading.Thread(target=discard_all, daemon=True)
    cleaning.start()
    cleaning.join(_CLEAN_S)
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
    tell(f"ended at once{show_cursor}")
    os._exit(INTERRUPTED)
