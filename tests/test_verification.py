"""The tables of what was verified how say what the record says, and the record what tests mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import verification
from tests.verification import COLUMNS, PIECES, Record


def test_tables_are_made_of_the_record() -> None:
    made = verification.table(verification.read_record(), verification.gpu_results())
    for page in verification.TABLES:
        text = page.read_text(encoding="utf-8")
        assert len(verification.BLOCK.findall(text)) == 1, f"{page}: one block for the table"
        assert text == verification.with_table(text, made), f"{page}: run scripts/verification"


def test_the_record_has_every_mark_and_no_other(request: pytest.FixtureRequest) -> None:
    """Of the test files that this run has collected whole."""
    if request.config.option.keyword or any("::" in each for each in request.config.args):
        pytest.skip("only some tests are collected")
    items = request.session.items
    marked = verification.marks(items)
    if not marked:
        pytest.skip("tests/engines is not collected in this run")
    files = {test.partition("::")[0] for test in {item.nodeid for item in items}}
    record = verification.read_record()
    recorded = {
        (piece, column, test)
        for piece, cells in record.items()
        for column, tests in cells.items()
        for test in tests
        if test.partition("::")[0] in files
    }
    assert recorded == marked, "run pytest --record for what differs"


def test_recorded_files_exist_and_nothing_failed() -> None:
    record = verification.read_record()
    assert set(record) <= set(PIECES)
    for cells in record.values():
        assert set(cells) <= set(COLUMNS)
        for test, counts in ((t, c) for tests in cells.values() for t, c in tests.items()):
            assert (verification.ROOT / test.partition("::")[0]).exists(), test
            assert not counts.get("failed"), test


def test_no_gpu_is_named_without_a_gpus_result(tmp_path: Path) -> None:
    parts = {name: {"status": "passed"} for name in ("kernels", "engines", "end-to-end")}
    parts["end-to-end"] = {"status": "not run"}
    real: dict[str, Any] = {"emulated": False, "gpu": {"name": "A GPU"}, "through": "pycuda",
                            "parts": parts}  # fmt: skip
    for name, result in {"gpu-check-a": real, "gpu-check-b": {**real, "emulated": True}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    results = verification.gpu_results(tmp_path)
    assert results == [real]
    said = {piece: verification.on_gpu(piece, results) for piece in PIECES}
    assert said["decode_flip.cu"] == said["driver_pycuda.py"] == "A GPU: passed"
    assert said["driver_bindings.py"] == said["gpu_runtime.py"] == "not measured"
    assert {verification.on_gpu(piece, []) for piece in PIECES} == {"not measured"}


def test_a_cell_counts_what_became_of_its_tests() -> None:
    def said(counts: dict[str, int]) -> str:
        record: Record = {"nvrtc.py": {"host code driven": {"a": counts, "b": {"passed": 1}}}}
        return verification.cell(record, "nvrtc.py", "host code driven")

    assert said({"passed": 3}) == "4 passed"
    assert said({"skipped": 2}) == "1 passed, 2 skipped"
    assert said({"failed": 1, "passed": 9}) == "**1 FAILED**"
    assert verification.cell({}, "nvrtc.py", "compiled") == "n/a"
    assert verification.cell({}, "TensorRT plans", "built ahead of time") == "no"


def test_a_run_replaces_what_was_recorded_of_its_tests() -> None:
    old: Record = {"nvrtc.py": {"host code driven": {"a": {"passed": 1}, "b": {"failed": 1}}}}
    new: Record = {"gpu-check": {"emulated": {"b": {"passed": 2}}}}
    assert verification.merged(old, new) == {
        "nvrtc.py": {"host code driven": {"a": {"passed": 1}}},
        "gpu-check": {"emulated": {"b": {"passed": 2}}},
    }


def test_a_mark_that_is_gone_is_forgotten() -> None:
    old: Record = {"nvrtc.py": {"host code driven": {"a": {"passed": 1}, "b": {"passed": 1}}}}
    left = verification.without(old, {"a", "c"}, {("nvrtc.py", "host code driven", "c")})
    assert left == {"nvrtc.py": {"host code driven": {"b": {"passed": 1}}}}


MARKED = """
import pytest

@pytest.mark.verifies("nvrtc.py", "host code driven")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_some(n):
    if n == 3:
        pytest.skip("no tool")
"""


def test_a_run_is_recorded(tmp_path: Path) -> None:
    """A run of its own, with this plugin."""
    path, file = tmp_path / "record.json", tmp_path / "test_marked.py"
    file.write_text(MARKED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = verifies(piece, column)\n")
    recorder = verification.Recorder(path)
    assert pytest.main(["-q", "-p", "no:cacheprovider", str(tmp_path)], plugins=[recorder]) == 0
    record = verification.read_record(path)
    assert record["nvrtc.py"]["host code driven"]["test_marked.py::test_some"] == {
        "passed": 2,
        "skipped": 1,
    }
