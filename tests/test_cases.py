"""The table of cases names tests that are there."""

from __future__ import annotations

import ast
import re

from tests.support.assets import ROOT

TABLE = ROOT / "tests" / "cases.md"


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_case_has_a_kind_and_tests_that_exist() -> None:
    names = [case for case, _, _ in rows()]
    assert len(names) == len(set(names)) == 29
    for case, kind, cell in rows():
        tests = re.findall(r"`([\w/]+\.py)::(test_\w+)`", cell)
        assert kind, case
        assert tests, case
        assert len(tests) == cell.count("::"), case
        for file, function in tests:
            path = ROOT / (file if file.startswith("tests/") else f"tests/posekit/{file}")
            defined = {
                node.name
                for node in ast.parse(path.read_text("utf-8")).body
                if isinstance(node, ast.FunctionDef)
            }
            assert function in defined, f"{case}: {file}::{function}"
