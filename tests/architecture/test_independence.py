"""Tests stand alone, and benchmarks measure what users can call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import posekit_finetune
from tests.architecture.tree import Module, modules

MAKERS = ("posekit_engines", "posekit_finetune")


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def dependent(module: Module) -> Iterator[str]:
    """Imports of the benchmarks or of another test's file."""
    for line, name in imported(module):
        first, *rest = name.split(".")
        tests = first == "tests" and any(part.startswith("test_") for part in rest)
        if first == "benchmarks" or tests:
            yield f"{module.where}:{line} imports {name}"


def internal(module: Module) -> Iterator[str]:
    """Imports of the makers but for the public names of `posekit_finetune`."""
    public = {f"posekit_finetune.{name}" for name in posekit_finetune.__all__}
    for line, name in imported(module):
        if name.split(".")[0] in MAKERS and name not in public:
            yield f"{module.where}:{line} imports {name}"


def test_no_test_imports_a_benchmark_or_another_test() -> None:
    wrong = [line for module in modules("tests") for line in dependent(module)]
    assert not wrong, "\n".join(wrong)


def test_benchmarks_use_public_names() -> None:
    wrong = [line for module in modules("benchmarks") for line in internal(module)]
    assert not wrong, "\n".join(wrong)


def test_folders_of_benchmarks_are_small() -> None:
    folders = {module.path.parent for module in modules("benchmarks")}
    assert all(len(list(folder.glob("*.py"))) <= 14 for folder in folders)


@pytest.mark.parametrize(
    "code",
    [
        "import benchmarks.report",
        "from benchmarks import results_file",
        "from tests.posekit.inference.test_runtime import run",
        "from tests.posekit import test_runtime",
    ],
)
def test_a_dependence_is_noticed(tmp_path: Path, code: str) -> None:
    path = tmp_path / "test_wrong.py"
    path.write_text(code, encoding="utf-8")
    assert list(dependent(Module(path, tmp_path)))


def test_an_internal_import_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("from posekit_engines.graphs import points", encoding="utf-8")
    assert list(internal(Module(path, tmp_path)))
