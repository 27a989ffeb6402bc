"""Who may import whom: the contracts in pyproject.toml hold, and they would notice a breach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGES, ROOT

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    folders = [str(root / folder) for folder in (".", "engines", "finetune")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_contracts_are_kept() -> None:
    run = lint(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


def test_light_modules_load_nothing_heavy() -> None:
    """The contract is on what they import themselves; this is on all that importing them loads."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (light,) = (each for each in contracts["contracts"] if each["id"] == "light-modules")
    lines = [f"import {name}" for name in light["source_modules"]]
    code = "\n".join([*lines, "import sys", "print(*sys.modules)"])
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(light["forbidden_modules"]) & set(run.stdout.split())


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("posekit/types.py", "import posekit.inference.runtime", "posekit's layers"),
        ("posekit/tracking/smooth.py", "import posekit.detect", "posekit's layers"),
        ("posekit/geometry.py", "import cv2", "the arithmetic needs nothing heavy"),
        (
            "posekit/inference/runtime.py",
            "import torch",
            "running a bundle needs neither torch nor onnx",
        ),
        (
            "posekit/infer/process.py",
            "import posekit_engines",
            "only posekit.api reaches the makers",
        ),
        (
            "engines/posekit_engines/graphs/nodes.py",
            "import posekit_engines.trt.plan",
            "the layers of engines",
        ),
        (
            "finetune/posekit_finetune/views/warps.py",
            "import posekit_finetune.train.step",
            "the layers of finetune",
        ),
        (
            "engines/posekit_engines/trt/plan.py",
            "import posekit_engines.trt.build",
            "no circle of files or folders",
        ),
        (
            "engines/posekit_engines/__init__.py",
            "import posekit.api",
            "the makers import posekit below its public API",
        ),
        (
            "finetune/posekit_finetune/__init__.py",
            "import posekit_engines",
            "only posekit.api reaches the makers",
        ),
    ],
)
def test_a_breach_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    _copy(tmp_path)
    path = tmp_path / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    run = lint(tmp_path)
    assert run.returncode != 0
    assert f"{contract} BROKEN" in run.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_a_new_module_must_be_given_a_place(tmp_path: Path, package: str) -> None:
    _copy(tmp_path)
    (tmp_path / package / "novelty.py").write_text("", encoding="utf-8")
    run = lint(tmp_path)
    assert run.returncode != 0
    assert "novelty" in run.stdout


def _copy(folder: Path) -> None:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "models")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
