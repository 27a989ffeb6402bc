"""Changed files: no traceback, no hang, bounded memory, and what is accepted also runs.

A few of each kind in the plain suite, thousands with --slow; `python -m tests.fuzz` runs more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz import child, kinds, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited there")
SEED = 0
FEW = {"bundles": 50, "texts": 70, "media": 45, "checkpoints": 21}
MANY = {"bundles": 5000, "texts": 2000, "media": 500, "checkpoints": 200}
COMMANDS = {"bundles": 8, "texts": 8, "media": 8, "checkpoints": 2}
"""Accepted files that go through `posekit` itself; a checkpoint takes half a minute."""


def check(report: run.Report) -> None:
    sys.stdout.write(report.text() + "\n")
    assert not report.faults, report.text()
    assert report.memory_mb[0] < child.LIMIT >> 20
    assert 0.05 * report.count < len(report.accepted) < 0.9 * report.count


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_few_changed_files_are_refused_in_a_sentence_or_run(kind: str, tmp_path: Path) -> None:
    report = run.fuzz(kind, range(FEW[kind]), tmp_path, SEED)
    check(report)
    assert report.count == FEW[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_thousands_of_changed_files_are_refused_in_a_sentence_or_run(
    kind: str, tmp_path: Path
) -> None:
    report = run.fuzz(kind, range(MANY[kind]), tmp_path, SEED)
    check(report)
    assert report.count == MANY[kind]
    wrong = run.commands(report, COMMANDS[kind], tmp_path)
    assert not wrong, "\n".join(wrong.values())


def test_a_number_is_the_same_file_every_time(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for kind in kinds.KINDS:
            paths = [kinds.changed(kind, 1, number, folder) for number in range(12)]
            made.append([path.read_bytes() for path in paths if path.is_file()])
    assert made[: len(kinds.KINDS)] == made[len(kinds.KINDS) :]


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("import os; os.abort()", "the process died with -6"),
        ("import time; time.sleep(99)", "no end within 2 s"),
        ("bytearray(3 << 30)", "MemoryError"),
    ],
)
def test_every_way_to_fail_is_found(
    program: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of the same form that fails at one number; those after it are used all the same."""
    monkeypatch.setattr(run, "DEADLINE_S", 2.0)
    monkeypatch.setattr(run, "PROGRAM", ["-c", FAILING.format(program=program)])
    report = run.fuzz("bundles", range(6), tmp_path)
    assert list(report.faults) == [3]
    assert fault in report.faults[3]
    assert report.count == 6


FAILING = """
from tests.fuzz import child, kinds
def use(kind, path, folder):
    if use.at == 3:
        {program}
    use.at += 1
def changed(kind, seed, number, folder):
    use.at = number
    return folder
kinds.use_sound = lambda *_: None
kinds.use, kinds.changed = use, changed
child.main()
"""
