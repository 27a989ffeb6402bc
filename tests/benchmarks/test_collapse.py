"""The small-scale study of the collapse: its plan is complete, and its short form reproduces it."""

from __future__ import annotations

import re

from tests.benchmarks.programs import run


def collapse(*arguments: str) -> str:
    done = run("collapse", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rows_that_were_not_run_are_reported() -> None:
    """Every row of the plan is in the table, with figures or as not run."""
    text = collapse("--table")
    missing, planned = map(int, re.findall(r"(\d+) of (\d+) rows not run", text)[0])
    assert 0 <= missing <= planned
    assert text.count("not run") >= (1 if missing else 0)
    for case in ("60 labels", "300 labels, shift", "no labels, shift"):
        assert f"{case}:" in text


def test_consistency_alone_collapses_and_labels_do_not() -> None:
    """The program ends with an error where it does not reproduce."""
    assert "same strength, both sides" in collapse("--quick")
