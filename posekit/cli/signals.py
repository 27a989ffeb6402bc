"""Ctrl-C and SIGTERM: the first ends a command in order, the second ends the process at once."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from posekit.cli.at_once import INTERRUPTED, tell, watch

__all__ = [
    "INTERRUPTED",
    "Interrupted",
    "finish",
    "graceful",
    "install",
    "interrupt",
    "is_interrupted",
    "tell",
]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two where the system has them


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first signal, unless a `graceful` block takes it.

    It may come out as another exception: modules in C turn it into an ImportError while they are
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
    atexit.register(_ignore, handled)  # the first to be registered is the last to run
    work = (read_end, handled, lambda: _signals.raised_s)
    threading.Thread(target=watch, args=work, name="signals", daemon=True).start()


def _ignore(handled: set[int]) -> None:
    """All is written; while the interpreter goes, Python would set the system's own handling."""
    for number in handled:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def graceful(first: Callable[[], None]) -> Iterator[None]:
    """Within the block the first signal calls `first`, in the main thread, instead of raising."""
    before, _signals.first = _signals.first, first
    try:
        yield
    finally:
        _signals.first = before


def finish() -> None:
    """The command is done: the first signal changes nothing any more, the second ends at once."""
    _signals.first = lambda: None
