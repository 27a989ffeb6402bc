"""What commands show while they work, and how Ctrl-C reaches `posekit infer`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

from posekit.cli import infer_summary, signals
from posekit.inputs.parsing import printable

if TYPE_CHECKING:
    from posekit.infer.summary import SourceSummary


class Progress:
    """A bar a source on stderr, with rate and time left; the first Ctrl-C sets `hooks.stop`.

    Before the first frame it raises instead. Bars are left out where `silent`, and where stderr is
    no terminal.
    """

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        from posekit.infer import Hooks

        self.hooks = Hooks(
            on_frame=self._update, on_show=self._announce, on_error=self._announce_error
        )
        self._frames = False
        self._stack = ExitStack()
        self._silent = silent or not sys.stderr.isatty()
        self._tasks: dict[str, Any] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} frames/s"),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*columns, console=Console(stderr=True), disable=self._silent)

    def __enter__(self) -> Self:
        self._stack.enter_context(signals.graceful(self._interrupt))
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._stack.close()

    def _interrupt(self) -> None:
        if not self._frames:
            signals.interrupt()
        self.hooks.stop.set()
        signals.tell("finishing the frames in hand; Ctrl-C again to drop them")

    def _update(self, summary: SourceSummary) -> None:
        self._frames = True
        if self._silent:
            return
        if summary.source not in self._tasks:
            self._tasks[summary.source] = self._bars.add_task(
                summary.source[-40:], total=summary.frame_count, rate="-"
            )
        rate = f"{summary.frames / max(summary.seconds, 1e-9):.1f}"
        self._bars.update(self._tasks[summary.source], completed=summary.frames, rate=rate)

    def _announce(self, url: str) -> None:
        typer.echo(f"posekit: watch {url}", err=True)

    def _announce_error(self, sentence: str) -> None:
        typer.echo(printable(f"posekit: {sentence}; going on with the others"), err=True)

    def report(self, summary: dict[str, Any], *, as_json: bool, quiet: bool) -> int:
        """Print what was done: JSON, a few lines, or nothing; returns the exit code.

        Images that were left out are named in any case.
        """
        for source in summary["sources"]:
            if source["unreadable"]:
                typer.echo(printable(infer_summary.unreadable(source)), err=True)
        if as_json:
            typer.echo(json.dumps(summary, indent=1, ensure_ascii=False))
        elif not quiet:
            typer.echo("\n".join(map(printable, infer_summary.lines(summary))))
        if summary["interrupted"]:
            return signals.INTERRUPTED
        return 1 if summary["failed"] else 0


@contextmanager
def counted(title: str, total: int, *, silent: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much is done; silent too where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    hidden = silent or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=hidden) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)
