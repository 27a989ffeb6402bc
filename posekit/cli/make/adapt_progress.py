"""What `posekit adapt` shows while it runs, and how Ctrl-C reaches it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

from posekit.cli import signals
from posekit.errors import InputError

if TYPE_CHECKING:
    from posekit.api import AdaptHooks

LINE_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal for a bar."""

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def seconds_of(budget: str | None) -> float | None:
    """`20min`, `90s`, `1.5h` in seconds. Raises InputError."""
    if budget is None:
        return None
    found = re.fullmatch(r"([0-9.]+)\s*(s|sec|min|m|h)", budget.strip())
    try:
        return float(found[1]) * _UNITS[found[2]] if found else float("")
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
        shown = f"; about {_minutes(left)} left" if left is not None else ""
        return f"{self._title}: {done:,} of {total:,}{shown}"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class AdaptProgress:
    """A line for each stage and evaluation, and a bar with the time left.

    Without a terminal the bar is a line a minute. Ctrl-C keeps what was learned.
    """

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._quiet = silent
        self._stopped = False
        console = Console(stderr=True)
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        title = TextColumn("{task.description}")
        self._piped = not sys.stderr.isatty()
        hidden = silent or self._piped
        self._bars = Bars(title, *columns, console=console, disable=hidden, transient=True)
        self._task: Any = None
        self._clock = StageClock("", time.monotonic())

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bars.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            typer.echo("posekit: stopped; the same command with --resume goes on", err=True)
            raise typer.Exit(signals.INTERRUPTED)

    def hooks(self) -> AdaptHooks:
        """For `posekit.api.adapt`. Raises MissingExtraError."""
        from posekit import api

        return api.AdaptHooks(
            on_stage=self._stage,
            on_count=self._count,
            on_reading=self._read,
            stopped=lambda: self._stopped,
            deferred=self._deferred,
        )

    @contextmanager
    def _deferred(self) -> Iterator[None]:
        """Around a training step, which is finished first."""
        with signals.graceful(self._interrupt):
            yield
        if self._stopped:
            signals.interrupt()

    def _interrupt(self) -> None:
        self._stopped = True
        signals.tell("stopping after this step; --resume goes on from there")

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._bars.console.print(f"posekit: {text}", highlight=False, soft_wrap=True)

    def _stage(self, text: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._print(text)
        title = re.split("[,;:]", text)[0]
        self._clock = StageClock(title, time.monotonic())
        self._task = self._bars.add_task(title[:40], total=None)

    def _count(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
        if self._piped and (line := self._clock.line(done, total, time.monotonic())):
            self._print(line)

    def _read(self, reading: Any, seconds: float) -> None:
        self._print(f"step {reading.step:,} after {_minutes(seconds)}: {reading.describe()}")
        for warning in reading.warnings:
            self._print(f"  warning: {warning}")

    def report(self, adapted: Any, *, as_json: bool, quiet: bool) -> None:
        """Print the verdict: JSON, a few lines, or nothing."""
        if as_json:
            typer.echo(json.dumps(adapted.summary, indent=1))
        elif not quiet:
            typer.echo(adapted.headline)
            typer.echo(adapted.reason)
            for path in adapted.outputs:
                typer.echo(f"wrote {path}")
