"""The built wheel: what is in it, and that it runs alone, from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from posekit.version import __version__
from tests.architecture.tree import ROOT
from tests.support.assets import shipped

INFO = f"posekit-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the working tree with the tools that are installed, so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run = subprocess.run(
        [*command, str(ROOT)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_three_packages_and_nothing_else(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"posekit", "posekit_engines", "posekit_finetune", INFO}
    assert not [name for name in names if "test" in name or "__pycache__" in name]


def test_wheel_holds_types_models_and_licenses(names: list[str]) -> None:
    for package in ("posekit", "posekit_engines", "posekit_finetune"):
        assert f"{package}/py.typed" in names
    models = [path.name for path in (ROOT / "posekit/models").iterdir() if path.is_file()]
    assert {f"posekit/models/{name}" for name in models} <= set(names)
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {
        "LICENSE",
        "NOTICE",
    }


def test_wheel_is_universal_and_small(wheel: Path) -> None:
    assert wheel.name == f"posekit-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 60e6


def test_wheel_runs_alone_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """In a new environment that borrows the dependencies, isolated from the checkout by -I."""
    python = _environment(tmp_path / "environment", wheel)
    where = "import posekit, posekit_engines; print(posekit.__file__, posekit_engines.__file__)"
    found = _run(python, "-c", where, folder=tmp_path).split()
    assert all(Path(each).is_relative_to(tmp_path) for each in found)
    clip = shipped("examples/sports2d_demo.mp4")
    _run(python, "-m", "posekit", "infer", str(clip), "-o", "out", "--end", "0.5", folder=tmp_path)
    header, *frames = (tmp_path / "out/sports2d_demo.jsonl").read_text().splitlines()
    assert json.loads(header)["posekit"] == __version__
    assert len(frames) == 15  # half a second at 30 frames a second
    assert any(json.loads(line)["persons"] for line in frames)
    assert (tmp_path / "out/sports2d_demo.mp4").stat().st_size > 0


def _environment(folder: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel; the .pth file lends it the dependencies.

    Python reads no .pth files in a folder that a .pth file added, so an editable posekit
    of the lender stays invisible.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    names = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", scheme, names))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (site / "lender.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def _run(python: Path, *arguments: str, folder: Path) -> str:
    command = [str(python), "-I", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
