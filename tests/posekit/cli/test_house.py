"""`models`, `inspect`, `verify`, `doctor`: what they print, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posekit import bundle
from posekit.bundle import Bundle
from tests.architecture.tree import ROOT

EMBEDDED = ("movenet-lightning", "movenet-thunder", "nanodet-person")


def posekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "posekit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture
def lightning(tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    path = tmp_path / "lightning.posekit"
    path.write_bytes(bundle.embedded()["movenet-lightning"].read_bytes())
    return path


def test_models_lists_each_with_size_license_and_accuracy() -> None:
    run = posekit("models", "--json")
    assert run.returncode == 0, run.stderr
    rows = {row["name"]: row for row in json.loads(run.stdout)}
    assert sorted(rows) == sorted(EMBEDDED)
    for name, row in rows.items():
        assert row["bytes"] == bundle.embedded()[name].stat().st_size
        assert row["licences"]["weights"]
        assert row["accuracy"], f"no measured accuracy of {name}"


def test_models_as_text_names_each() -> None:
    run = posekit("models")
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in EMBEDDED)


def test_inspect_gives_the_manifest_and_the_file() -> None:
    run = posekit("inspect", "movenet-lightning", "--json")
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    opened = Bundle.open(bundle.find("movenet-lightning"))
    assert data["sha256"] == opened.sha256
    assert data["spec"]["input_size"] == [192, 192]
    assert set(data["parts"]) >= {"weights.safetensors", "graphs/flip.onnx", "graphs/plain.onnx"}
    assert data["parameters"] > 1_000_000


def test_inspect_as_text_is_short_and_says_the_skeleton() -> None:
    run = posekit("inspect", "movenet-lightning")
    assert run.returncode == 0, run.stderr
    assert "coco_17, 17 keypoints" in run.stdout
    assert len(run.stdout.splitlines()) < 80


def test_verify_finds_a_sound_bundle_sound(lightning: Path) -> None:
    digest = Bundle.open(lightning).sha256
    run = posekit("verify", str(lightning), "--expect", digest.upper())
    assert run.returncode == 0, run.stderr
    assert "sound" in run.stdout
    assert digest in run.stdout


def test_verify_json_gives_the_shifts(lightning: Path) -> None:
    result = json.loads(posekit("verify", str(lightning), "--json").stdout)
    assert set(result["shift_px"]) == {"flip", "maps", "plain"}
    assert all(0 <= shift <= 0.5 for shift in result["shift_px"].values())


def test_verify_refuses_another_file(lightning: Path) -> None:
    run = posekit("verify", str(lightning), "--expect", "0" * 64)
    assert run.returncode == 1
    assert "another file" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_verify_finds_one_flipped_bit(lightning: Path) -> None:
    data = bytearray(lightning.read_bytes())
    data[len(data) // 2] ^= 1
    lightning.write_bytes(data)
    run = posekit("verify", str(lightning))
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_unknown_model_is_one_sentence_with_the_nearest(command: str) -> None:
    run = posekit(command, "movenet-thundr")
    assert run.returncode == 1
    assert "movenet-thunder" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_doctor_ends_with_zero_where_the_cpu_works() -> None:
    run = posekit("doctor", "--json")
    data = json.loads(run.stdout)
    assert data["works"], [each for each in data["checks"] if each["status"] == "failed"]
    assert run.returncode == 0


def test_doctor_ends_with_three_where_two_runtimes_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "onnxruntime_gpu-9.9.dist-info"
    info.mkdir()
    text = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 9.9\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    run = subprocess.run(
        [sys.executable, "-m", "posekit", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "COLUMNS": "200"},
    )
    assert run.returncode == 3
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_control_characters_in_names_are_shown_escaped(tmp_path: Path) -> None:
    """A name never moves the cursor, colors the terminal or makes a line of its own."""
    name = tmp_path / "a\x1b[2J\r\nb.mp4"
    for content in (None, b"text", b""):
        if content is not None:
            name.write_bytes(content)
        run = posekit("infer", str(name), "-o", str(tmp_path / "out"))
        assert run.returncode == 1
        assert "a\\x1b[2J\\r\\nb.mp4" in run.stderr
        assert run.stderr.isascii()
        assert run.stderr.removesuffix("\n").isprintable()
