"""Times of `posekit adapt`: a budget as text, and the time left in a stage."""

from __future__ import annotations

import re

from posekit.errors import InputError

LINE_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal for a bar."""


_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


_PART = r"([0-9.]+)\s*(h|min|m|sec|s)\s*"


def seconds_of(budget: str | None) -> float | None:
    """`20min`, `90s`, `1.5h`, `1h24min` in seconds. Raises InputError."""
    if budget is None:
        return None
    parts = re.findall(_PART, budget) if re.fullmatch(rf"({_PART})+", budget.strip()) else []
    try:
        return sum(float(number) * _UNITS[unit] for number, unit in parts) or float("")
    except ValueError:
        raise InputError(f"--budget {budget}: wanted a time such as 20min, 90s or 1h") from None


class StageClock:
    """The time left in a stage, from the counts it reports.

    `line` gives one at most every LINE_EVERY_S, and None between them.
    """

    def __init__(self, title: str, now: float) -> None:
        self._title = title
        self._started = self._shown = now
        self._first: int | None = None

    def line(self, done: int, total: int, now: float) -> str | None:
        """A line of progress, if one is due."""
        if self._first is None:
            self._first, self._started = done, now  # a resumed stage does not begin at 0
        if now - self._shown < LINE_EVERY_S:
            return None
        self._shown = now
        steps = done - self._first
        left = (now - self._started) * (total - done) / steps if steps > 0 else None
        shown = f"; about {minutes(left)} left" if left is not None else ""
        return f"{self._title}: {done:,} of {total:,}{shown}"


def minutes(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 1 h 5 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
