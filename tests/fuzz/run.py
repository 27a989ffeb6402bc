"""Many changed files in few processes, each with a deadline; what fails can be made again."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import kinds, seeds
from tests.support.assets import ROOT
from tests.support.processes import SOURCES
from tests.support.processes import run as posekit

PROGRAM = ["-m", "tests.fuzz.child"]
DEADLINE_S = 20.0
_BETWEEN_S = 200.0  # to load posekit and use the files that are not changed, on a busy machine
_BATCH = 500  # files of one process


@dataclass
class Report:
    """faults: what is wrong, by number.  accepted: numbers.

    slowest_s, memory_mb: the most of a file and of a process, and the number where it was.
    """

    kind: str
    seed: int
    count: int = 0
    accepted: list[int] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    memory_mb: tuple[int, int] = (0, 0)
    slowest_s: tuple[float, int] = (0.0, 0)
    seconds: float = 0.0

    def again(self, number: int) -> str:
        """The command that does this one alone."""
        program = "PYTHONPATH=.:engines:finetune python -m tests.fuzz"
        return f"{program} {self.kind} --seed {self.seed} --only {number}"

    def text(self) -> str:
        """Counts, then each fault with the command that makes it again."""
        (slowest_s, slow), (most_mb, large) = self.slowest_s, self.memory_mb
        head = (
            f"{self.kind}: {self.count} files in {self.seconds:.0f} s, {len(self.accepted)} "
            f"accepted, {len(self.faults)} faults; slowest {slowest_s:.1f} s ({slow}), "
            f"most memory {most_mb} MB ({large})"
        )
        faults = [f"{self.again(n)}\n{fault}" for n, fault in sorted(self.faults.items())]
        return "\n".join([head, *faults])

    def note(self, what: str, number: int, text: str, *, mb: int, seconds: float) -> None:
        """What became of one file."""
        self.count += 1
        self.slowest_s = max(self.slowest_s, (seconds, number))
        if mb > self.memory_mb[0]:
            self.memory_mb = mb, number
        if what == "fault":
            self.faults[number] = text
        elif what == "accepted":
            self.accepted.append(number)


def fuzz(kind: str, numbers: range, folder: Path, seed: int = 0) -> Report:
    """Change and use the files of these numbers; a process that hangs or dies is replaced."""
    began = time.monotonic()
    report = Report(kind, seed)
    for each in ("bundles", kind):
        seeds.make(each, folder / f"seeds-{each}")
    first = numbers.start
    while first < numbers.stop:
        last = min(first + _BATCH, numbers.stop)
        first, fault = _batch(report, range(first, last), folder)
        if fault:  # once more, alone: the machine may have been busy
            _, fault = _batch(report, range(first - 1, first), folder)
        if fault:
            report.note("fault", first - 1, fault, mb=0, seconds=0)
    report.seconds = time.monotonic() - began
    return report


def _batch(report: Report, numbers: range, folder: Path) -> tuple[int, str]:
    """One process; the number to go on with, and how it ended at the one before, or ""."""
    at, fault, is_ready = numbers.start, "", False
    child = _Child(report, numbers, folder)
    try:
        for what, number, text, mb, seconds in child.events():
            is_ready = True
            at = number
            if what == "end":
                return numbers.stop, ""
            if what not in ("ready", "start"):
                report.note(what, number, text, mb=mb, seconds=seconds)
                at = number + 1
    except TimeoutError:
        fault = f"no end within {DEADLINE_S:.0f} s"
    finally:
        code = child.close()
    fault = fault or f"the process died with {code}: {child.log()}"
    assert is_ready, f"{report.kind}: a file that was not changed is no good: {fault}"
    return at + 1, fault


class _Child:
    """The process of tests/fuzz/child.py and the pipe that it writes to."""

    def __init__(self, report: Report, numbers: range, folder: Path) -> None:
        self._pipe, write = os.pipe()
        arguments = [report.kind, report.seed, numbers.start, numbers.stop, folder, write]
        self._log = folder / "child.log"
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *PROGRAM, *map(str, arguments)],
                pass_fds=[write],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": SOURCES},
                stdout=errors,
                stderr=errors,
            )
        os.close(write)

    def events(self) -> Iterator[tuple[str, int, str, int, float]]:
        """What it tells, and the seconds since it told the last thing. Raises TimeoutError."""
        rest, since, limit_s = b"", time.monotonic(), _BETWEEN_S
        while True:
            left_s = limit_s - (time.monotonic() - since)
            if not select.select([self._pipe], [], [], max(0.0, left_s))[0]:
                raise TimeoutError
            data = os.read(self._pipe, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                what, number, text, mb = json.loads(line)
                yield what, number, text, mb, time.monotonic() - since
                since = time.monotonic()
                limit_s = DEADLINE_S if what == "start" else _BETWEEN_S

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-2000:]

    def close(self) -> int:
        os.close(self._pipe)
        self._process.kill()
        return self._process.wait()


def commands(report: Report, count: int, folder: Path) -> dict[int, str]:
    """Accepted files given to `posekit` itself, evenly chosen; what ends otherwise than it may."""
    step = max(1, len(report.accepted) // max(count, 1))
    wrong = {}
    for number in report.accepted[::step][:count]:
        path = kinds.changed(report.kind, report.seed, number, folder)
        arguments = kinds.command(report.kind, path, folder)
        if arguments is None:
            continue
        code, _, err = posekit(*arguments)
        sentence = any(line.startswith("posekit: ") for line in err.splitlines())
        ends_well = code == 0 or (code in (1, 3) and sentence)
        if not ends_well or "Traceback" in err or "unexpected" in err:
            wrong[number] = f"{report.again(number)}\n{' '.join(arguments)}: {code}, {err[-2000:]}"
    return wrong
