"""Every command has help, is documented, and `--help` is instant."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer.main

from posekit.cli import app
from tests.architecture.tree import ROOT

HEAVY = {
    "av",
    "cv2",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "posekit.inference.runtime",
    "posekit_engines",
    "posekit_finetune",
    "safetensors",
    "scipy",
    "torch",
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHOWN = sorted(name for name, command in COMMANDS.items() if not command.hidden)


@pytest.mark.parametrize("name", SHOWN)
def test_command_and_options_have_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    silent = [each.name for each in command.params if not getattr(each, "help", None)]
    assert not silent


@pytest.mark.parametrize("name", SHOWN)
def test_command_is_in_readme(name: str) -> None:
    assert f"posekit {name}" in (ROOT / "docs/commands.md").read_text(encoding="utf-8")


def test_predict_is_a_hidden_alias_of_infer() -> None:
    assert COMMANDS["predict"].hidden
    assert COMMANDS["predict"].callback is COMMANDS["infer"].callback or [
        each.name for each in COMMANDS["predict"].params
    ] == [each.name for each in COMMANDS["infer"].params]


@pytest.mark.parametrize("arguments", [["--help"], ["infer", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from posekit.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('LOADED', *sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(run.stdout.rpartition("LOADED")[2].split())
    assert "posekit.cli" in loaded
    assert not loaded & HEAVY


def test_help_is_quick() -> None:
    """Under 0.3 s on an idle core; CPU seconds, so that a busy machine changes little."""
    assert min(_cpu_seconds(["-m", "posekit", "--help"]) for _ in range(3)) < 0.6


def _cpu_seconds(arguments: list[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
    after = os.times()
    spent = (
        after.children_user - before.children_user,
        after.children_system - before.children_system,
    )
    return sum(spent)
