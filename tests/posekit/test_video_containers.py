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
from tests.assets import shipped
from tests.clips import make_clip

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
