"""The tables show the record, and the record has the marks of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import verification
from tests.support.verification import COLUMNS, PIECES, Record


def test_tables_show_the_record() -> None:
    table = verification.table(verification.read_record(), verification.gpu_results())
    for page in verification.TABLES:
        text = page.read_text(encoding="utf-8")
        assert len(verification.BLOCK.findall(text)) == 1, f"{page}: one block for the table"
        assert text == verification.with_table(text, table), f"{page}: run scripts/verification"


def test_the_record_has_every_mark_and_no_other(request: pytest.FixtureRequest) -> None:
    """For the test files that this run has collected completely."""
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
    shown = {piece: verification.on_gpu(piece, results) for piece in PIECES}
    assert shown["decode_flip.cu"] == shown["pycuda_driver.py"] == "A GPU: passed"
    assert shown["bindings_driver.py"] == shown["GPU runtime"] == "not measured"
    assert {verification.on_gpu(piece, []) for piece in PIECES} == {"not measured"}


def test_a_cell_counts_the_outcomes_of_its_tests() -> None:
    def shown(counts: dict[str, int]) -> str:
        record: Record = {"nvrtc.py": {"host code driven": {"a": counts, "b": {"passed": 1}}}}
        return verification.cell(record, "nvrtc.py", "host code driven")

    assert shown({"passed": 3}) == "4 passed"
    assert shown({"skipped": 2}) == "1 passed, 2 skipped"
    assert shown({"failed": 1, "passed": 9}) == "**1 FAILED**"
    assert verification.cell({}, "nvrtc.py", "compiled") == "n/a"
    assert verification.cell({}, "TensorRT engines", "built ahead of time") == "no"


def test_a_run_replaces_the_record_of_its_tests() -> None:
    old: Record = {"nvrtc.py": {"host code driven": {"a": {"passed": 1}, "b": {"failed": 1}}}}
    new: Record = {"gpu-check": {"emulated": {"b": {"passed": 2}}}}
    assert verification.merged(old, new) == {
        "nvrtc.py": {"host code driven": {"a": {"passed": 1}}},
        "gpu-check": {"emulated": {"b": {"passed": 2}}},
    }


def test_a_removed_mark_is_dropped() -> None:
    old: Record = {"nvrtc.py": {"host code driven": {"a": {"passed": 1}, "b": {"passed": 1}}}}
    rest = verification.without(old, {"a", "c"}, {("nvrtc.py", "host code driven", "c")})
    assert rest == {"nvrtc.py": {"host code driven": {"b": {"passed": 1}}}}


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
