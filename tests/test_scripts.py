"""The scripts that README names: readable by a plain shell, and clear about what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

SHELL = ("scripts/install", "scripts/demo", "scripts/test", "scripts/check", ".ci/run")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell scripts, for Linux and macOS")


@pytest.mark.parametrize("name", SHELL)
def test_script_is_plain_shell_and_may_be_run(name: str) -> None:
    path = ROOT / name
    assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", str(path)], check=True)


def install(folder: Path, python: Path) -> subprocess.CompletedProcess[str]:
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/install", folder / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return subprocess.run(
        ["sh", "scripts/install", "cpu"],
        cwd=folder,
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    run = install(tmp_path, tmp_path / "no-python")
    assert run.returncode == 3
    assert "Python 3.11" in run.stderr


def test_without_venv_it_says_what_to_install(tmp_path: Path) -> None:
    """Debian's Python before python3-venv is installed: ensurepip cannot be imported."""
    python = tmp_path / "python"
    code = "import sys; sys.modules['ensurepip'] = None; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$2"\n', encoding="utf-8")
    python.chmod(0o755)
    run = install(tmp_path, python)
    assert run.returncode == 3
    assert "python3-venv" in run.stderr


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in pins)
    assert len({line.partition("==")[0].lower() for line in pins}) == len(pins)
