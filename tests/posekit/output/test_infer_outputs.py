"""What `posekit infer` leaves behind when something goes wrong, and what it never touches."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import pytest

from tests.support.assets import shipped
from tests.support.clips import make_clip
from tests.support.processes import run, start, wait_until
from tests.support.streams import http_server, send_transport_stream

CLIP = "examples/sports2d_demo.mp4"
FAST = ("-m", "movenet-lightning", "--no-flip", "--threads", "2")
PHOTOS = ("coco_000000234748.jpg", "coco_000000397133.jpg")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def frames_of(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copy(shipped(CLIP), tmp_path / "clip.mp4"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in PHOTOS:
        shutil.copy(shipped(f"tests/data/{name}"), folder)
    return folder


@pytest.mark.parametrize("case", ["same", "through a link", "boxes", "next in the list", "folder"])
def test_an_output_never_replaces_an_input(clip: Path, case: str) -> None:
    """Refused before anything starts, whatever --overwrite says, and under any name."""
    folder = clip.parent
    sources: list[object] = [clip]
    options: tuple[object, ...] = ("-o", folder)
    victim = clip
    if case == "through a link":
        (folder / "link").symlink_to(folder)
        options = ("-o", folder / "link")
    elif case == "boxes":
        victim = folder / "clip.jsonl"
        victim.write_text('{"frame": 0, "boxes": [[0, 0, 9, 9]]}\n')
        options = ("--boxes", victim, "--no-video", "-o", folder)
    elif case == "next in the list":
        other = make_clip(folder / "other.mp4", 3)
        (folder / "out").mkdir()
        victim = Path(shutil.copy(clip, folder / "out" / "other.mp4"))
        sources, options = [other, victim], ("-o", folder / "out")
    elif case == "folder":
        (folder / "clip_json").mkdir()
        victim = clip.rename(folder / "clip_json" / "clip.mp4")
        sources = [victim]
        options = ("--format", "openpose", "--no-video", "-o", folder)
    before, there = victim.read_bytes(), names(folder)
    code, out, err = run("infer", *sources, *FAST, *options, "--overwrite")
    assert (code, out) == (1, "")
    assert f"would replace the input {victim}" in err
    assert err.count("\n") == 1
    assert victim.read_bytes() == before
    assert names(folder) == there


def test_all_names_are_checked_before_the_first_source_is_read(clip: Path) -> None:
    out = clip.parent / "out"
    out.mkdir()
    (out / "b.jsonl").write_text("mine")
    second = make_clip(clip.parent / "b.mp4", 3)
    code, _, err = run("infer", clip, second, *FAST, "-o", out)
    assert code == 1
    assert "b.jsonl: exists" in err
    assert names(out) == ["b.jsonl"]


def pair(folder: Path, clips: list[Path]) -> None:
    """Two runs into one folder at the same time: one is there as if alone, the other is refused."""
    formats = ("--format", "jsonl,coco,csv,parquet,openpose", "--end", "0.4")
    runs = [start("infer", each, *FAST, *formats, "-o", folder / "out") for each in clips]
    ends = [(each.communicate(timeout=300)[1], each.returncode) for each in runs]
    assert sorted(code for _, code in ends) == [0, 1], ends
    winner = 0 if ends[0][1] == 0 else 1
    sentence = ends[1 - winner][0]
    assert "another run is writing it" in sentence or "exists" in sentence
    assert sentence.count("\n") == 1
    code, _, err = run("infer", clips[winner], *FAST, *formats, "-o", folder / "alone")
    assert code == 0, err
    assert names(folder / "out") == names(folder / "alone")
    for name in ("clip.jsonl", "clip.coco.json", "clip.csv", "clip.parquet"):
        assert (folder / "out" / name).read_bytes() == (folder / "alone" / name).read_bytes()
    assert frames_of(folder / "out" / "clip.mp4") == frames_of(folder / "alone" / "clip.mp4")
    openpose = [folder / each / "clip_json" for each in ("out", "alone")]
    assert names(openpose[0]) == names(openpose[1])


@pytest.mark.parametrize(
    "number", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 20))]
)
def test_two_runs_with_one_output_are_never_mixed(clip: Path, number: int) -> None:
    other = clip.parent / "other"
    other.mkdir()
    pictures = clip.parent / "short.mp4"
    with av.open(str(clip)) as video:
        images = [f.to_ndarray(format="rgb24") for f in itertools.islice(video.decode(video=0), 30)]
    second = make_clip(pictures, images[number % 5 :]).rename(other / "clip.mp4")
    pair(clip.parent, [clip, second] if number % 2 else [second, clip])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_done(clip: Path, number: int) -> None:
    out = clip.parent / "out"
    process = start("infer", clip, "-m", "movenet-thunder", "-o", out)
    wait_until(lambda: any(each.stat().st_size > 4096 for each in out.glob(".clip.jsonl.*")))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert names(out) == ["clip.jsonl", "clip.mp4", "clip.summary.json"]
    _, *frames = lines(out / "clip.jsonl")
    assert frames_of(out / "clip.mp4") == len(frames) >= 1
    summary = json.loads((out / "clip.summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["frames"] == len(frames)


def test_a_signal_before_the_first_frame_leaves_nothing(clip: Path) -> None:
    out = clip.parent / "new" / "out"
    process = start("infer", clip, "-m", "movenet-thunder", "--views", "16", "-o", out)
    wait_until(out.exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    if "finishing" not in err:  # else a frame was done by then
        assert not out.parent.exists()


def test_a_stream_that_has_stalled_does_not_hold_up_the_end(tmp_path: Path) -> None:
    def stalling(handler: BaseHTTPRequestHandler) -> None:
        send_transport_stream(handler, 60, rate=30)
        time.sleep(30)

    with http_server(stalling) as url:
        process = start("infer", f"{url}/live.ts", *FAST, "-o", tmp_path / "out")
        wait_until(
            lambda: any(p.stat().st_size > 4096 for p in (tmp_path / "out").glob(".*.partial"))
        )
        time.sleep(3)  # the server sends no more by now
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    assert process.returncode == 130, err
    assert names(tmp_path / "out") == ["live.summary.json", "live_000.jsonl", "live_000.mp4"]


BROKEN = """
import sys
from posekit.tracking import track
from posekit.cli import main
update, calls = track.Tracker.update, []
def broken(self, *arguments, **more):
    calls.append(1)
    if len(calls) > {after}:
        raise RuntimeError("no such luck")
    return update(self, *arguments, **more)
track.Tracker.update = broken
main()
"""


def test_an_unexpected_exception_keeps_what_was_done_under_names_that_say_so(clip: Path) -> None:
    out = clip.parent / "out"
    wanted = ["infer", clip, *FAST, "-o", out, "--format", "jsonl,openpose"]
    code, text, err = run(*wanted, program=BROKEN.format(after=10))
    assert (code, text) == (1, "")
    assert err.startswith("posekit: stopped by an unexpected RuntimeError: no such luck;")
    assert "--debug" in err
    assert err.count("\n") == 1
    endings = ("clip.jsonl", "clip.mp4", "clip_json", "clip.summary.json")
    assert names(out) == sorted(f"{name}.incomplete" for name in endings)
    assert all(name in err for name in endings[:3])
    _, *frames = lines(out / "clip.jsonl.incomplete")
    assert [each["frame"] for each in frames] == list(range(10))
    assert frames_of(out / "clip.mp4.incomplete") == len(names(out / "clip_json.incomplete"))
    assert frames_of(out / "clip.mp4.incomplete") == 10
    summary = json.loads((out / "clip.summary.json.incomplete").read_text())
    assert "RuntimeError: no such luck" in summary["sources"][0]["error"]
    code, _, err = run(*wanted, "--end", "0.2", program=BROKEN.format(after=1000))
    assert code == 0, err  # no final name is taken


def test_an_exception_before_the_first_frame_leaves_nothing(clip: Path) -> None:
    out = clip.parent / "new" / "out"
    code, _, err = run("infer", clip, *FAST, "-o", out, program=BROKEN.format(after=0))
    assert code == 1
    assert "unexpected RuntimeError" in err
    assert not out.parent.exists()


LIMITED = """
import resource
from posekit.cli import main
resource.setrlimit(resource.RLIMIT_AS, ({bytes}, {bytes}))
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there")
@pytest.mark.parametrize(
    "megabytes",
    [800, *(pytest.param(n, marks=pytest.mark.slow) for n in range(500, 1500, 75))],
)
def test_without_memory_nothing_has_its_final_name(clip: Path, megabytes: int) -> None:
    out = clip.parent / "out"
    program = LIMITED.format(bytes=megabytes * 1024 * 1024)
    code, _, err = run(
        "infer", clip, "-m", "movenet-lightning", "-o", out, "--end", "1", program=program
    )
    if code == 0:
        return
    assert "Traceback" not in err
    left = names(out) if out.exists() else []  # hidden ones where a library in C ended the process
    assert not [name for name in left if name[0] != "." and not name.endswith(".incomplete")]


def test_a_bad_image_does_not_lose_the_others(photos: Path) -> None:
    whole = (photos / PHOTOS[0]).read_bytes()
    (photos / "a_cut.jpg").write_bytes(whole[:300])
    (photos / "z_text.png").write_text("not an image")
    out = photos.parent / "out"
    code, text, err = run("infer", photos, *FAST, "-o", out, "--json")
    assert code == 1
    summary = json.loads(text)
    assert summary == json.loads((out / "photos.summary.json").read_text("utf-8"))
    assert summary["failed"] == summary["sources"][0]["unreadable"] == 2
    notes = [note for note in summary["sources"][0]["notes"] if note.startswith("left out: ")]
    assert "a_cut.jpg" in notes[0]
    assert "z_text.png" in notes[1]
    assert "2 images that could not be read were left out" in err
    _, *frames = lines(out / "photos.jsonl")
    assert [(each["frame"], each["file"]) for each in frames] == [(1, PHOTOS[0]), (2, PHOTOS[1])]
    assert len(names(out / "photos_overlay")) == 2


def test_images_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_text("not an image")
    code, _, err = run("infer", tmp_path / "photos", *FAST, "-o", tmp_path / "out")
    assert code == 1
    assert err.count("\n") == 1
    assert names(tmp_path) == ["photos"]


def test_a_bad_video_does_not_lose_the_others(clip: Path) -> None:
    folder = clip.parent
    (folder / "bad.mp4").write_bytes(clip.read_bytes()[:50_000])
    last = make_clip(folder / "last.mp4", 5)
    code, _, err = run(
        "infer", clip, folder / "bad.mp4", last, *FAST, "-o", folder / "out", "--end", "0.2", "-q"
    )
    assert code == 1
    assert "bad.mp4" in err
    assert "going on with the others" in err
    assert err.count("\n") == 1
    files = ("jsonl", "mp4", "summary.json")
    names_ = [f"{stem}.{each}" for stem in ("clip", "last") for each in files] + ["summary.json"]
    assert names(folder / "out") == names_
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["failed"] == 1
    errors = [source["error"] for source in summary["sources"]]
    assert errors[0] is None
    assert "bad.mp4" in errors[1]
    assert errors[2] is None


def test_videos_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("not a video")
    code, _, err = run("infer", tmp_path / "a.mp4", tmp_path / "b.mp4", *FAST, "-o", tmp_path / "o")
    assert code == 1
    assert [name in err for name in ("a.mp4", "b.mp4", "none of the 2 sources")] == [True] * 3
    assert names(tmp_path) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("count", ["0", "100000"])
def test_threads_are_within_reason(clip: Path, count: str) -> None:
    code, _, err = run("infer", clip, *FAST[:2], "--threads", count, "-o", clip.parent / "out")
    assert code in (1, 2)
    assert "--threads" in err
    assert names(clip.parent) == ["clip.mp4"]
