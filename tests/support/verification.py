"""What has been verified and how: tests are marked, a run is recorded, tables show the record.

`@pytest.mark.verifies(piece, column)` marks a test; `pytest --record` adds a run's results to
engines/verification.json; `scripts/verification` writes the tables. The GPU's column shows only
committed results of `posekit gpu-check`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "engines" / "verification.json"
RESULTS = ROOT / "benchmarks" / "results"
TABLES = (ROOT / "engines" / "README.md",)
BLOCK = re.compile(r"(<!-- verification: [^>]*-->\n).*?(<!-- /verification -->)", re.DOTALL)
COLUMNS = ("compiled", "emulated", "built ahead of time", "host code driven")
GPU = "run on a GPU"
PIECES = {
    "decode_flip.cu": "kernels",
    "crop_normalize.cu": "kernels",
    "fuse_views.cu": "kernels",
    "nvrtc.py": "kernels",
    "bindings_driver.py": "kernels",
    "pycuda_driver.py": "kernels",
    "TensorRT engines": "engines",
    "GPU runtime": "end-to-end",
    "nvdec.py": "",
    "detector_engine.py": "",
    "gpu-check": "kernels",
}
"""Each piece (a file or a feature), and the part of gpu-check that runs it on a GPU, or ""."""
_HOST = [piece for piece in PIECES if not piece.endswith(".cu")]
NOT_APPLICABLE = {
    *((piece, "compiled") for piece in _HOST),
    *((piece, "emulated") for piece in _HOST if piece != "gpu-check"),
    *((piece, "built ahead of time") for piece in PIECES if piece != "TensorRT engines"),
}
"""Kernels are compiled for the user's GPU on first use; the rest is Python."""

Cell = tuple[str, str]
Record = dict[str, dict[str, dict[str, dict[str, int]]]]
"""Piece, column, test function, number of its cases by outcome (passed, failed, skipped)."""


def function_of(nodeid: str) -> str:
    """A test's file and function, without its parameters."""
    return nodeid.partition("[")[0]


def marks(items: Sequence[pytest.Item]) -> set[tuple[str, str, str]]:
    """Piece, column and test function of every mark."""
    return {
        (*cell, function_of(item.nodeid)) for item in items for cell in cells_of(item)
    }  # fmt: skip


def cells_of(item: pytest.Item) -> Iterator[Cell]:
    """The cells that a test counts for."""
    for mark in item.iter_markers("verifies"):
        piece, column = mark.args
        assert piece in PIECES, (
            f"{item.nodeid}: no piece {piece!r} in tests/support/verification.py"
        )
        assert column in COLUMNS, f"{item.nodeid}: no column {column!r}"
        yield piece, column


class Recorder:
    """A pytest plugin: at the end of a run its results replace those of the same tests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, list[Cell]] = {}
        self._outcomes: dict[str, Counter[str]] = {}
        self._functions: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._functions.add(function_of(item.nodeid))
            if cells := sorted(set(cells_of(item))):
                self._cells[item.nodeid] = cells

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        final = report.when == "call" or report.outcome != "passed"
        if report.nodeid in self._cells and final:
            self._outcomes.setdefault(report.nodeid, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        new: Record = {}
        for nodeid, outcomes in self._outcomes.items():
            outcome = "failed" if outcomes["failed"] else next(iter(outcomes))
            for piece, column in self._cells[nodeid]:
                tests = new.setdefault(piece, {}).setdefault(column, {})
                counts = tests.setdefault(function_of(nodeid), {})
                counts[outcome] = counts.get(outcome, 0) + 1
        marked = {
            (*cell, function_of(test)) for test, cells in self._cells.items() for cell in cells
        }
        old = without(read_record(self._path), self._functions, marked)
        write_record(merged(old, new), self._path)


def without(record: Record, functions: set[str], marked: set[tuple[str, str, str]]) -> Record:
    """The record without marks that were removed from tests."""
    kept: Record = {}
    for piece, cells in record.items():
        for column, tests in cells.items():
            for test, counts in tests.items():
                if test not in functions or (piece, column, test) in marked:
                    kept.setdefault(piece, {}).setdefault(column, {})[test] = counts
    return kept


def merged(old: Record, new: Record) -> Record:
    """The new record and, for tests that did not run, the old one."""
    ran = {test for cells in new.values() for tests in cells.values() for test in tests}
    both: Record = {}
    for record, kept in ((old, lambda test: test not in ran), (new, lambda _: True)):
        for piece, cells in record.items():
            for column, tests in cells.items():
                for test, counts in tests.items():
                    if kept(test):
                        both.setdefault(piece, {}).setdefault(column, {})[test] = counts
    return both


def read_record(path: Path = RECORD) -> Record:
    """The record, or an empty one."""
    return json.loads(path.read_text(encoding="utf-8"))["tests"] if path.exists() else {}


def write_record(record: Record, path: Path = RECORD) -> None:
    """Write the record in the order of PIECES and COLUMNS."""
    ordered = {
        piece: {
            column: dict(sorted(record[piece][column].items()))
            for column in COLUMNS
            if column in record[piece]
        }
        for piece in PIECES
        if piece in record
    }
    path.write_text(json.dumps({"tests": ordered}, indent=1) + "\n", encoding="utf-8")


def cell(record: Record, piece: str, column: str) -> str:
    """A cell of the table: how many tests passed, failed or were skipped."""
    tests = record.get(piece, {}).get(column, {})
    if not tests:
        return "n/a" if (piece, column) in NOT_APPLICABLE else "no"
    total: Counter[str] = Counter()
    for counts in tests.values():
        total.update(counts)
    if total["failed"]:
        return f"**{total['failed']} FAILED**"
    passed = f"{total['passed']} passed" if total["passed"] else "not run"
    return f"{passed}, {total['skipped']} skipped" if total["skipped"] else passed


def gpu_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Committed results of gpu-check on a GPU."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-check*.json"))]
    return [each for each in found if each["emulated"] is False]


def on_gpu(piece: str, results: Sequence[dict[str, Any]]) -> str:
    """The GPUs on which gpu-check ran a piece, with its status."""
    driver = {"bindings_driver.py": "cuda-bindings", "pycuda_driver.py": "pycuda"}.get(piece)
    found = []
    for each in results:
        part = each["parts"][PIECES[piece]] if PIECES[piece] else {"status": "not run"}
        complete = part["status"] in ("passed", "failed", "measured") and not part.get("brief")
        if complete and driver in (None, each["through"]):
            found.append(f"{each['gpu']['name']}: {part['status']}")
    return "; ".join(found) or "not measured"


def table(record: Record, results: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown."""
    rows = [
        [piece, *(cell(record, piece, column) for column in COLUMNS), on_gpu(piece, results)]
        for piece in PIECES
    ]
    head = ["piece", *COLUMNS, GPU]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def with_table(text: str, new: str) -> str:
    """A page with the table replaced."""
    return BLOCK.sub(lambda found: f"{found[1]}{new}\n{found[2]}", text)
