"""Many changed files in few processes, each with a deadline; what fails can be made again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.assets import ROOT
from tests.fuzz import kinds, seeds
from tests.processes import SOURCES
from tests.processes import run as posekit

DEADLINE_S = 20.0
_START_S = 120.0  # to load posekit, on a busy machine
_BATCH = 500  # files of one process


@dataclass
class Report:
    """faults: what is wrong, by number.  accepted: numbers.  memory_mb: the most of a process."""

    kind: str
    seed: int
    count: int = 0
    accepted: list[int] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    memory_mb: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0

    def again(self, number: int) -> str:
        """The command that does this one alone."""
        return f"PYTHONPATH=.:engines:finetune python -m tests.fuzz {self.kind} --seed {self.seed} --only {number}"

    def text(self) -> str:
        """Counts, then each fault with the command that makes it again."""
        lines = [
            f"{self.kind}: {self.count} files in {self.seconds:.0f} s, {len(self.accepted)} accepted, "
            f"{len(self.faults)} faults, slowest {self.slowest_s:.1f} s, {self.memory_mb} MB"
        ]
        lines += [f"{self.again(n)}\n{fault}" for n, fault in sorted(self.faults.items())]
        return "\n".join(lines)


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
            report.count -= 1
            _, fault = _batch(report, range(first - 1, first), folder)
            if fault:
                report.faults[first - 1] = fault
    report.seconds = time.monotonic() - began
    return report


def _batch(report: Report, numbers: range, folder: Path) -> tuple[int, str]:
    """One process; the number to go on with, and how it ended at the one before, or ""."""
    read, write = os.pipe()
    arguments = [report.kind, report.seed, numbers.start, numbers.stop, folder, write]
    log = folder / "child.log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child", *map(str, arguments)],
            pass_fds=[write],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": SOURCES},
            stdout=errors,
            stderr=errors,
        )
    os.close(write)
    at, since, fault = numbers.start, time.monotonic(), ""
    ready = done = False
    try:
        limit = _START_S
        for line in _lines(read, lambda: limit - (time.monotonic() - since)):
            what, number, text = json.loads(line)
            ready = True
            if what in ("start", "ready"):
                at, since = number, time.monotonic()
                limit = DEADLINE_S if what == "start" else _START_S
                continue
            if what == "end":
                report.memory_mb, done = max(report.memory_mb, number), True
                break
            report.slowest_s = max(report.slowest_s, time.monotonic() - since)
            report.count += 1
            at, since, limit = number + 1, time.monotonic(), _START_S
            if what == "fault":
                report.faults[number] = text
            elif what == "accepted":
                report.accepted.append(number)
    except TimeoutError:
        fault = f"no end within {DEADLINE_S:.0f} s"
    finally:
        os.close(read)
        if not done:
            with contextlib.suppress(OSError):
                child.kill()
        code = child.wait()
    if done:
        return numbers.stop, ""
    report.count += 1
    tail = log.read_text("utf-8", "replace")[-2000:]
    assert ready, f"{report.kind}: a file that was not changed is no good: {fault}{tail}"
    return at + 1, fault or f"the process died with {code}: {tail}"


def _lines(pipe: int, seconds_left: Any) -> Iterator[str]:
    """Lines from a pipe until it ends. Raises TimeoutError after `seconds_left()` of silence."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, seconds_left()))
        if not ready:
            raise TimeoutError
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in lines)


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
        sentence = [line for line in err.splitlines() if line.startswith("posekit: ")]
        ends_well = code == 0 or (code in (1, 3) and sentence)
        if not ends_well or "Traceback" in err or "unexpected" in err:
            wrong[number] = f"{report.again(number)}\n{' '.join(arguments)}: {code}, {err[-2000:]}"
    return wrong
