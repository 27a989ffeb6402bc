"""Cameras and streams: the newest or every frame, reconnection after breaks, no endless wait."""

import contextlib
import itertools
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from posekit.errors import SourceError
from posekit.output.mjpeg import MjpegServer
from posekit.video import ReadOptions, read
from posekit.video.decoding import container
from tests.support.clips import make_clip, number_of, numbered
from tests.support.processes import start, wait_until
from tests.support.streams import RtspCamera, http_server, send_file, send_transport_stream


def take(reader: object, count: int, pause_s: float = 0) -> list[tuple[int, float, int]]:
    """(index, time_s, painted number) of the next `count` frames."""
    got = []
    for frame in reader:  # type: ignore[attr-defined]
        got.append((frame.index, frame.time_s, number_of(frame.image)))
        if len(got) == count:
            break
        time.sleep(pause_s)
    return got


def test_every_frame_of_an_rtsp_camera_comes_in_order() -> None:
    with RtspCamera() as camera, read(camera.url, options=ReadOptions(live="all")) as reader:
        got = take(reader, 20)
    assert (reader.kind, reader.size, reader.frame_count) == ("live", (160, 96), None)
    assert (reader.dropped, reader.reconnected) == (0, 0)
    assert [index for index, *_ in got] == list(range(20))
    first = got[0][2]
    assert [number for *_, number in got] == list(range(first, first + 20))
    steps = [after[1] - before[1] for before, after in itertools.pairwise(got)]
    assert steps == pytest.approx([0.04] * 19, abs=2e-3)


def test_a_slow_taker_gets_the_newest_and_the_rest_is_counted() -> None:
    with RtspCamera(rate=50) as camera, read(camera.url) as reader:
        take(reader, 3)
        began, dropped = time.monotonic(), reader.dropped
        got = take(reader, 6, pause_s=0.2)
        took = time.monotonic() - began
        missed = reader.dropped - dropped
    gaps = sum(b[0] - a[0] - 1 for a, b in itertools.pairwise(got))
    # 50 a second come, 5 are taken: about 45 a second are dropped
    assert gaps > 0.5 * 45 * took
    assert 0 <= missed - gaps <= 15  # and those that came before the first one taken


def test_a_slow_taker_of_every_frame_misses_none() -> None:
    options = ReadOptions(live="all", prefetch=2)
    with RtspCamera(rate=200) as camera, read(camera.url, options=options) as reader:
        got = take(reader, 15, pause_s=0.03)
    assert [index for index, *_ in got] == list(range(15))
    assert [n - got[0][2] for *_, n in got] == list(range(15))
    assert reader.dropped == 0


def test_a_cut_rtsp_stream_is_taken_up_again() -> None:
    with (
        RtspCamera(30, 30, None) as camera,
        read(camera.url, options=ReadOptions(live="all", timeout_s=5)) as reader,
    ):
        got = take(reader, 70)
    assert reader.reconnected == 2
    assert camera.connections == 3
    times = [time_s for _, time_s, _ in got]
    assert all(after > before for before, after in itertools.pairwise(times))
    assert [index for index, *_ in got] == list(range(70))


def test_a_stream_that_stays_away_is_given_up_with_one_sentence() -> None:
    with RtspCamera(30) as camera:
        reader = read(camera.url, options=ReadOptions(live="all", reconnects=1, timeout_s=2))
        assert len(take(reader, 5)) == 5
    with pytest.raises(SourceError, match="gave up after 1 tries to reconnect") as caught:
        list(reader)
    assert str(caught.value).startswith("rtsp://127.0.0.1")
    assert "\n" not in str(caught.value)
    reader.close()


def test_an_endless_http_stream_is_live_and_reconnected() -> None:
    cuts = iter([40, None])
    with (
        http_server(lambda handler: send_transport_stream(handler, next(cuts), 100)) as url,
        read(f"{url}/live.ts", options=ReadOptions(live="all")) as reader,
    ):
        got = take(reader, 60)
    assert (reader.kind, reader.reconnected) == ("live", 1)
    numbers = [number for *_, number in got]
    again = numbers.index(0, 1)
    assert 38 <= again <= 40  # the cut may cost the image in the decoder's hand
    assert numbers == [*range(again), *range(60 - again)]


def test_without_reconnection_a_break_is_the_end() -> None:
    options = ReadOptions(live="all", reconnects=0)
    with (
        http_server(lambda handler: send_transport_stream(handler, 30, 200)) as url,
        read(f"{url}/live.ts", options=options) as reader,
    ):
        assert 28 <= len(list(reader)) <= 30
    assert len(reader.notes) == 1


def test_a_window_and_every_hold_for_live_sources() -> None:
    options = ReadOptions(live="all", every=5, start_s=0.2, end_s=1.0)
    with RtspCamera(rate=50) as camera, read(camera.url, options=options) as reader:
        got = [(frame.index, frame.time_s) for frame in reader]
    assert [index for index, _ in got] == [5, 10, 15, 20]
    assert all(0.2 <= time_s < 1.0 for _, time_s in got)


def test_a_video_on_a_server_is_read_like_a_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 50, options={"g": "10"})
    with http_server(lambda handler: send_file(handler, clip)) as url:
        with read(f"{url}/clip.mp4") as reader:
            assert (reader.kind, reader.frame_count) == ("video", 50)
            assert [n for *_, n in take(reader, 50)] == list(range(50))
        with read(f"{url}/clip.mp4", options=ReadOptions(start_s=1.0, every=3)) as reader:
            assert [(i, n) for i, _, n in take(reader, 99)] == [(i, i) for i in range(25, 50, 3)]


def test_our_own_overlay_stream_can_be_read() -> None:
    with MjpegServer() as server:
        done = threading.Event()

        def push() -> None:
            for number in range(1, 1000):
                server.push(numbered(number))
                if done.wait(0.02):
                    return

        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            with read(f"{server.url}stream.mjpg", options=ReadOptions(live="all")) as reader:
                got = take(reader, 20)
        finally:
            done.set()
            pushing.join()
    assert reader.kind == "live"
    numbers = [number for *_, number in got]
    assert numbers == sorted(set(numbers))
    times = [time_s for _, time_s, _ in got]
    assert times == sorted(set(times))


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_says_nothing_is_given_up_in_time(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"{scheme}://user:secret@127.0.0.1:{mute.getsockname()[1]}/cam"
        began = time.monotonic()
        with pytest.raises(SourceError, match="no response within 1 s") as caught:
            read(url, options=ReadOptions(timeout_s=1))
        assert time.monotonic() - began < 4
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_port_where_nothing_listens_is_one_sentence(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match="nothing listens there") as caught:
        read(f"{scheme}://127.0.0.1:{port}/x")
    assert "\n" not in str(caught.value)


def test_a_kind_of_url_that_pyav_was_built_without_is_one_sentence() -> None:
    with pytest.raises(SourceError, match=r"srt://127\.0\.0\.1:9: (this build of PyAV|no resp)"):
        read("srt://127.0.0.1:9", options=ReadOptions(timeout_s=1))


def test_what_a_server_refuses_or_what_is_not_a_video_is_reported() -> None:
    with (
        http_server(lambda handler: handler.send_error(404)) as url,
        pytest.raises(SourceError, match="404"),
    ):
        read(f"{url}/gone.mp4")
    with (
        http_server(lambda handler: send_file(handler, Path(__file__))) as url,
        pytest.raises(SourceError, match="not a video"),
    ):
        read(f"{url}/test.py")


def test_a_stalled_stream_is_left_at_once() -> None:
    """Whatever its time limit, and its thread ends: Python's own end may not meet it."""
    stall = Stall()
    with http_server(stall) as url:
        reader = read(f"{url}/live.ts", options=ReadOptions(live="all", timeout_s=60))
        take(reader, 97)  # the decoder keeps the last ones; now it waits for more
        time.sleep(0.2)
        began = time.monotonic()
        assert reading()
        reader.close()
        assert time.monotonic() - began < 1
        assert not reading()
        assert reader.notes == []
        with read(f"{url}/live.ts") as other:  # which is not interrupted
            assert len(take(other, 3)) == 3
        stall.released.set()


class Stall:
    """Sends some images and then with nothing until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        send_transport_stream(handler, 100, 200)
        self.released.wait(20)


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read ")]


WAITING = {
    "with": """
        with read(url, options=options) as reader:
            for frame in reader:
                pass
        """,
    "global": """
        reader = read(url, options=options)
        for frame in reader:
            pass
        """,
    "opening": """
        read(url.replace("live", "mute"), options=options)
        """,
}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("case", WAITING)
def test_ctrl_c_ends_a_program_around_a_reader_that_waits(case: str) -> None:
    """A crash of FFmpeg's thread in Python's shutdown is a matter of luck; that it has ended by
    then is not.
    """
    program = f"""
        import atexit, sys, threading

        def count():
            print(sum(each.name.startswith("read ") for each in threading.enumerate()), flush=True)

        atexit.register(count)  # the first one is the last to run
        from posekit.video import ReadOptions, read
        url, options = sys.argv[1], ReadOptions(live="all", timeout_s=60)
        print("open", flush=True)
        {WAITING[case]}
        """
    stall, mute = Stall(), threading.Event()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        mute.wait(20) if "mute" in handler.path else stall(handler)

    with http_server(respond) as url:
        process = start(f"{url}/live.ts", program=textwrap.dedent(program))
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(1.0)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        stall.released.set()
        mute.set()
    assert process.returncode == -signal.SIGINT, errors
    assert time.monotonic() - began < 5
    assert out == "0\n"
    assert errors.endswith("KeyboardInterrupt\n")


def test_ctrl_c_ends_infer_on_a_stream_that_stalls(tmp_path: Path) -> None:
    """With its own exit code, although FFmpeg still waits for the network in its thread."""
    stall = Stall()
    with http_server(stall) as url:
        arguments = ["infer", f"{url}/live.ts", "-o", tmp_path / "out", "--no-video"]
        process = start(*arguments, "-m", "movenet-lightning", "--boxes", "full")
        wait_until(  # the first frames are written
            lambda: process.poll() is not None or list(tmp_path.glob("out/.*.jsonl.*.partial"))
        )
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        stall.released.set()
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("sent", [0, 300, 6000])
def test_a_server_that_stalls_while_opening_is_given_up_in_time(
    tmp_path: Path, suffix: str, length: bool, sent: int
) -> None:
    clip = make_clip(tmp_path / f"clip.{suffix}", 60).read_bytes()
    released = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Accept-Ranges", "bytes")
        if length:
            handler.send_header("Content-Length", str(len(clip)))
        handler.end_headers()
        handler.wfile.write(clip[:sent])
        handler.wfile.flush()
        released.wait(20)

    with http_server(stall) as url:
        began = time.monotonic()
        with (
            contextlib.suppress(SourceError),
            read(f"{url}/clip", options=ReadOptions(timeout_s=1, end_s=3)) as reader,
        ):
            list(reader)  # what was sent may be enough for some frames
        took = time.monotonic() - began
        released.set()
    # opening and one reading time out, and a live source is opened twice until 3 s are over
    assert took < 8


def test_a_server_that_never_gives_a_frame_gets_no_second_request() -> None:
    connections = []

    def nothing(handler: BaseHTTPRequestHandler) -> None:
        connections.append(handler.path)
        handler.send_response(200)
        handler.end_headers()

    with http_server(nothing) as url, pytest.raises(SourceError):
        read(f"{url}/live.ts", options=ReadOptions(timeout_s=1))
    assert len(connections) <= 2


@pytest.mark.parametrize("nested", [False, True])
def test_an_endless_playlist_in_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    monkeypatch.setattr(container, "_FILE_LIMIT_S", 2.0)
    make_clip(tmp_path / "clip.ts", 25)
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.ts\n"
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(text)
    if nested:
        playlist = tmp_path / "master.m3u8"
        playlist.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nlist.m3u8\n")
    began = time.monotonic()
    with pytest.raises(SourceError, match="without #EXT-X-ENDLIST"):
        read(playlist, options=ReadOptions(timeout_s=2))
    assert time.monotonic() - began < 6
    (tmp_path / "list.m3u8").write_text(text + "#EXT-X-ENDLIST\n")
    with read(playlist) as reader:
        assert len(list(reader)) == 25


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a named pipe")
def test_a_pipe_that_nothing_writes_to_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_FILE_LIMIT_S", 0.5)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"no response within 0\.5 s"):
        read(pipe, options=ReadOptions(timeout_s=0.5))
    assert time.monotonic() - began < 5
    with pipe.open("wb"):  # lets the thread go
        pass
