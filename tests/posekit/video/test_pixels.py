"""Pixels are square or the notes say so: aspect, sizes that change, several streams, fields."""

import itertools
import json
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import posekit
from posekit.video import ReadOptions, read
from posekit.video.decoding.survey import Survey
from posekit.video.timeline import Place
from posekit.write import Header, open_writers
from tests.support.clips import make_clip, numbered
from tests.support.processes import run
from tests.support.streams import http_server


def encode(images: list[np.ndarray], **settings: Any) -> list[bytes]:
    """H.264 access units of `images`, in display order."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"tune": "zerolatency", **settings.pop("options", {})}
    for name, value in settings.items():
        setattr(encoder, name, value)
    units = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        units += [bytes(packet) for packet in encoder.encode(frame)]
    return units + [bytes(packet) for packet in encoder.encode(None)]


def transport_stream(path: Path, units: list[bytes], size: tuple[int, int]) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("h264", rate=25)
        stream.width, stream.height = size
        for number, unit in enumerate(units):
            packet = av.Packet(unit)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)
    return path


def disc(width: int, height: int) -> np.ndarray:
    """A bright disc of the frame's height, drawn for the given pixel grid."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / (0.3 * width)) ** 2 + ((y - height / 2) / (0.4 * height)) ** 2 < 1
    return np.repeat(np.where(inside, 220, 30).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("aspect", "square"),
    [(Fraction(64, 45), (512, 288)), (Fraction(8, 9), (360, 324)), (Fraction(1), (360, 288))],
)
def test_frames_are_scaled_to_square_pixels(
    tmp_path: Path, aspect: Fraction, square: tuple[int, int]
) -> None:
    units = encode([disc(360, 288)] * 3, sample_aspect_ratio=aspect)
    clip = transport_stream(tmp_path / "clip.ts", units, (360, 288))
    with read(clip) as reader:
        images = [frame.image for frame in reader]
    assert reader.size == square == images[0].shape[1::-1]
    assert (reader.stored_size, reader.pixel_aspect) == ((360, 288), aspect)
    bright = np.argwhere(images[0][..., 0] > 128)
    height, width = np.ptp(bright, axis=0) + 1
    assert width / height == pytest.approx(0.6 * 360 / (0.8 * 288) * float(aspect), rel=0.02)
    notes = [note for note in reader.notes if "not square" in note]
    assert len(notes) == (aspect != 1)
    assert all(f"{square[0]} x {square[1]} px" in note for note in notes)


def test_a_frame_size_that_changes_is_noted_and_kept_with_the_frame(tmp_path: Path) -> None:
    sizes = [(160, 96)] * 5 + [(320, 192)] * 5
    units = encode([numbered(n) for n in range(5)])
    units += encode([numbered(n, (320, 192)) for n in range(5, 10)])
    clip = transport_stream(tmp_path / "clip.ts", units, (160, 96))
    with read(clip) as reader:
        frames = list(reader)
    assert [frame.size for frame in frames] == sizes
    assert reader.size == (160, 96)
    assert "320 x 192 px from frame 5 (0.200 s)" in reader.notes[-1]
    model = posekit.load("movenet-lightning", "cpu", flip=False, boxes="full")
    found = list(model.stream(clip))
    assert [frame.size for frame, _ in found] == sizes
    header = Header("1", "m", "0", model.runtime.spec.skeleton, "s", size=reader.size)
    writers = open_writers(["jsonl"], tmp_path, "out", header=header)
    for frame, poses in found:
        writers.write(frame, poses)
    (path,) = writers.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [line.get("size") for line in lines] == [None] * 5 + [[320, 192]] * 5


def test_of_several_video_streams_the_default_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams: list[Any] = [out.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, size in zip(streams, ((160, 96), (320, 192)), strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        streams[0].disposition = 0
        streams[1].disposition = av.stream.Disposition.default
        for n in range(5):
            for stream, size in zip(streams, ((160, 96), (320, 192)), strict=True):
                frame = av.VideoFrame.from_ndarray(numbered(n, size), format="rgb24")
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    with read(path) as reader:
        assert len(list(reader)) == 5
    assert reader.size == (320, 192)
    assert any("2 video streams; stream 1 was read, not 0" in note for note in reader.notes)


def test_interlaced_frames_are_noted(tmp_path: Path) -> None:
    units = encode([numbered(n) for n in range(5)], options={"x264-params": "interlaced=1:tff=1"})
    with read(transport_stream(tmp_path / "clip.ts", units, (160, 96))) as reader:
        assert len(list(reader)) == 5
    assert any("5 of 5 frames are interlaced" in note for note in reader.notes)


def test_a_live_stream_has_the_same_notes_while_it_runs(tmp_path: Path) -> None:
    """Interlaced, then frames of another size; its end never comes, so nothing waits for it."""
    units = encode([numbered(n) for n in range(5)], options={"x264-params": "interlaced=1:tff=1"})
    units += encode([numbered(n, (320, 192)) for n in range(5, 40)])
    clip = transport_stream(tmp_path / "clip.ts", units, (160, 96))
    done = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(clip.read_bytes())
        done.wait(20)

    options = ReadOptions(live="all", timeout_s=20)
    with http_server(endless) as url, read(f"{url}/live.ts", options=options) as reader:
        frames = list(itertools.islice(reader, 30))
        while_open = reader.notes
        reader.close()
        done.set()
    assert reader.kind == "live"
    assert reader.notes == while_open
    for note in ("frames are interlaced", "the frame size changes: 320 x 192 px from frame 5"):
        assert any(note in each for each in while_open), while_open
    assert {frame.size for frame in frames} == {(160, 96), (320, 192)}


def test_a_stream_that_changes_for_ever_is_noted_in_one_sentence() -> None:
    survey = Survey()
    for n in range(1000):
        survey.take(av.VideoFrame(16 + 16 * (n % 2), 16, "gray"), Place(n, n / 25))
    (note,) = survey.notes()
    assert len(note) < 300
    assert "and 99" in note
    assert len(survey.changes) <= 100


def test_frames_of_another_size_than_the_container_states_are_noted(tmp_path: Path) -> None:
    """VP8 states its size in each frame; the container's is another."""
    encoder: Any = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 160, 96, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    path = tmp_path / "clip.webm"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(numbered(n), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = n
            for packet in encoder.encode(frame):
                packet.stream = stream
                out.mux(packet)
    with read(path) as reader:
        assert {frame.size for frame in reader} == {(160, 96)}
    assert any("states frames of 320 x 192 px, and the first has 160" in n for n in reader.notes)


def test_infer_notes_a_size_that_changes_whatever_the_format(tmp_path: Path) -> None:
    """Only JSON Lines has a place for each frame's size: the summary and the terminal say it."""
    units = encode([numbered(n) for n in range(5)])
    units += encode([numbered(n, (320, 192)) for n in range(5, 10)])
    clip = transport_stream(tmp_path / "clip.ts", units, (160, 96))
    options = ("--boxes", "full", "-m", "movenet-lightning", "--no-video", "--min-score", 0)
    code, out, err = run(
        "infer", clip, *options, "--format", "coco,csv,openpose", "-o", tmp_path / "out"
    )
    assert code == 0, err
    note = "the frame size changes: 320 x 192 px from frame 5 (0.200 s)"
    assert note in " ".join(out.split())
    summary = json.loads((tmp_path / "out" / "clip.summary.json").read_text("utf-8"))
    assert any(note in each for each in summary["sources"][0]["notes"])


def test_a_plain_video_has_no_notes(tmp_path: Path) -> None:
    with read(make_clip(tmp_path / "clip.mp4", 5)) as reader:
        list(reader)
    assert reader.notes == []
    assert (reader.stored_size, reader.pixel_aspect, reader.start_time_s) == ((160, 96), 1, 0)
