"""What every command has: -h, -q and --json; and tables that fit a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

import posekit
from posekit.cli import app
from tests.support.assets import ROOT, shipped
from tests.support.processes import run

GROUP = typer.main.get_command(app)
COMMANDS = {
    name: each
    for name, each in GROUP.commands.items()  # type: ignore[attr-defined]
    if not each.hidden
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_a_result_has_quiet_and_json(name: str) -> None:
    options = {option for each in COMMANDS[name].params for option in each.opts}
    assert {"--quiet", "-q", "--json"} <= options


@pytest.mark.parametrize("arguments", [["-h"], *([name, "-h"] for name in COMMANDS)], ids=" ".join)
def test_h_is_help(arguments: list[str]) -> None:
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_models_are_a_line_each_at_80_columns() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "posekit", "models"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
    )
    head, *lines = done.stdout.splitlines()
    assert head.startswith("model")
    assert [line.split()[0] for line in lines] == [
        "movenet-lightning", "movenet-thunder", "nanodet-person",
    ]  # fmt: skip
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [["models"], ["inspect", "movenet-lightning"], ["verify", "movenet-lightning"], ["doctor"]],
    ids=" ".join,
)
def test_quiet_prints_nothing_and_json_prints_json(arguments: list[str]) -> None:
    code, out, err = run(*arguments, "-q")
    assert (code, out, err) == (0, "", "")
    code, out, _ = run(*arguments, "-q", "--json")
    assert code == 0
    assert json.loads(out)


def test_bench_leads_with_milliseconds_a_person_and_persons_in_view() -> None:
    fast = ("movenet-lightning", "--no-flip", "--threads", "1", "--seconds", "0.02")
    code, out, err = run("bench", *fast, "--persons", "1,2")
    assert code == 0, err
    first = out.splitlines()[0]
    assert "ms a person, " in first
    assert "ms a person of 2 (crop and network); " in first
    assert first.endswith("frames/s with 3 persons in view")
    code, out, err = run("bench", *fast, "--persons", "1", "-q")
    assert (code, out) == (0, ""), err


def test_infer_runs_an_export_with_its_way_to_the_frame_inside(tmp_path: Path) -> None:
    """The deployment page's first export: points as the bundle's, in frame pixels once."""
    file = tmp_path / "x.onnx"
    code, out, err = run("export", "movenet-lightning", "--affine", "-o", file, "-q")
    assert (code, out) == (0, ""), err
    photo = shipped("tests/data/coco_000000397133.jpg")
    exported, bundle = (
        posekit.load(model, "cpu", threads)
        for model, threads in ((file, 2), ("movenet-lightning", 1))
    )
    boxes = np.array([[388.0, 70, 498, 346], [10, 10, 200, 300], [0, 0, 639, 426]])
    got, wanted = exported(photo, boxes), bundle(photo, boxes)
    np.testing.assert_allclose(got.points, wanted.points, atol=0.05)
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-3)
