"""posekit as a process of its own, which signals reach as in a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.assets import ROOT

SOURCES = os.pathsep.join(str(ROOT / name) for name in ("", "engines", "finetune"))


def start(
    *arguments: object, cwd: Path | None = None, program: str | None = None
) -> subprocess.Popen[str]:
    """`posekit ARGUMENTS`, or `program` in its place, with the system's own signal handling.

    A shell starts its background jobs with Ctrl-C ignored, and their children inherit that.
    """
    python = [sys.executable, "-c", program] if program else [sys.executable, "-m", "posekit"]
    return subprocess.Popen(
        [*python, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": SOURCES},
        preexec_fn=_default_signals,  # no thread of this process holds a lock here
    )


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def run(
    *arguments: object, cwd: Path | None = None, program: str | None = None
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = start(*arguments, cwd=cwd, program=program)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
