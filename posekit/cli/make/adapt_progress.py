"""What `posekit adapt` shows while it learns, and how Ctrl-C reaches it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

from posekit.cli import signals
from posekit.errors import InputError

if TYPE_CHECKING:
    from posekit.api import AdaptHooks

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


class Learning:
    """A line for each stage and reading, a bar with time left; Ctrl-C keeps what was learned."""

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._quiet = silent
        self._stopped = False
        console = Console(stderr=True)
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        title = TextColumn("{task.description}")
        hidden = silent or not sys.stderr.isatty()
        self._bars = Bars(title, *columns, console=console, disable=hidden, transient=True)
        self._task: Any = None

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
        """Around a step of learning, which is finished first."""
        with signals.graceful(self._interrupt):
            yield
        if self._stopped:
            signals.interrupt()

    def _interrupt(self) -> None:
        self._stopped = True
        signals.tell("stopping after this step; --resume goes on from there")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._bars.console.print(f"posekit: {text}", highlight=False, soft_wrap=True)

    def _stage(self, text: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._say(text)
        self._task = self._bars.add_task(text.split(",")[0][:40], total=None)

    def _count(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def _read(self, reading: Any, seconds: float) -> None:
        self._say(f"step {reading.step}, {seconds:.0f} s: {reading.describe()}")
        losses = ", ".join(f"{name} {value:.4g}" for name, value in reading.losses.items())
        self._say(f"  loss {losses}; score {reading.score:+.3f}")
        for warning in reading.warnings:
            self._say(f"  warning: {warning}")

    def report(self, adapted: Any, *, as_json: bool, quiet: bool) -> None:
        """Print the verdict: JSON, a few lines, or nothing."""
        if as_json:
            typer.echo(json.dumps(adapted.summary, indent=1))
        elif not quiet:
            for note in adapted.summary["facts"]["notes"]:
                typer.echo(f"note: {note}")
            typer.echo(f"{adapted.status}: {adapted.reason}")
            for path in adapted.outputs:
                typer.echo(f"wrote {path}")
