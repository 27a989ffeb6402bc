"""Threads that wait in FFmpeg and can be interrupted, for which PyAV has no function.

While FFmpeg waits for a network, PyAV compares the time limit with `time.monotonic` of its module
`av.container.core`, ten times a second. For an interrupted thread that clock runs past any limit.
A thread left in there would crash the process: PyAV takes Python's lock while Python shuts down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from av.container import core

_LEAP_S = 1e9  # between two readings, more than any time limit


class InterruptibleThread(threading.Thread):
    """A daemon thread whose waiting in FFmpeg ends, with FFmpeg's error, after `interrupt`."""

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._leaps: int | None = None

    def interrupt(self) -> None:
        """End its waiting, the present one and every later one."""
        self._leaps = 0

    def monotonic(self) -> float:
        """The clock that PyAV goes by in this thread."""
        if self._leaps is None:
            return time.monotonic()
        self._leaps += 1
        return time.monotonic() + self._leaps * _LEAP_S


class _Clock:
    """Takes the place of the module `time` in PyAV."""

    @staticmethod
    def monotonic() -> float:
        """Seconds; other threads than those above have the real time."""
        thread = threading.current_thread()
        if isinstance(thread, InterruptibleThread):
            return thread.monotonic()
        return time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """All else that a version of PyAV may take from the module."""
        return getattr(time, name)


core.time = _Clock()  # type: ignore[attr-defined]
