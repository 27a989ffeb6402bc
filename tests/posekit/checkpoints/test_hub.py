"""hf:// fetches from the server it is told to, says what it took, and nothing else is fetched."""

import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from posekit.bundle import Bundle
from posekit.checkpoints import hub
from posekit.checkpoints.hub import fetch
from posekit.cli import app
from posekit.errors import CheckpointError, MissingExtraError
from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from tests.support import needs
from tests.support.states import FLAT, renamed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"model_type": "vitpose"}', "model.safetensors": b"numbers", "a.md": b"x"}


LISTINGS: dict[str, bytes] = {}
"""Whole answers of the server's list of a repository."""
ANNOUNCED: dict[str, str] = {}
"""What the server says of any file, in place of the truth."""
REPOSITORIES = {"some/model": FILES, "some/weights": dict[str, bytes]()}


class Handler(http.server.BaseHTTPRequestHandler):
    """The two calls that huggingface_hub makes: what is there, and a file."""

    def do_HEAD(self) -> None:
        self._respond(body=False)

    def do_GET(self) -> None:
        self._respond(body=True)

    def _respond(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        repository = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        files = REPOSITORIES.get(repository, {})
        if path.startswith("/api/models/") and repository in LISTINGS:
            self._send(LISTINGS[repository], body=body)
            return
        if path.startswith("/api/models/") and files:
            siblings = [{"rfilename": each} for each in files]
            data = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith(f"/{repository}/resolve/{COMMIT}/") and name in files:
            data = files[name]
        else:
            self.send_error(404)
            return
        self._send(data, body=body)

    def _send(self, data: bytes, *, body: bool) -> None:
        digest = ANNOUNCED.get("sha256") or hashlib.sha256(data).hexdigest()
        size = len(data) if body else int(ANNOUNCED.get("size", len(data)))
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    needs.package("huggingface_hub")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    yield
    running.shutdown()
    running.server_close()
    thread.join()


def test_weights_and_config_are_fetched_with_commit_and_hashes(
    server: None, tmp_path: Path
) -> None:
    fetched = fetch("hf://some/model", tmp_path)
    assert fetched.revision == COMMIT
    assert fetched.path == tmp_path / "model"
    taken = {name: data for name, data in FILES.items() if name != "a.md"}
    assert fetched.sha256 == {k: hashlib.sha256(v).hexdigest() for k, v in taken.items()}
    for name, data in taken.items():
        assert (fetched.path / name).read_bytes() == data
    assert not (fetched.path / "a.md").exists()


def test_the_command_converts_what_it_fetched_and_says_so_in_the_bundle(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = build(ModelSpec("simple-baseline-r18", (64, 64), (16, 16), COCO_17))
    file = io.BytesIO()
    torch.save(renamed(dict(net.state_dict()), FLAT), file)
    monkeypatch.setitem(REPOSITORIES, "some/weights", {"net_coco_64x64.pth": file.getvalue()})
    output = tmp_path / "net.posekit"
    address = "hf://some/weights@main"
    done = CliRunner().invoke(app, ["convert", address, "-o", str(output), "--color", "rgb"])
    assert done.exit_code == 0, done.output
    provenance = Bundle.open(output).provenance
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    assert (provenance["source"], provenance["revision"]) == (address, COMMIT)
    assert provenance["files"] == {"net_coco_64x64.pth": digest}
    assert provenance["sha256"] == digest
    assert provenance["input_size"] == "64 x 64 (file name)"
    shown = CliRunner().invoke(app, ["inspect", str(output)]).output
    assert address in shown
    assert COMMIT in shown
    assert [path.name for path in tmp_path.iterdir()] == ["net.posekit"]


def test_what_is_not_there_is_one_sentence(server: None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hf://some/other: cannot be fetched: \S"):
        fetch("hf://some/other", tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file; it holds a\.md, config\.json"):
        fetch("hf://some/model/x.pth", tmp_path)


@pytest.mark.parametrize("address", ["hf://", "hf://one", "hf://a/b/c d@e f"])
def test_other_addresses_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="wanted hf://OWNER/NAME"):
        fetch(address, tmp_path)


def test_without_huggingface_hub_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"posekit\[hub\]"):
        fetch("hf://some/model", tmp_path)


def test_several_checkpoints_must_be_named() -> None:
    with pytest.raises(CheckpointError, match="name one as hf://OWNER/NAME/FILE"):
        hub._wanted(["a.pth", "b.pth"], None, "hf://some/model")
    assert hub._wanted(["a.pth", "b.pth"], "b.pth", "hf://some/model") == ["b.pth"]


def listing(**fields: object) -> bytes:
    return json.dumps({"id": "some/odd", "sha": COMMIT, "siblings": [], **fields}).encode()


def of_names(*names: object) -> bytes:
    return listing(siblings=[{"rfilename": name} for name in names])


@pytest.mark.parametrize(
    "response",
    [
        of_names("../../evil.safetensors", "config.json"),
        of_names("a\\b.pth"),
        of_names("/etc/x.pth"),
        of_names("a\x1b[2J.pth"),
        of_names(3, "config.json"),
        listing(siblings=[1, 2]),
        listing(siblings=5),
        listing(siblings={"a": 1}),
        listing(sha="../../main"),
        listing(sha=None),
        b"[]",
        b"3",
        b"not json",
        b"",
        b"[" * 100_000,
        b'{"id": "some/odd", "sha": ' + b"9" * 5000 + b"}",
        of_names(*(f"{n}.safetensors" for n in range(100)), "config.json"),
        of_names(*(f"{n}.md" for n in range(30_000))),
    ],
)
def test_whatever_the_server_lists_is_files_or_one_sentence(
    response: bytes, server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LISTINGS, "some/odd", response)
    with pytest.raises(CheckpointError, match=r"^hf://some/odd: ") as caught:
        fetch("hf://some/odd", tmp_path / "inner")
    text = str(caught.value)
    assert text.isprintable()
    assert "object is not" not in text or "is not what a hub sends" in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_the_announced_one_is_refused(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANNOUNCED, "sha256", "0" * 64)
    with pytest.raises(CheckpointError, match="but the server announced 0000"):
        fetch("hf://some/model", tmp_path)


def test_more_bytes_than_a_model_has_are_not_fetched(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANNOUNCED, "size", str(1 << 40))
    with pytest.raises(CheckpointError, match="bytes to fetch; posekit takes up to"):
        fetch("hf://some/model", tmp_path / "inner")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_more_than_it_stated_is_cut_off(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub itself takes all of it and compares the sizes then."""
    sent = 1 << 27
    files = {"config.json": b"{}", "model.safetensors": bytes(sent)}
    monkeypatch.setitem(REPOSITORIES, "some/weights", files)
    monkeypatch.setitem(ANNOUNCED, "size", "2")
    with pytest.raises(CheckpointError, match=r"sends more than the 2 bytes it stated"):
        fetch("hf://some/weights", tmp_path)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored < sent / 2
