"""One name, four places: a kernel, its launch, its numpy reference, its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT


def missing_places(root: Path) -> list[str]:
    """What each `kernels/<name>.cu` under `root` lacks."""
    engines = root / "engines/posekit_engines"
    references = _functions(engines / "ops/reference.py")
    tests = {
        name for path in (root / "tests/engines").rglob("test_*.py") for name in _functions(path)
    }
    missing = []
    for path in sorted((engines / "kernels").glob("*.cu")):
        name = path.stem
        if name not in _functions(engines / f"ops/{name}.py"):
            missing.append(f"{name}: no function {name} in ops/{name}.py")
        if name not in references:
            missing.append(f"{name}: no numpy reference in ops/reference.py")
        if not any(test.startswith(f"test_{name}") for test in tests):
            missing.append(f"{name}: no test_{name}… in tests/engines")
    return missing


def _functions(path: Path) -> set[str]:
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_kernels_have_launch_reference_and_test() -> None:
    assert missing_places(ROOT) == []


PLACES = {
    "engines/posekit_engines/ops/crop.py": "def crop(): ...",
    "engines/posekit_engines/ops/reference.py": "def crop(): ...",
    "tests/engines/kernels/test_crop.py": "def test_crop_matches_numpy(): ...",
}


@pytest.mark.parametrize("left_out", [None, *PLACES])
def test_a_missing_place_is_noticed(tmp_path: Path, left_out: str | None) -> None:
    for relative, text in {"engines/posekit_engines/kernels/crop.cu": "", **PLACES}.items():
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if relative == left_out else text, encoding="utf-8")
    assert len(missing_places(tmp_path)) == (left_out is not None)
