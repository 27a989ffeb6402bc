"""Type checkers see through the public functions: a wrong name or type of an option is an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import posekit
from posekit import api
from tests.support.assets import ROOT

RIGHT = """
api.export("m", "o.onnx", precision="fp16", overwrite=True)
api.export("m", "o.onnx", options=posekit.ExportOptions(batch=1, refit=False), flip=False)
api.build("m", persons=2, options=posekit.BuildOptions(kind="raw"))
api.gpu_check("m", options=posekit.GpuCheckOptions(seconds=0.5), only=["kernels"])
posekit.adapt("m", ["images"], "o.posekit", limit=100, teacher="movenet-thunder")
posekit.adapt("m", "images", "o.posekit", options=posekit.AdaptOptions(labeled_first=3))
posekit.adapt("m", "i", "o", hooks=posekit.AdaptHooks(on_stage=print))
"""
WRONG = """
api.export("m", "o.onnx", precison="fp16")
api.export("m", "o.onnx", precision="fp17")
api.export("m", "o.onnx", options=posekit.ExportOptions(batches=1))
api.build("m", person=2)
api.build("m", options=posekit.BuildOptions(kind="row"))
api.gpu_check("m", second=1.0)
api.gpu_check("m", options=posekit.GpuCheckOptions(seconds="1"))
posekit.adapt("m", "i", "o", limits=100)
posekit.adapt("m", "i", "o", options=posekit.AdaptOptions(label_first=3))
posekit.adapt("m", "i", "o", hooks=posekit.AdaptHooks(on_stages=print))
"""


def test_mypy_accepts_the_right_names_and_refuses_each_wrong_one(tmp_path: Path) -> None:
    code = "import posekit\nfrom posekit import api\n" + RIGHT + WRONG
    path = tmp_path / "calls.py"
    path.write_text(code, encoding="utf-8")
    folders = [ROOT, ROOT / "engines", ROOT / "finetune"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", path],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )
    reported = {int(n) for n in re.findall(r"calls\.py:(\d+): error", run.stdout)}
    lines = code.splitlines()
    wrong = {n for n, line in enumerate(lines, 1) if line and line in WRONG.splitlines()}
    assert reported == wrong, run.stdout + run.stderr


@pytest.mark.parametrize(
    "name", ["AdaptHooks", "AdaptOptions", "BuildOptions", "ExportOptions", "GpuCheckOptions"]
)
def test_options_are_public_and_the_same_everywhere(name: str) -> None:
    assert getattr(posekit, name) is getattr(api, name)


def test_a_wrong_keyword_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="precison"):
        api.export("movenet-lightning", tmp_path / "o.onnx", precison="fp16")  # type: ignore[call-arg]
    assert not list(tmp_path.iterdir())
