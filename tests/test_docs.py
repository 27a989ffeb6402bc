"""README and the site: the commands run, the site builds without a warning, every error is there.

A page's blocks run in a fresh folder, in their order. Lines below a command are its output, which
is compared in shape: numbers may differ, `...` stands for any lines. A comment before a block
steers it: `<!-- not run: why -->` (counted with the skipped checks), `<!-- slow -->` (with --slow),
`<!-- clone -->` (with --slow, in a clone of the repository), and `<!-- exit 1 -->` or
`<!-- slow: exit 0 or 5 -->` for other exit codes than 0.
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
from types import SimpleNamespace
from typing import Any

import av
import pytest

import posekit
from posekit import errors
from tests.support.assets import ROOT, shipped
from tests.support.labels import one_person

DOCS = ROOT / "docs"
README = "README"
SITE = sorted(path.stem for path in DOCS.glob("*.md"))
PAGES = [README, *SITE]
KINDS = ("not run", "slow", "clone")
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
        return head if head in KINDS else "run"

    @property
    def place(self) -> str:
        return f"{path_of(self.page).relative_to(ROOT)}:{self.line}"

    @property
    def codes(self) -> set[int]:
        found = re.search(r"exit ([\d or]+)", self.mark)
        return set(map(int, found[1].split(" or "))) if found else {0}

    def commands(self) -> list[tuple[list[str], str]]:
        """What is run, as the shell or Python takes it, and the output that the page shows."""
        if self.language == "python":
            return [([sys.executable, "-W", "error", "-c", self.text], "")]
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        assert not parts[0], f"{self.place}: a console block begins with a command"
        lines = [part.partition("\n") for part in parts[1:]]
        return [(["sh", "-c", command], output) for command, _, output in lines]


def path_of(page: str) -> Path:
    return (ROOT if page == README else DOCS) / f"{page}.md"


def blocks(page: str) -> Iterator[Block]:
    text = path_of(page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1] or "", found[2], found[3])


ALL = [block for page in PAGES for block in blocks(page)]
NOT_RUN = [
    (block, command[-1])
    for block in ALL
    if block.kind == "not run"
    for command, _ in block.commands()
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
    monkeypatch.setenv("COLUMNS", "80")
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


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the last commit, without the environment of this checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("this checkout is no clone")
    path = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
    monkeypatch.setenv("PATH", f"{path / '.venv/bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return path


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
    for command, shown in block.commands():
        # Both streams in one, as a terminal has them.
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        where = f"{block.place}: {command[-1]}\n{done.stdout}"
        assert done.returncode in block.codes, where
        assert "Traceback" not in done.stdout, where
        assert not shown or shape(shown).fullmatch(normalized(done.stdout)), where


NUMBER = re.compile(r"(?<![a-z])\d[\d.,]*(?<!,)")


def normalized(text: str) -> str:
    """Lines with single spaces and `#` for each number; empty lines are left out."""
    lines = (" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def shape(shown: str) -> re.Pattern[str]:
    """What an output must look like; a line `...` is any number of lines."""
    lines = normalized(shown).splitlines()
    parts = [r"(?:.*\n)*" if line == "..." else re.escape(f"{line}\n") for line in lines]
    return re.compile("".join(parts))


def test_shapes_of_outputs() -> None:
    shown = shape("video.mp4: 120 frames, 17.5 s\n...\nwrote mine.html\n")
    assert shown.fullmatch(normalized("video.mp4: 6 frames,   0.4 s\n\nmore\nwrote mine.html\n"))
    assert not shown.fullmatch(normalized("video.mp4: 6 frames, 0.4 s\nmore\n"))
    assert not shown.fullmatch(normalized("photo.jpg: 6 frames, 0.4 s\nwrote mine.html\n"))
    assert not shown.fullmatch(normalized("video.mp4: 6 frames, 0.4 s\nwrote mine.html\nand\n"))


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


@POSIX
@pytest.mark.slow
def test_readme_installs_and_runs_from_a_clone(clone: Path) -> None:
    """What README says of installing; pip needs a package index for it."""
    for block in blocks(README):
        if block.kind == "clone":
            run(block, clone)
    where = subprocess.run(
        ["posekit", "models"], cwd=clone.parent, capture_output=True, text=True, check=True
    )
    assert "movenet-thunder" in where.stdout


@pytest.mark.parametrize(("block", "command"), NOT_RUN, ids=[text for _, text in NOT_RUN])
def test_what_is_not_run_is_counted(block: Block, command: str) -> None:
    reason = block.mark.partition(": ")[2]
    assert reason, f"{block.place}: {command}: not run, and does not say why"
    pytest.skip(f"command of the docs, not run: {reason}")


def test_no_block_of_code_escapes() -> None:
    """Every fence is one that is run, and every comment before one is understood."""
    for page in PAGES:
        text = path_of(page).read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(list(blocks(page))), page
    for block in ALL:
        known = r"|clone|not run: .+|(slow(: )?)?(exit \d( or \d)*)?"
        assert re.fullmatch(known, block.mark), block.place
        assert block.commands(), block.place


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = path_of(README).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    targets = [each.partition("#")[0] for each in re.findall(r"\]\(([^)]+)\)", text)]
    assert [each for each in targets if "://" in each] == []
    assert [each for each in targets if not (ROOT / each).exists()] == []


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


def test_the_repository_of_the_project_is_linked(
    hooks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.org/posekit"
    text = f'[project]\nname = "posekit"\n[project.urls]\nRepository = "{url}"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    config = hooks.on_config(SimpleNamespace(repo_url=None, repo_name=None))
    assert (config.repo_url, config.repo_name) == (url, "posekit")


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
    assert {f"{page}.html" for page in SITE} | {"benchmarks.html"} <= pages
    text = (tmp_path / "site/api.html").read_text(encoding="utf-8")
    for name in posekit.__all__:
        assert re.search(rf'id="posekit[\w.]*\.{name}"', text), name
    script = (tmp_path / "site/search/search_index.js").read_text(encoding="utf-8")
    assert script.startswith("var __index = ")  # search works without a server
    for name in pages - {"404.html"}:
        text = (tmp_path / "site" / name).read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]*)"', text)
        loaded += re.findall(r'<link rel="(?:stylesheet|icon)" href="([^"]*)"', text)
        assert [each for each in loaded if "//" in each] == [], name
        missing = [each for each in loaded if not (tmp_path / "site" / each).exists()]
        assert missing == [], name
