"""Thirty everyday tasks, each as a user would write it, with public names only."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

import posekit
from posekit.video import ReadOptions, VideoWriter, read
from tests.support import needs
from tests.support.assets import ROOT, shipped
from tests.support.labels import one_person

TEXT = (Path(__file__).parent / "everyday.md").read_text(encoding="utf-8")
LONGEST = 18  # lines of a task
OTHERS = {"cv2", "numpy", "pandas", "PIL", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Task:
    title: str
    language: str
    code: str


TASKS = [
    Task(*found)
    for found in re.findall(
        r"^## ([^\n]+)\n\n```(python|console)\n(.*?)^```$", TEXT, re.M | re.DOTALL
    )
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the clip, photos, and labels of one person."""
    folder = tmp_path_factory.mktemp("given")
    clip = shipped("examples/sports2d_demo.mp4")
    with read(clip, options=ReadOptions(end_s=0.8)) as reader:
        frames = list(reader)
    with VideoWriter(folder / "video.mp4", size=frames[0].size, fps=Fraction(30)) as writer:
        for frame in frames:
            writer.write(frame.image, frame.time_s)
    photo = shipped("tests/data/coco_000000397133.jpg")
    shutil.copy(photo, folder / "photo.jpg")
    shutil.copytree(photo.parent, folder / "photos", ignore=shutil.ignore_patterns("*.md", ".*"))
    (folder / "labels.json").write_text(json.dumps(one_person(photo.name)))
    return folder


def test_there_are_thirty_short_tasks() -> None:
    assert len(TASKS) >= 30
    assert len({task.title for task in TASKS}) == len(TASKS) == TEXT.count("\n## ")
    assert all(len(task.code.splitlines()) <= LONGEST for task in TASKS)


@pytest.mark.parametrize("task", TASKS, ids=[task.title for task in TASKS])
def test_the_task_is_done(
    task: Task, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if task.language == "console":
        _run_commands(task)
        return
    if "PIL" in task.code:
        needs.package("PIL.Image")
    assert public(task.code)
    exec(compile(task.code, task.title, "exec"), {"__name__": "__main__"})


def _run_commands(task: Task) -> None:
    if os.name == "nt":
        pytest.skip("the commands are for a POSIX shell")
    sources = os.pathsep.join(str(ROOT / name) for name in ("", "engines", "finetune"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in task.code.splitlines():
        done = subprocess.run(
            ["sh", "-c", line.removeprefix("$ ")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": sources, "PATH": path},
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def public(code: str) -> bool:
    """Whether it imports posekit itself and known packages only, and names what is public."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if any(name != "posekit" and name.split(".")[0] not in OTHERS for name in names):
                return False
        if isinstance(node, ast.Attribute):
            of_posekit = isinstance(node.value, ast.Name) and node.value.id == "posekit"
            if node.attr.startswith("_") or (of_posekit and node.attr not in posekit.__all__):
                return False
    return True


@pytest.mark.parametrize(
    "code",
    [
        "from posekit.video import read",
        "import posekit.types",
        "import posekit\nposekit.api.load",
        "import posekit\nposekit.load('x')._infer",
        "import torch",
    ],
)
def test_a_name_that_is_not_public_is_noticed(code: str) -> None:
    assert not public(code)
