"""The face of posekit: few names, sorted, all there, and light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import posekit
import posekit_finetune
from tests.architecture.tree import PACKAGES, ROOT


def test_public_names_are_few_sorted_and_exactly_all() -> None:
    names = posekit.__all__
    assert len(names) <= 30
    assert names == sorted(names)
    assert dir(posekit) == sorted([*names, "__version__"])


@pytest.mark.parametrize("package", [posekit, posekit_finetune])
def test_every_public_name_is_there_and_documented(package: ModuleType) -> None:
    for name in package.__all__:
        value = getattr(package, name)
        assert value.__doc__ or not isinstance(value, type), name  # an alias has none


@pytest.mark.parametrize("package", [posekit, posekit_finetune])
def test_type_checkers_see_the_same_names(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname or alias.name
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == set(package.__all__)


def test_importing_posekit_loads_only_its_version() -> None:
    code = "import sys, posekit; print(sorted(m for m in sys.modules if m.startswith('posekit.')))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "['posekit.version']"


def test_packages_are_marked_as_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)
