"""Runs that are ended at many moments: whatever has its final name is whole.

A few moments of kill -9 in the plain suite, where they are cheap; with --slow 20 of each signal
for each command.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posekit.bundle import Bundle
from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from tests.finetune.media import figure
from tests.support.assets import shipped
from tests.support.processes import run, start
from tests.support.states import FLAT, renamed, saved

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
MOMENTS = 20
FEW = {"infer": (0.45, 0.65, 0.85, 0.95), "adapt": (0.6, 0.95)}


def shown(folder: Path) -> list[str]:
    """Names that are not hidden; none where there is no folder."""
    found = folder.iterdir() if folder.exists() else []
    return sorted(path.name for path in found if not path.name.startswith("."))


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that writes into a folder, an undisturbed run of it, and what is whole.

    check: asserts it of a folder, given that run's.  work: what may stay for --resume.
    """

    arguments: tuple[object, ...]
    output: str
    reference: Path
    seconds: float
    check: Callable[[Path, Path], None]
    work: str = ""

    def end(self, folder: Path, share: float, number: int) -> int:
        """Start it, send the signal after this share of its time, and check what is there."""
        process = start(*self.arguments, "-o", folder / self.output)
        time.sleep(share * self.seconds)
        process.send_signal(number)
        began = time.monotonic()
        _, err = process.communicate(timeout=120)
        if number != KILL:
            assert time.monotonic() - began < 15
            assert process.returncode in (130, 0), err
            assert "Traceback" not in err
            left = [path.name for path in folder.glob(".*")] if folder.exists() else []
            assert not left, left
        names = [name for name in shown(folder) if name != self.work]
        assert set(names) <= set(shown(self.reference)), names
        self.check(folder, self.reference)
        return process.returncode

    def again(self, folder: Path) -> None:
        """The same command, undisturbed: it ends well and removes what was left."""
        more = ["--overwrite"] if shown(folder) else []
        code, _, err = run(*self.arguments, "-o", folder / self.output, *more)
        assert code == 0, err
        assert sorted(path.name for path in folder.iterdir()) == shown(self.reference)
        self.check(folder, self.reference)


def measured(command: Command) -> Command:
    began = time.monotonic()
    code, _, err = run(*command.arguments, "-o", command.reference / command.output)
    assert code == 0, err
    wanted = command.output or "summary.json"
    assert wanted in shown(command.reference)
    return dataclasses.replace(command, seconds=time.monotonic() - began)


def same(folder: Path, reference: Path, *names: str) -> None:
    for name in names:
        if (folder / name).exists():
            assert (folder / name).read_bytes() == (reference / name).read_bytes(), name


def check_infer(folder: Path, reference: Path) -> None:
    if (folder / "clip.jsonl").exists():
        wanted = (reference / "clip.jsonl").read_text("utf-8").splitlines()
        lines = (folder / "clip.jsonl").read_text("utf-8").splitlines()
        assert len(lines) > 1
        assert lines == wanted[: len(lines)]
        for name in ("clip_json", "clip.mp4"):
            if (folder / name).exists():
                assert count(folder / name) == len(lines) - 1, name
    if (folder / "photos_overlay").exists():
        assert len(shown(folder / "photos_overlay")) in (1, 2)
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        outputs = [name for source in summary["sources"] for name in source["outputs"]]
        own = [name for name in shown(folder) if name.endswith("summary.json")]
        begun = zip(("clip", "photos"), summary["sources"], strict=True)
        wanted = [f"{stem}.summary.json" for stem, source in begun if source["outputs"]]
        assert {*wanted, "summary.json"} <= set(own)
        assert sorted([*outputs, *own]) == shown(folder)


def count(path: Path) -> int:
    if path.is_dir():
        return len(list(path.iterdir()))
    video = cv2.VideoCapture(str(path))
    found = 0
    while video.read()[0]:
        found += 1
    return found


def check_adapt(folder: Path, reference: Path) -> None:
    if (folder / "a.posekit").exists():
        assert (folder / "a.json").exists()
        assert (folder / "a.html").exists()
        weights, wanted = (Bundle.open(each / "a.posekit").weights for each in (folder, reference))
        assert all(np.array_equal(weights[name], wanted[name]) for name in wanted)
    if (folder / "a.json").exists():
        json.loads((folder / "a.json").read_text("utf-8"))
    if (folder / "a.html").exists():
        assert (folder / "a.html").read_text("utf-8").rstrip().endswith("</html>")


def check_export(folder: Path, reference: Path) -> None:
    if (folder / "x.onnx").exists():
        assert shown(folder) == shown(reference)
        same(folder, reference, "x.onnx")
    if (folder / "x.onnx.parity.json").exists():
        json.loads((folder / "x.onnx.parity.json").read_text("utf-8"))


def check_convert(folder: Path, reference: Path) -> None:
    same(folder, reference, "net.posekit")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Command]:
    folder = tmp_path_factory.mktemp("kills")
    made: dict[str, Command] = {}

    def command(name: str) -> Command:
        if name not in made:
            made[name] = measured(MAKERS[name](folder))
        return made[name]

    return command


def infer(folder: Path) -> Command:
    clip = shutil.copy(shipped("examples/sports2d_demo.mp4"), folder / "clip.mp4")
    (folder / "photos").mkdir()
    for each in ("coco_000000234748.jpg", "coco_000000397133.jpg"):
        shutil.copy(shipped(f"tests/data/{each}"), folder / "photos")
    arguments = ("infer", clip, folder / "photos", "-m", "movenet-lightning", "--threads", "1")
    more = ("--end", "1.2", "--format", "jsonl,openpose")
    return Command((*arguments, *more), "", folder / "infer", 0, check_infer)


def adapt(folder: Path) -> Command:
    (folder / "images").mkdir()
    for number in range(60):
        cv2.imwrite(str(folder / "images" / f"{number:02}.png"), figure(number))
    arguments = ["adapt", "-m", "movenet-lightning", "--unlabeled", folder / "images", "--force"]
    for each in ("steps=4", "batch=4", "watch_every=2", "ensemble_views=2", "rate=1e-4"):
        arguments += ["--set", each]
    more = ("--boxes", "full", "--threads", "1")
    where = folder / "adapt"
    return Command((*arguments, *more), "a.posekit", where, 0, check_adapt, "a.posekit.work")


def export(folder: Path) -> Command:
    arguments = ("export", "movenet-lightning", "--no-flip")
    return Command(arguments, "x.onnx", folder / "export", 0, check_export)


def convert(folder: Path) -> Command:
    torch.manual_seed(5)
    net = build(ModelSpec("simple-baseline-r18", (64, 64), (16, 16), COCO_17))
    path = saved(renamed(dict(net.state_dict()), FLAT), folder / "net_64x64.pth")
    return Command(("convert", path), "net.posekit", folder / "convert", 0, check_convert)


MAKERS = {"infer": infer, "adapt": adapt, "export": export, "convert": convert}


@pytest.mark.parametrize("name", FEW)
def test_what_a_killed_run_has_named_is_whole(
    name: str, commands: Callable[[str], Command], tmp_path: Path
) -> None:
    command = commands(name)
    for number, share in enumerate(FEW[name]):
        command.end(tmp_path / str(number), share, KILL)
    command.again(tmp_path / str(number))  # after the last one


@pytest.mark.slow
@pytest.mark.parametrize("number", [KILL, TERM, INT], ids=["kill", "term", "int"])
@pytest.mark.parametrize("name", MAKERS)
def test_at_twenty_moments(
    name: str, number: int, commands: Callable[[str], Command], tmp_path: Path
) -> None:
    """From the first tenth of a run's time to its end, drawn by a fixed seed."""
    command = commands(name)
    shares = np.sort(np.random.default_rng(number).uniform(0.1, 1.02, MOMENTS))
    codes = [
        command.end(tmp_path / str(n), share, number) for n, share in enumerate(shares.tolist())
    ]
    sys.stdout.write(f"{name} {number}: exit codes {codes}\n")
    assert any(codes)
