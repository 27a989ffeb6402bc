"""Programs of the benchmarks, run as a reader of README runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.assets import ROOT


def command(program: str, *arguments: str) -> list[str]:
    """`python -m benchmarks PROGRAM ARGUMENTS`."""
    return [sys.executable, "-m", "benchmarks", program, *arguments]


def environment() -> dict[str, str]:
    """Of a program: the packages of this checkout, one thread."""
    folders = [str(ROOT / folder) for folder in (".", "engines", "finetune")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


def run(program: str, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The finished program.  root: of the checkout, or a copy of what it needs."""
    return subprocess.run(
        command(program, *arguments),
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def copied(folder: Path) -> Path:
    """The benchmarks with their results, README, docs and example in a folder of their own."""
    ignored = shutil.ignore_patterns("__pycache__", "work")
    for name in ("benchmarks", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "README.md", folder)
    return folder
