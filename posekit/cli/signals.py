"""Ctrl-C and SIGTERM: the first asks a command to end, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""What the process ends with after any of these signals."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two where the system has them
_ECHO_S = 0.1  # a terminal and a parent process may both pass on the same Ctrl-C
_CLEAN_S = 1.0  # for removing hidden files; then the process ends whatever the disk does
_UNWIND_S = 10.0  # for the end after an interruption; a C call may be in the way for longer


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first signal, unless a `graceful` block takes it.

    It may come out as another exception: modules in C answer it with an ImportError while they are
    loaded. `is_interrupted` knows.
    """


class _Signals:
    """Handlers of this process, and what the first signal does."""

    def __init__(self) -> None:
        self.first: Callable[[], None] | None = None
        self.raised_s: float | None = None

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """In the main thread, between two lines of Python: a C call that runs is awaited."""
        if self.first is None:
            interrupt()
        else:
            self.first()


_signals = _Signals()


def interrupt() -> NoReturn:
    """End the command from here. Raises Interrupted."""
    _signals.raised_s = time.monotonic()
    raise Interrupted


def is_interrupted() -> bool:
    """Whether an Interrupted was raised, whatever came of it."""
    return _signals.raised_s is not None


def install() -> None:
    """Handle the signals in every command, from the main thread on."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    handled = set()
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            continue  # ignored by nohup, on purpose
        signal.signal(number, _signals.handle)
        handled.add(int(number))
    threading.Thread(target=_watch, args=(read_end, handled), name="signals", daemon=True).start()


@contextlib.contextmanager
def graceful(first: Callable[[], None]) -> Iterator[None]:
    """Within the block the first signal calls `first`, in the main thread, instead of raising."""
    before, _signals.first = _signals.first, first
    try:
        yield
    finally:
        _signals.first = before


def tell(sentence: str) -> None:
    """A line on stderr from a signal handler, whatever is being printed there."""
    with contextlib.suppress(OSError):
        os.write(2, f"posekit: {sentence}\n".encode())


def uninstall() -> None:
    """The command is done: from here on a signal ends the process as the system does it."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == _signals.handle:
            signal.signal(number, signal.SIG_DFL)


def _watch(read_end: int, handled: set[int]) -> None:
    """The thread that sees each signal when it comes, whatever the main thread does."""
    seen_s: float | None = None
    while data := os.read(read_end, 1):
        if data[0] not in handled:
            continue
        now = time.monotonic()
        if seen_s is not None and now - seen_s > _ECHO_S:
            _end()
        if seen_s is None:
            seen_s = now
            threading.Thread(target=_end_late, name="signals, late", daemon=True).start()


def _end_late() -> None:
    """Ends the process where an interruption has not done so: swallowed, or held up in C."""
    while _signals.raised_s is None or time.monotonic() - _signals.raised_s < _UNWIND_S:
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
