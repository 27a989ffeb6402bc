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
from posekit.cli.make.stage_clock import StageClock, minutes

if TYPE_CHECKING:
    from posekit.api import AdaptHooks


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
        title = TextColumn("{task.description}")
        columns = title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._piped = not sys.stderr.isatty()
        self._bars = Bars(*columns, console=console, disable=silent or self._piped, transient=True)
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
        self._print(f"step {reading.step:,} after {minutes(seconds)}: {reading.describe()}")
        for warning in reading.warnings:
            self._print(f"  warning: {warning}")

    def report(self, adapted: Any, *, as_json: bool, quiet: bool) -> None:
        """Print the verdict: JSON, a few lines, or nothing."""
        if as_json:
            typer.echo(json.dumps(adapted.summary, indent=1))
        elif not quiet:
            typer.echo(adapted.headline)
            typer.echo(adapted.reason)
            for note in adapted.summary["facts"]["notes"]:
                typer.echo(f"note: {note}")
            for path in adapted.outputs:
                typer.echo(f"wrote {path}")
