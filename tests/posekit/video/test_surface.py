"""Frames of a GPU's decoder are those of PyAV, and PyAV takes over what the GPU cannot do.

A chip that is played by FFmpeg and fed with bare packets stands for the GPU here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from posekit import video
from posekit.errors import DeviceError, SourceError
from posekit.video import Coded, ReadOptions
from posekit.video.decoding.surface import OnGpu
from tests.support.assets import shipped
from tests.support.chip import Chip
from tests.support.clips import make_clip, number_of, numbered

UInt8 = NDArray[np.uint8]
ONE = 1 << 16
B_FRAMES = {"bf": "2", "g": "10", "keyint_min": "10"}
UNEVEN_MS = [0, 10, 50, 60, 200, 240, 250, 400, 1000, 1010, 1500, 1510, 1540, 2000, 2040, 2050]


@dataclass(eq=False)
class HostSurface:
    coded: Coded
    pts: int
    bytes_: UInt8
    copies: list[int]

    def nv12(self) -> UInt8:
        self.copies.append(self.pts)
        return self.bytes_


@dataclass
class HostDecoders:
    """breaks: after so many packets it cannot go on.

    shift: of its time stamps; mute: it gives nothing; backwards: all at the end, the last one
    first: mistakes.
    """

    breaks: int = 1 << 30
    shift: int = 0
    mute: bool = False
    backwards: bool = False
    name: str = "a chip"
    opened: list[Coded] = field(default_factory=list)
    closed: int = 0
    copies: list[int] = field(default_factory=list)

    def open(self, coded: Coded) -> HostDecoder:
        self.opened.append(coded)
        return HostDecoder(self, coded)


class HostDecoder:
    def __init__(self, owner: HostDecoders, coded: Coded) -> None:
        self._owner, self._coded = owner, coded
        self._chip = Chip(coded.codec)
        self._packets, self._open = 0, True
        self._kept: list[Any] = []

    def decode(self, data: bytes, pts: int) -> list[Any]:
        assert data
        self._packets += 1
        if self._packets > self._owner.breaks:
            raise DeviceError("the chip stopped")
        return self._surfaces(self._chip.decode(data, pts))

    def flush(self) -> list[Any]:
        rest = self._surfaces(self._chip.decode(b"", 0))
        return [*self._kept, *rest][::-1] if self._owner.backwards else rest

    def close(self) -> None:
        self._owner.closed += self._open
        self._open = False

    def _surfaces(self, found: list[tuple[int, UInt8]]) -> list[Any]:
        owner = self._owner
        surfaces = [
            HostSurface(self._coded, pts + owner.shift, nv12, owner.copies) for pts, nv12 in found
        ]
        self._kept += surfaces if owner.backwards else []
        return [] if owner.mute or owner.backwards else surfaces


def both(clip: Path, chip: HostDecoders, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """(index, time, image) of every frame, by the chip and by PyAV, and the chip's reader."""
    wanted = ReadOptions(**options)
    with video.read(clip, options=wanted, decoders=chip) as reader:
        found = [(each.index, each.time_s, each.image) for each in reader]
    with video.read(clip, options=wanted) as plain:
        expected = [(each.index, each.time_s, each.image) for each in plain]
    assert (reader.size, reader.fps) == (plain.size, plain.fps)
    assert reader.frame_count == plain.frame_count
    return found, expected, reader


def check_equal(found: list[Any], expected: list[Any]) -> None:
    """The same numbers, times and, bit for bit, images."""
    assert [each[:2] for each in found] == [each[:2] for each in expected]
    assert len(found) > 0
    for (_, _, image), (_, _, wanted) in zip(found, expected, strict=True):
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("webm", "libvpx-vp9")],
)
def test_frames_are_those_of_pyav(tmp_path: Path, suffix: str, codec: str) -> None:
    """Also where images are stored in another order than they are shown."""
    options = B_FRAMES if codec == "libx264" else {}
    clip = make_clip(tmp_path / f"clip.{suffix}", 30, codec=codec, options=options)
    chip = HostDecoders()
    found, expected, reader = both(clip, chip)
    check_equal(found, expected)
    assert [number_of(image) for _, _, image in found] == list(range(30))
    assert (reader.decoder, reader.notes) == ("a chip", [])
    assert [each.size for each in chip.opened] == [(160, 96)]
    assert chip.closed == 1


def test_an_hevc_file_is_made_ready_too(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=error:bframes=2:keyint=10"}
    clip = make_clip(tmp_path / "clip.mp4", 20, codec="libx265", options=options)
    found, expected, reader = both(clip, HostDecoders())
    check_equal(found, expected)
    assert (reader.decoder, reader.notes) == ("a chip", [])


def test_the_demo_is_the_same(tmp_path: Path) -> None:
    clip = shipped("examples/sports2d_demo.mp4")
    found, expected, reader = both(clip, HostDecoders(), start_s=0.9, end_s=1.2)
    check_equal(found, expected)
    assert (reader.decoder, reader.notes) == ("a chip", [])


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "v.mp4", len(UNEVEN_MS), times_ms=UNEVEN_MS, options=B_FRAMES)
    found, expected, _ = both(clip, HostDecoders())
    check_equal(found, expected)


@pytest.mark.parametrize("window", [(0, None, 3), (0.5, 0.9, 1), (0.83, None, 2), (1.1, 1.13, 1)])
def test_windows_begin_and_end_at_the_same_frames(
    tmp_path: Path, window: tuple[float, float | None, int]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 40, options=B_FRAMES)
    start_s, end_s, every = window
    chip = HostDecoders()
    found, expected, reader = both(clip, chip, start_s=start_s, end_s=end_s, every=every)
    check_equal(found, expected)
    assert reader.decoder == "a chip"
    assert chip.closed == len(chip.opened)


@pytest.mark.parametrize("colors", [(1, 1), (1, 2), (5, 1), (5, 2), (2, 0)])
def test_matrix_and_range_are_read_and_kept(tmp_path: Path, colors: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (6, 10, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    clip = make_clip(tmp_path / "c.mp4", [tiles] * 2, colors=colors)
    chip = HostDecoders()
    found, expected, _ = both(clip, chip)
    check_equal(found, expected)
    assert (chip.opened[0].bt709, chip.opened[0].full_range) == (colors[0] == 1, colors[1] == 2)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Without its first 10 frames, not encoded anew: an edit list hides them."""
    whole = make_clip(tmp_path / "whole.mp4", 30, options={"bf": "0", "g": "30"})
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                shift = round(0.4 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    return path


def test_frames_that_an_edit_list_hides_stay_hidden(cut: Path) -> None:
    """Packets are there to decode the others, not to be shown."""
    found, expected, reader = both(cut, HostDecoders())
    check_equal(found, expected)
    assert number_of(found[0][2]) == 10
    assert reader.decoder == "a chip"


def test_packets_that_are_not_shown_give_no_frame_and_a_restart_clears(cut: Path) -> None:
    """As after a seek that led too far: the same packets come again from the beginning."""
    with av.open(str(cut)) as container:
        stream = container.streams.video[0]
        on_gpu = OnGpu(HostDecoders(), Coded("h264", (160, 96)), stream)
        for packet in itertools.islice(container.demux(stream), 20):
            on_gpu.decode(packet)
        container.seek(stream.start_time - 100_000, stream=stream)
        on_gpu.restart()
        shown, found = [], []
        for packet in container.demux(stream):
            shown += [packet.pts] if packet.size and not packet.is_discard else []
            found += [surface.pts for surface in on_gpu.decode(packet)]
    assert found == shown
    assert len(shown) == 20


def odd() -> dict[str, Any]:
    return {"images": [numbered(n, (159, 97)) for n in range(4)], "pix_fmt": "yuv444p"}


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"images": 4, "matrix": (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30)}, "shown turned"),
    ({"images": 4, "pix_fmt": "yuv420p10le"}, "yuv420p10le, not 8-bit"),
    ({"images": 4, "pix_fmt": "yuv444p"}, "yuv444p, not 8-bit"),
    (odd(), "yuv444p, not 8-bit"),
    ({"images": 4, "colors": (9, 1)}, "colors are of another kind"),
    ({"images": 4, "codec": "mpeg4"}, "codec is mpeg4"),
]


@pytest.mark.parametrize(("made", "reason"), UNFIT)
def test_what_a_gpu_does_not_decode_is_left_to_pyav_and_noted(
    tmp_path: Path, made: dict[str, Any], reason: str
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", **made)
    chip = HostDecoders()
    found, expected, reader = both(clip, chip)
    check_equal(found, expected)
    assert reader.decoder == "PyAV"
    assert chip.opened == []
    assert len(reader.notes) == 1
    assert f"{clip}: decoded on the CPU: " in reader.notes[0]
    assert reason in reader.notes[0]


def test_an_odd_side_is_left_to_pyav(tmp_path: Path) -> None:
    """VP9 takes odd sides as 4:2:0; NV12 has no place for the last column."""
    images = [numbered(n, (161, 97)) for n in range(4)]
    clip = make_clip(tmp_path / "clip.webm", images, codec="libvpx-vp9")
    found, expected, reader = both(clip, HostDecoders())
    check_equal(found, expected)
    assert "161 x 97 px: an odd side" in reader.notes[0]


@pytest.mark.parametrize("every", [1, 3])
def test_where_the_gpu_stops_pyav_goes_on(tmp_path: Path, every: int) -> None:
    """No frame twice, none left out."""
    clip = make_clip(tmp_path / "clip.mp4", 40, options=B_FRAMES)
    chip = HostDecoders(breaks=17)
    found, expected, reader = both(clip, chip, every=every)
    check_equal(found, expected)
    assert reader.decoder == "a chip, then PyAV"
    assert "decoded on the CPU: the chip stopped" in reader.notes[0]
    assert chip.closed == 1


@pytest.mark.parametrize(
    "mistake", [{"shift": 1}, {"mute": True}, {"breaks": 0}, {"backwards": True}]
)
def test_wrong_time_stamps_or_no_frames_are_noticed(
    tmp_path: Path, mistake: dict[str, Any]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 12, options=B_FRAMES)
    found, expected, reader = both(clip, HostDecoders(**mistake))
    check_equal(found, expected)
    assert reader.decoder == "PyAV"
    assert len(reader.notes) == 1


def test_frames_are_copied_to_the_host_on_first_access_and_once(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10, options={"bf": "0"})
    chip = HostDecoders()
    with video.read(clip, decoders=chip) as reader:
        frames = list(reader)
    assert chip.copies == []
    assert {frame.size for frame in frames} == {(160, 96)}
    assert all(isinstance(frame.pixels, HostSurface) for frame in frames)
    assert repr(frames[2]) == "SurfaceFrame(size=(160, 96), index=2, time_s=0.080)"
    assert number_of(frames[7].image) == 7
    assert frames[7].image is frames[7].image
    assert len(chip.copies) == 1


def test_images_and_lost_files_are_as_without_a_gpu(tmp_path: Path) -> None:
    photo = shipped("tests/data/coco_000000397133.jpg")
    with video.read(photo, decoders=HostDecoders()) as reader:
        assert reader.decoder == "OpenCV"
    short = tmp_path / "short.mp4"
    short.write_bytes(make_clip(tmp_path / "clip.mp4", 5).read_bytes()[:400])
    with pytest.raises(SourceError):
        video.read(short, decoders=HostDecoders())
    with pytest.raises(SourceError, match="ends before the start"):
        video.read(tmp_path / "clip.mp4", options=ReadOptions(start_s=9), decoders=HostDecoders())


def test_a_file_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    container = {"movflags": "+faststart"}
    clip = make_clip(tmp_path / "whole.mp4", 100, options=B_FRAMES, container=container)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    found, expected, reader = both(cut, HostDecoders())
    assert len(found) >= len(expected) > 10  # PyAV's threads may lose the last ones
    assert [number_of(image) for _, _, image in found] == list(range(len(found)))
    assert len(reader.notes) == 1
    assert reader.decoder == "a chip"
