"""One stream through several containers: the same frames at the same times, the same points."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

import posekit
from posekit.estimate import Estimator
from posekit.video import ReadOptions, read
from tests.support.assets import shipped
from tests.support.clips import make_clip, number_of, numbered

H264 = ("mp4", "avi", "mkv", "ts", "mov")
VP9 = ("webm", "mkv", "mp4")


def remux(source: Path, target: Path) -> Path:
    """The packets of `source` in another container."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        copy: Any = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        if target.suffix == ".avi":
            copy.time_base = Fraction(1, 50)  # of a place; here every second one is empty
            start_codes = BitStreamFilterContext("h264_mp4toannexb", stream)
            packets = [each for packet in packets for each in start_codes.filter(packet)]
        for packet in packets:
            packet.stream = copy
            out.mux(packet)
    return target


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A second of people, in H.264 with B-frames and in VP9, by codec."""
    folder = tmp_path_factory.mktemp("streams")
    with read(shipped("examples/sports2d_demo.mp4"), options=ReadOptions(end_s=0.8)) as reader:
        images = [np.ascontiguousarray(frame.image[::4, ::4]) for frame in reader]
    images = [image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2] for image in images]
    times = [40 * n for n in range(len(images))]
    b_frames = {"bf": "3", "b_adapt": "0", "g": "12", "crf": "20"}
    return {
        "h264": make_clip(folder / "h.mp4", images, times_ms=times, options=b_frames),
        "vp9": make_clip(folder / "v.webm", images, codec="libvpx-vp9", options={"b": "400k"}),
    }


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return posekit.load("movenet-lightning", "cpu", flip=False)


def results(estimator: Estimator, path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    found = list(estimator.stream(path))
    return np.array([frame.time_s for frame, _ in found]), [poses.points for _, poses in found]


@pytest.mark.parametrize(("codec", "suffixes"), [("h264", H264), ("vp9", VP9)])
def test_containers_agree_on_times_and_points(
    tmp_path: Path,
    persons: dict[str, Path],
    estimator: Estimator,
    codec: str,
    suffixes: tuple[str, ...],
) -> None:
    times, points = results(estimator, persons[codec])
    assert len(times) >= 20
    assert sum(len(each) for each in points) >= 15
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-3)
    for suffix in suffixes:
        other = remux(persons[codec], tmp_path / f"clip.{suffix}")
        again, moved = results(estimator, other)
        np.testing.assert_allclose(again, times, atol=1e-3, err_msg=suffix)
        for before, after in zip(points, moved, strict=True):
            np.testing.assert_allclose(after, before, atol=0.1, err_msg=suffix)


def noisy(count: int) -> list[np.ndarray]:
    """Numbered frames with grain, so that each takes some kilobytes."""
    grain = np.random.default_rng(0)
    frames = [numbered(n, (320, 192)).astype(int) for n in range(count)]
    return [
        np.clip(frame + grain.integers(-20, 20, (192, 320, 1)), 0, 255).astype(np.uint8)
        for frame in frames
    ]


@pytest.fixture(scope="module")
def grainy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grainy")
    options = {"g": "10", "bf": "0", "crf": "18", "preset": "ultrafast"}
    return make_clip(folder / "whole.mp4", noisy(100), options=options)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_frames_after_damage_keep_numbers_and_times(
    tmp_path: Path, grainy: Path, suffix: str
) -> None:
    clip = remux(grainy, tmp_path / f"clip.{suffix}")
    data = bytearray(clip.read_bytes())
    middle, length = len(data) // 2, len(data) // 12
    data[middle : middle + length] = np.random.default_rng(1).bytes(length)
    clip.write_bytes(data)
    with read(clip) as reader:
        got = [(frame.index, frame.time_s, number_of(frame.image)) for frame in reader]
    indices = [index for index, *_ in got]
    assert indices[-1] == 99
    assert 80 <= len(got) < 100
    # frames beside the damage lean on what is gone, until the next key frame
    sound = [(index, number) for index, _, number in got if not 48 <= index < 60]
    assert all(index == number for index, number in sound)
    assert [time_s for _, time_s, _ in got] == pytest.approx([0.04 * n for n in indices], abs=2e-3)
    lost = sorted(set(range(100)) - set(indices))
    assert any(
        f"{len(lost)} damaged frames were left out and keep their numbers" in note
        and (f"frames {lost[0]}-" in note or f"frame {lost[0]} " in note)
        for note in reader.notes
    ), reader.notes


@pytest.mark.parametrize(
    ("suffix", "sound"),
    [("mp4", False), ("mkv", False), ("webm", False), ("avi", False), ("mp4", True), ("mkv", True)],
)
def test_a_file_that_ends_early_is_reported(tmp_path: Path, suffix: str, sound: bool) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    if suffix == "avi":
        whole = make_avi(tmp_path / "whole.avi", noisy(60))
    else:
        index_first = {"movflags": "+faststart"} if suffix == "mp4" else None
        whole = make_clip(
            tmp_path / f"whole.{suffix}", noisy(60), codec=codec, container=index_first, sound=sound
        )
    with read(whole) as reader:
        assert len(list(reader)) == 60
    assert reader.notes == []
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with read(cut) as reader:
        assert 20 <= len(list(reader)) < 60
    assert any("ends early" in note for note in reader.notes), reader.notes


def make_avi(path: Path, images: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 3_000_000
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path
