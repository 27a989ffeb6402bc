"""The small-scale study of the collapse: its plan holds together, and its short form shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.assets import ROOT


def collapse(*arguments: str) -> str:
    folders = [str(ROOT / folder) for folder in (".", "engines", "finetune")]
    run = subprocess.run(
        [sys.executable, "benchmarks/collapse.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def test_rows_that_were_not_run_are_told() -> None:
    """Every row of the plan is in the table, with figures or as not run."""
    text = collapse("--table")
    missing, planned = map(int, re.findall(r"(\d+) of (\d+) rows not run", text)[0])
    assert 0 <= missing <= planned
    assert text.count("not run") >= (1 if missing else 0)
    for case in ("60 labels", "300 labels, shift", "no labels, shift"):
        assert f"{case}:" in text


def test_agreement_alone_collapses_and_labels_do_not() -> None:
    """The program ends with an error where it does not reproduce."""
    assert "same strength, both sides" in collapse("--quick")
