"""The site: it builds without a warning, its commands run, and it tells of every error.

A page's blocks run in its own folder, in their order. A comment before a block of code steers it:
`<!-- not run: why -->` (counted with the skipped checks), `<!-- slow -->` (with --slow), and
`<!-- exit 1 -->` or `<!-- slow: exit 0 or 5 -->` for other exit codes than 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

import posekit
from posekit import errors
from tests.support.assets import ROOT, shipped
from tests.support.labels import one_person

DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"(?:<!-- ([^>]*?) -->\n)?```(console|python)\n(.*?)^```$", re.DOTALL | re.M)
FRAMES = 6
CLASSES = [each for each in vars(errors).values() if isinstance(each, type)]
POSIX = pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")


@dataclass(frozen=True)
class Block:
    """A piece of code in a page. mark: what the comment before it says."""

    page: str
    line: int
    mark: str
    language: str
    text: str

    @property
    def kind(self) -> str:
        head = self.mark.partition(":")[0]
        return head if head in ("not run", "slow") else "run"

    @property
    def codes(self) -> set[int]:
        found = re.search(r"exit ([\d or]+)", self.mark)
        return set(map(int, found[1].split(" or "))) if found else {0}

    def commands(self) -> list[list[str]]:
        """What is run, as the shell or Python takes it."""
        if self.language == "python":
            return [[sys.executable, "-W", "error", "-c", self.text]]
        lines = self.text.splitlines()
        return [["sh", "-c", line.removeprefix("$ ")] for line in lines if line.startswith("$ ")]


def blocks(page: str) -> Iterator[Block]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1] or "", found[2], found[3])


ALL = [block for page in PAGES for block in blocks(page)]
NOT_RUN = [
    (block, command) for block in ALL if block.kind == "not run" for *_, command in block.commands()
]


def pages_with(kind: str) -> list[str]:
    return [page for page in PAGES if any(block.kind == kind for block in blocks(page))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """What the pages take for given: a short video, photos, labels, frames and a network."""
    if request.node.callspec.params["page"] == "skeletons":
        _write_network(tmp_path / "horse.pth", keypoints=7)
    clip = shipped("examples/sports2d_demo.mp4")
    _shorten(clip, tmp_path / "video.mp4")
    (tmp_path / "photos").mkdir()
    for path in (ROOT / "tests/data").glob("*.jpg"):
        shutil.copy(path, tmp_path / "photos")
    photo = shipped("tests/data/coco_000000397133.jpg")
    shutil.copy(photo, tmp_path / "photo.jpg")
    (tmp_path / "labels.json").write_text(json.dumps(one_person(photo.name)))
    shutil.copytree(tmp_path / "photos", tmp_path / "my_frames")  # the clip alone has 48 persons
    shutil.copy(clip, tmp_path / "my_frames")
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, _sources())))
    return tmp_path


def _write_network(path: Path, keypoints: int) -> None:
    """A checkpoint in SimpleBaseline's own layout with random weights."""
    import torch

    from posekit.nets import build
    from posekit.types import ModelSpec
    from tests.support.states import FLAT, joints, renamed, saved

    torch.manual_seed(11)
    net = build(ModelSpec("simple-baseline-r18", (256, 256), (64, 64), joints(keypoints)))
    saved(renamed(dict(net.state_dict()), FLAT), path)


def _sources() -> list[Path]:
    return [ROOT, ROOT / "engines", ROOT / "finetune"]


def _shorten(clip: Path, target: Path) -> None:
    """The first FRAMES images of `clip`."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        video = source.streams.video[0]
        stream: Any = out.add_stream("libx264", rate=video.average_rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for n, frame in enumerate(source.decode(video)):
            if n == FRAMES:
                break
            plain = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            out.mux(stream.encode(plain))
        out.mux(stream.encode())


def run(block: Block, folder: Path) -> None:
    for command in block.commands():
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        where = f"docs/{block.page}.md:{block.line}: {command[-1]}"
        assert done.returncode in block.codes, f"{where}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, where


@POSIX
@pytest.mark.parametrize("page", pages_with("run"))
def test_what_a_page_says_runs(page: str, folder: Path) -> None:
    for block in blocks(page):
        if block.kind == "run":
            run(block, folder)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"))
def test_what_takes_minutes_runs(page: str, folder: Path) -> None:
    for block in blocks(page):
        if block.kind == "slow":
            run(block, folder)


@pytest.mark.parametrize(("block", "command"), NOT_RUN, ids=[text for _, text in NOT_RUN])
def test_what_is_not_run_is_counted(block: Block, command: str) -> None:
    reason = block.mark.partition(": ")[2]
    assert reason, f"docs/{block.page}.md:{block.line}: {command}: not run, and does not say why"
    pytest.skip(f"command of the docs, not run: {reason}")


def test_no_block_of_code_escapes() -> None:
    """Every fence is one that is run, and every comment before one is understood."""
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(list(blocks(page))), page
    for block in ALL:
        where = f"docs/{block.page}.md:{block.line}"
        assert re.fullmatch(r"|not run: .+|(slow(: )?)?(exit \d( or \d)*)?", block.mark), where
        assert block.commands(), where


def test_every_error_and_exit_code_is_documented() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.partition("## Exit codes")[2].partition("## By error")[0]
    rows = {int(row[0]): row[1] for row in re.findall(r"^\| (\d+) \|(.*)$", table, re.M)}
    assert set(rows) == {0, 1, 2, 3, 4, 5, 130}
    for each in CLASSES:
        assert f"\n### {each.__name__}\n" in text
        assert f"`{each.__name__}`" in rows[each.exit_code]


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_messages_that_are_quoted_are_in_the_source(hooks: Any) -> None:
    """What the tables quote as a message is a piece of one."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text("utf-8") for path in _python())
    raised_text = "\n".join(
        message
        for modules in hooks.messages().values()
        for texts in modules.values()
        for message in texts
    )
    by_error = text.partition("## By error")[2].partition("## Symptoms")[0]
    rows = re.findall(r"^\| (`.*?) \|", by_error, re.M)
    quoted = [piece for row in rows for piece in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) >= 10
    for piece in quoted:
        assert piece in raised_text or piece in source, f"no message says: {piece}"


def _python() -> list[Path]:
    packages = ("posekit", "engines/posekit_engines", "finetune/posekit_finetune")
    return [path for name in packages for path in (ROOT / name).rglob("*.py")]


def test_every_message_reaches_the_page(hooks: Any) -> None:
    page = hooks.on_page_markdown((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert hooks.MARK not in page
    messages = hooks.messages()
    assert set(messages) == {each.__name__ for each in CLASSES}
    raised = {name for name, modules in messages.items() if modules}
    assert raised >= set(messages) - {
        "PosekitError",
        "RejectedError",
    }  # the base; an exit code only
    for name in raised:
        assert f"### Messages of {name}" in page
    assert "this ONNX Runtime has no" in page


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    pages = {path.name for path in (tmp_path / "site").glob("*.html")}
    assert {f"{page}.html" for page in PAGES} | {"benchmarks.html"} <= pages
    text = (tmp_path / "site/api.html").read_text(encoding="utf-8")
    for name in posekit.__all__:
        assert re.search(rf'id="posekit[\w.]*\.{name}"', text), name
    assert "https://fonts." not in text
