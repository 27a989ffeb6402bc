"""The one place that catches every exception: the end of the command line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from posekit.cli import signals
from posekit.errors import PosekitError

_LONGEST = 400  # characters of another library's message


class Guarded(TyperGroup):
    """The commands, in which an interruption is one line and its own exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Typer would end otherwise, depending on its version."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _end(error, "interrupted", signals.INTERRUPTED)


def run(app: Callable[[], object]) -> None:
    """Run the command line and end the process: an error is one line on stderr, never a trace.

    An expected error has its own exit code, an unexpected one 1. `--debug` shows the trace.
    """
    try:
        app()
    except KeyboardInterrupt as error:
        _end(error, "interrupted", signals.INTERRUPTED)
    except Exception as error:  # the last net, and the only one: see CONTRIBUTING.md
        if signals.is_interrupted():
            _end(error, "interrupted", signals.INTERRUPTED)
        if isinstance(error, PosekitError):
            _end(error, str(error), error.exit_code)
        _end(error, _described(error), 1)
    finally:
        signals.finish()
        _end_around_readers()


def _end_around_readers() -> None:
    """End the process at once where FFmpeg still waits for a network in a thread.

    PyAV takes Python's lock in FFmpeg's callbacks, which crashes while Python shuts down.
    """
    error = sys.exc_info()[1]
    waiting = any(thread.name.startswith("read ") for thread in threading.enumerate())
    if waiting and (error is None or isinstance(error, SystemExit)):
        code = 0 if error is None else error.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _end(error: BaseException, sentence: str, code: int) -> NoReturn:
    if "--debug" in sys.argv and not isinstance(error, KeyboardInterrupt):
        raise error
    from posekit.inputs.parsing import printable  # not before --help

    text = "; ".join([sentence, *getattr(error, "__notes__", [])])
    typer.echo(f"posekit: {printable(text)}", err=True)  # names in it may be anything
    sys.exit(code)


def _described(error: Exception) -> str:
    """An exception that is not posekit's own, in one sentence."""
    if isinstance(error, MemoryError):
        return (
            "out of memory; close other programs, or take a smaller input (--debug for the trace)"
        )
    kind, text = type(error).__name__, " ".join(str(error).split())
    text = f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text
    return f"stopped by an unexpected {kind}{': ' * bool(text)}{text}; run it with --debug for the trace"
