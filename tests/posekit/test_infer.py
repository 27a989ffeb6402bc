"""`posekit infer` as a person runs it: real files, wrong files, Ctrl-C."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.support.assets import ROOT, shipped
from tests.support.processes import run as posekit
from tests.support.processes import start, wait_until

CLIP = "examples/sports2d_demo.mp4"
FAST = ("-m", "movenet-lightning", "--no-flip", "--threads", "2")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space and an umlaut, holding the results of the clip's first second."""
    folder = tmp_path_factory.mktemp("mit Umläuten")
    source = folder / "ein Vidéo.mp4"
    shutil.copy(shipped(CLIP), source)
    code, out, err = posekit("infer", source, *FAST, "-o", folder / "out", "--end", "1", "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads(
        (folder / "out" / "ein Vidéo.summary.json").read_text("utf-8")
    )
    return folder / "out"


def test_a_clip_becomes_lines_an_overlay_and_a_summary(one_run: Path) -> None:
    assert sorted(path.name for path in one_run.iterdir()) == [
        "ein Vidéo.jsonl",
        "ein Vidéo.mp4",
        "ein Vidéo.summary.json",
    ]
    header, *frames = lines(one_run / "ein Vidéo.jsonl")
    assert header["model"] == "movenet-lightning"
    assert len(header["skeleton"]["keypoints"]) == 17
    assert [frame["frame"] for frame in frames] == list(range(len(frames)))
    persons = [person for frame in frames for person in frame["persons"]]
    assert len(persons) >= 20
    assert all(len(person["points"]) == len(person["scores"]) == 17 for person in persons)
    with av.open(str(one_run / "ein Vidéo.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == len(frames)


def test_the_summary_says_what_ran(one_run: Path) -> None:
    summary = json.loads((one_run / "ein Vidéo.summary.json").read_text("utf-8"))
    assert summary["runtime"] == {
        "provider": "CPUExecutionProvider",
        "device": "cpu",
        "threads": 2,
        "flip": False,
        "views": None,
        "notes": [],
    }
    assert summary["boxes"]["provider"] == "CPUExecutionProvider"
    assert len(summary["model"]["sha256"]) == 64
    assert summary["frames"] == summary["sources"][0]["frames"] > 20
    assert set(summary["stages"]) == {
        "decode", "detect", "crop", "network", "track", "write", "draw", "encode",
    }  # fmt: skip
    for stage in summary["stages"].values():
        assert 0 <= stage["p50_ms"] <= stage["p95_ms"] <= stage["total_s"] * 1e3 + 1
    assert summary["interrupted"] is False


def test_existing_outputs_are_kept_without_overwrite(one_run: Path) -> None:
    source = one_run.parent / "ein Vidéo.mp4"
    before = {path: path.stat().st_mtime_ns for path in one_run.iterdir()}
    code, out, err = posekit("infer", source, *FAST, "-o", one_run, "--end", "0.2")
    assert code == 1
    assert out == ""
    assert "--overwrite" in err
    assert {path: path.stat().st_mtime_ns for path in one_run.iterdir()} == before


def test_a_folder_of_images_is_not_tracked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("coco_000000234748.jpg", "coco_000000397133.jpg"):
        shutil.copy(shipped(f"tests/data/{name}"), tmp_path / "in")
    code, _, err = posekit(
        "predict", tmp_path / "in", *FAST, "-o", tmp_path / "out", "--format", "jsonl,coco"
    )
    assert code == 0, err
    _, *frames = lines(tmp_path / "out" / "in.jsonl")
    assert [frame["file"] for frame in frames] == [
        "coco_000000234748.jpg",
        "coco_000000397133.jpg",
    ]
    assert all(person["id"] is None for frame in frames for person in frame["persons"])
    assert len(list((tmp_path / "out" / "in_overlay").iterdir())) == 2


def test_two_sources_share_a_run(tmp_path: Path) -> None:
    code, _, err = posekit(
        "infer", shipped(CLIP), shipped(CLIP), *FAST, "-o", tmp_path, "--end", "0.3", "--no-video"
    )
    assert code == 0, err
    first, second = tmp_path / "sports2d_demo.jsonl", tmp_path / "sports2d_demo_2.jsonl"
    assert lines(first)[1:] == lines(second)[1:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.mp4", b"these are my notes\n" * 40, "notes.mp4"),
        ("empty.mp4", b"", "empty"),
        ("half.mp4", None, "half.mp4"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    data = shipped(CLIP).read_bytes() if content is None else content
    (tmp_path / name).write_bytes(data[: len(data) // 2] if content is None else data)
    code, out, err = posekit("infer", tmp_path / name, *FAST, "-o", tmp_path / "out")
    if content is None and code == 0:  # an index at the front: what there is was read
        assert "truncated" in out
        return
    assert code == 1
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.mp4"], 1, "missing.mp4"),
        (["."], 1, "without images"),
        ([CLIP, "-m", "movenet-thnder"], 1, "did you mean movenet-thunder"),
        ([CLIP, "--format", "josnl"], 1, "did you mean jsonl"),
        ([CLIP, "--device", "tpu"], 1, "wanted auto, cpu, cuda"),
        ([CLIP, "--codec", "mpeg1"], 2, "mpeg1"),
        ([CLIP, "--start", "5", "--end", "1"], 1, "start"),
        ([CLIP, "--no-such-flag"], 2, "no-such-flag"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    arguments = [str(shipped(CLIP)) if each == CLIP else each for each in arguments]
    got, _, err = posekit("infer", *arguments, "-o", tmp_path / "out", cwd=tmp_path)
    assert got == code, err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_explicit_gpu_is_refused_with_the_fix(tmp_path: Path) -> None:
    code, _, err = posekit("infer", shipped(CLIP), "--device", "cuda", "-o", tmp_path / "out")
    assert code == 3
    assert "posekit[gpu]" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    code, _, err = posekit("infer", shipped(CLIP), *FAST, "-o", tmp_path / "out")
    assert code == 1
    assert "cannot be written" in err


def test_an_output_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    code, _, err = posekit("infer", shipped(CLIP), *FAST, "-o", tmp_path / "out")
    assert code == 1
    assert err.count("\n") == 1
    assert "out" in err


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits stand in for a full disk")
def test_a_full_disk_is_one_sentence_and_leaves_no_folder(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from posekit.__main__ import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); main()"
    )
    arguments = ["infer", shipped(CLIP), *FAST, "--end", "1", "-o", tmp_path / "new" / "out"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "no room left" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    process = start("infer", shipped(CLIP), "-m", "movenet-thunder", "-o", tmp_path / "out")
    partial = tmp_path / "out"
    wait_until(lambda: any(path.stat().st_size > 4096 for path in partial.glob(".*.jsonl*")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    _, *frames = lines(tmp_path / "out" / "sports2d_demo.jsonl")
    with av.open(str(tmp_path / "out" / "sports2d_demo.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(frames) >= 1
    summary = json.loads((tmp_path / "out" / "sports2d_demo.summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["frames"] == len(frames)
    assert not list(partial.glob(".*")), "a partial file is left"


def test_show_serves_the_overlay_while_it_is_made(tmp_path: Path) -> None:
    process = start("infer", shipped(CLIP), "--show", "--no-video", "-o", tmp_path / "out")
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:"), line
        with urllib.request.urlopen(url.rstrip("/") + "/stream.mjpg", timeout=60) as stream:
            data = b""
            while b"\xff\xd9" not in data:
                data += stream.read1(65536)
        start_at = data.index(b"\xff\xd8")
        jpeg = np.frombuffer(data[start_at : data.index(b"\xff\xd9") + 2], np.uint8)
        assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (540, 960, 3)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


@contextlib.contextmanager
def endless_mpegts(clip: Path) -> Iterator[str]:
    """An HTTP server that plays a clip as MPEG-TS over and over, a little faster than life."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    data = as_mpegts(clip)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    for at in range(0, len(data), 8192):
                        self.wfile.write(data[at : at + 8192])
                        time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live.ts"
    finally:
        server.shutdown()
        server.server_close()


def as_mpegts(clip: Path) -> bytes:
    import io

    buffer = io.BytesIO()
    with av.open(str(clip)) as source, av.open(buffer, "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return buffer.getvalue()


def test_a_live_stream_is_cut_into_segments_until_ctrl_c(tmp_path: Path) -> None:
    with endless_mpegts(shipped(CLIP)) as url:
        process = start("infer", url, *FAST, "--segment", "1", "-o", tmp_path / "out")
        wait_until(lambda: (tmp_path / "out" / "live_001.jsonl").exists())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert lines(tmp_path / "out" / "live_000.jsonl")[0]["posekit"]
    for index in (0, 1):
        with av.open(str(tmp_path / "out" / f"live_{index:03d}.mp4")) as video:
            frames = sum(1 for _ in video.decode(video=0))
        assert frames == len(lines(tmp_path / "out" / f"live_{index:03d}.jsonl")) - 1
