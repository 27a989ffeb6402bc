"""What commands show while they work, and how Ctrl-C reaches `posekit infer`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from posekit.infer import SourceSummary


class Progress:
    """A bar a source on stderr, with rate and time left; the first Ctrl-C sets `hooks.stop`.

    A second Ctrl-C interrupts at once. Silent where asked, and where stderr is no terminal.
    """

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        from posekit.infer import Hooks

        self.hooks = Hooks(on_frame=self._update, on_show=self._announce)
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
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.hooks.stop.is_set():
            raise KeyboardInterrupt
        self.hooks.stop.set()
        typer.echo("posekit: finishing the frames in hand; Ctrl-C again to drop them", err=True)

    def _update(self, summary: SourceSummary) -> None:
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

    def report(self, summary: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
        """Print what was done: JSON, a few lines, or nothing."""
        if as_json:
            typer.echo(json.dumps(summary, indent=1, ensure_ascii=False))
        elif not quiet:
            for source in summary["sources"]:
                typer.echo(_line(source))
                for note in source["notes"]:
                    typer.echo(f"  note: {note}")
            model, run = summary["model"], summary["runtime"]
            typer.echo(
                f"{model['name']} (flip {'on' if run['flip'] else 'off'}) on {run['provider']}, "
                f"{run['threads']} threads; results in {summary['output']}"
            )
            for note in [*summary["boxes"]["notes"], *run["notes"]]:
                typer.echo(f"  note: {note}")


def _line(source: dict[str, Any]) -> str:
    persons = f"{source['ids']} ids" if source["ids"] else f"{source['persons']} persons"
    drops = f", {source['dropped']} frames dropped" if source["dropped"] else ""
    return (
        f"{source['source']}: {source['frames']} frames, {persons}, {source['seconds']:.1f} s, "
        f"{source['rate']:.1f} frames/s{drops}"
    )


@contextmanager
def counted(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much is done; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)
