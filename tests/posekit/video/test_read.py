"""Files as frames: each one, once, in order, upright, with its own time."""

import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from posekit.errors import InputError, SourceError
from posekit.video import ReadOptions, read
from tests.support.assets import shared
from tests.support.clips import make_clip, make_sound, number_of, numbered

ONE = 1 << 16  # of a display matrix
UNEVEN_MS = [0, 10, 50, 60, 200, 240, 250, 400, 1000, 1010, 1500, 1510, 1540, 2000, 2040, 2050]


def numbers(path: Path, **options: object) -> list[int]:
    with read(path, options=ReadOptions(**options)) as reader:  # type: ignore[arg-type]
        return [number_of(frame.image) for frame in reader]


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read ")]


def test_every_frame_comes_once_as_bare_pyav_decodes_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 40)
    with av.open(str(clip)) as container:
        bare = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with read(clip) as reader:
        frames = list(reader)
    assert (reader.kind, reader.size, reader.fps) == ("video", (160, 96), 25)
    assert reader.frame_count == len(frames) == len(bare) == 40
    assert reader.notes == []
    for index, (frame, expected) in enumerate(zip(frames, bare, strict=True)):
        assert number_of(frame.image) == index == frame.index
        assert frame.time_s == pytest.approx(0.04 * index, abs=1e-6)
        assert frame.image.flags.c_contiguous
        assert frame.image.flags.writeable
        np.testing.assert_array_equal(frame.image, expected)


def test_an_uneven_frame_rate_keeps_each_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "vfr.mp4", len(UNEVEN_MS), times_ms=UNEVEN_MS)
    with read(clip) as reader:
        times = [frame.time_s for frame in reader]
    assert times == pytest.approx([ms / 1000 for ms in UNEVEN_MS], abs=1e-4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mpg", "avi", "ts", "webm"])
def test_containers_agree_on_numbers_and_times(tmp_path: Path, suffix: str) -> None:
    codec = {"mpg": "mpeg2video", "avi": "mpeg4", "webm": "libvpx-vp9"}.get(suffix, "libx264")
    if suffix in ("mpg", "avi"):  # these know only the common frame rates
        with av.open(str(tmp_path / f"clip.{suffix}"), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.bit_rate = 160, 96, 2_000_000
            for i in range(30):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(i), format="rgb24")))
            out.mux(stream.encode(None))
    else:
        make_clip(tmp_path / f"clip.{suffix}", 30, codec=codec)
    with read(tmp_path / f"clip.{suffix}") as reader:
        frames = list(reader)
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    # Matroska rounds times to 1 ms, MPEG-TS to 1/90 ms
    assert [f.time_s for f in frames] == pytest.approx([0.04 * i for i in range(30)], abs=2e-3)


CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32], CORNERS[:24, 32:] = (220, 20, 20), (20, 220, 20)
CORNERS[24:, :32], CORNERS[24:, 32:] = (20, 20, 220), (200, 200, 60)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        # the matrix (a, b, c, d) takes a stored pixel (p, q) to a shown (a p + c q, b p + d q)
        ((ONE, 0, 0, ONE), CORNERS),
        ((0, -ONE, ONE, 0), np.rot90(CORNERS)),
        ((0, ONE, -ONE, 0), np.rot90(CORNERS, -1)),
        ((-ONE, 0, 0, -ONE), np.rot90(CORNERS, 2)),
        ((-ONE, 0, 0, ONE), CORNERS[:, ::-1]),
        ((ONE, 0, 0, -ONE), CORNERS[::-1]),
        ((0, ONE, ONE, 0), CORNERS.swapaxes(0, 1)),
        ((0, -ONE, -ONE, 0), CORNERS[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_a_display_matrix_turns_the_image_upright(
    tmp_path: Path, matrix: tuple[int, ...], shown: np.ndarray
) -> None:
    a, b, c, d = matrix
    clip = make_clip(
        tmp_path / "turned.mp4",
        [CORNERS] * 3,
        options={"crf": "4"},
        matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30),
    )
    with read(clip) as reader:
        frame = next(reader)
    assert frame.image.shape == shown.shape
    assert reader.size == (shown.shape[1], shown.shape[0])
    assert frame.image.flags.c_contiguous
    far = np.abs(frame.image.astype(int) - shown).max(axis=2)
    assert np.mean(far > 12) < 0.15  # only chroma beside the colors' edges


def test_quarter_turns_agree_with_what_ffmpeg_calls_the_rotation(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "t.mp4", [CORNERS] * 2, matrix=(0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30)
    )
    with av.open(str(clip)) as container:
        stored = next(container.decode(video=0))
        expected = np.rot90(stored.to_ndarray(format="rgb24"), stored.rotation // 90)
    with read(clip) as reader:
        np.testing.assert_array_equal(next(reader).image, expected)


@pytest.mark.parametrize("colors", [(1, 1), (1, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_matrix_range_and_depth_give_back_the_colors(
    tmp_path: Path, colors: tuple[int, int], pix_fmt: str
) -> None:
    clip = make_clip(
        tmp_path / "c.mp4", [CORNERS] * 2, pix_fmt=pix_fmt, colors=colors, options={"crf": "1"}
    )
    with read(clip) as reader:
        image = next(reader).image.astype(int)
    for y, x in ((8, 8), (8, 56), (40, 8), (40, 56)):
        # 8-bit YUV steps are up to 2.1 of RGB apart, twice rounded
        assert np.abs(image[y, x] - CORNERS[y, x]).max() <= 5, (y, x)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libvpx-vp9", "yuv420p"), ("libx264", "yuv444p")])
def test_odd_sizes_are_whole(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    images = [numbered(i, (157, 93)) for i in range(5)]
    clip = make_clip(tmp_path / "odd.mkv", images, codec=codec, pix_fmt=pix_fmt)
    with read(clip) as reader:
        assert reader.size == (157, 93)
        assert [number_of(frame.image) for frame in reader] == list(range(5))


def test_sound_beside_the_video_is_ignored(tmp_path: Path) -> None:
    assert numbers(make_clip(tmp_path / "sound.mp4", 30, sound=True)) == list(range(30))


@pytest.mark.parametrize("times_ms", [None, UNEVEN_MS])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_window_is_the_same_cut_from_the_whole(
    tmp_path: Path, suffix: str, times_ms: list[int] | None
) -> None:
    count = len(times_ms) if times_ms else 50
    clip = make_clip(
        tmp_path / f"clip.{suffix}", count, times_ms=times_ms, options={"g": "6", "bf": "3"}
    )
    with read(clip) as reader:
        whole = [(frame.index, frame.time_s) for frame in reader]
    for start, end, every in ((0, 0.5, 1), (0.2, None, 1), (0.39, 1.4, 3), (1.0, 1.01, 1)):
        window = [(i, t) for i, t in whole if start <= t + 1e-6 and (end is None or t < end - 1e-6)]
        with read(clip, options=ReadOptions(start_s=start, end_s=end, every=every)) as reader:
            got = [(frame.index, frame.time_s, number_of(frame.image)) for frame in reader]
        assert [number for *_, number in got] == [index for index, *_ in got]
        assert [pair[:2] for pair in got] == window[::every]
        if times_ms is None:
            assert reader.frame_count == len(got)


def test_the_expected_count_follows_window_and_every(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 50)
    for options in (ReadOptions(every=7), ReadOptions(start_s=0.3, end_s=1.7, every=2)):
        with read(clip, options=options) as reader:
            assert reader.frame_count == sum(1 for _ in reader)


@pytest.mark.parametrize(
    "name", ["mit Leerzeichen ä ö ü ß.mp4", "12:30 [cam] 100%d *?.mp4", "影.mp4"]
)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    made = make_clip(tmp_path / "clip.mp4", 4)
    made.rename(tmp_path / name)
    with read(tmp_path / name) as reader:
        assert sum(1 for _ in reader) == 4
        assert reader.stem == name.removesuffix(".mp4")
        assert str(tmp_path / name) == reader.name


def test_relative_and_home_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "clip.mp4", 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("clip.mp4", "./clip.mp4", "~/clip.mp4", f"file://{tmp_path}/clip.mp4"):
        with read(name) as reader:
            assert sum(1 for _ in reader) == 3


def broken(tmp_path: Path, what: str) -> Path:
    path = tmp_path / f"{what}.mp4"
    match what:
        case "empty":
            path.touch()
        case "text":
            path.write_text("this is not a video\n" * 20)
        case "plain":
            path = path.with_suffix(".txt")
            path.write_text("this is not a video\n" * 20)
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "cut":
            data = make_clip(tmp_path / "whole.mp4", 30).read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "sound":
            make_sound(path)
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", "the file is empty"),
        ("text", "a text file, not a video"),
        ("plain", "a text file, not a video"),
        ("noise", "not a video or image"),
        ("cut", r"index \(moov\) is missing"),
        ("sound", "no video stream in it"),
        ("missing", "no such file"),
    ],
)
def test_what_is_no_video_gets_one_sentence(tmp_path: Path, what: str, message: str) -> None:
    path = broken(tmp_path, what)
    with pytest.raises(SourceError, match=message) as caught:
        read(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert readers() == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 3)
    clip.chmod(0)
    with pytest.raises(SourceError, match="permission denied"):
        read(clip)


def test_a_cut_file_with_its_index_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", 100, container={"movflags": "+faststart"})
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.6)])
    with read(tmp_path / "cut.mp4") as reader:
        got = [number_of(frame.image) for frame in reader]
    assert 20 <= len(got) < 100
    # the last piece is cut through, and images that lean on it may be off
    assert got[:-4] == list(range(len(got) - 4))
    assert any("of 100 frames" in note for note in reader.notes)


def test_damage_in_the_middle_costs_only_that_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", 100, options={"g": "10", "bf": "0"})
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    clip.write_bytes(data)
    with read(clip) as reader:
        got = [number_of(frame.image) for frame in reader]
    assert got[0] == 0
    assert 99 in got[-2:]
    assert len(got) >= 60


def test_a_window_outside_the_video_is_an_error(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10)
    with pytest.raises(SourceError, match="ends before the start, 100 s"):
        read(clip, options=ReadOptions(start_s=100))


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"start_s": -1}, {"start_s": 2, "end_s": 2}, {"prefetch": 0}, {"timeout_s": 0},
     {"live": "some"}, {"threads": 0}, {"reconnects": -1}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="wanted"):
        ReadOptions(**options)  # type: ignore[arg-type]


def test_an_absent_webcam_says_which_are_there(tmp_path: Path) -> None:
    for source in (93, "93"):
        with pytest.raises(SourceError, match="webcam 93"):
            read(source)
    with pytest.raises(InputError, match="index of 0 or more"):
        read(-1)


def test_several_readers_work_side_by_side(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", 20 + i) for i in range(3)]
    opened = [read(clip) for clip in clips]
    for _ in range(20):
        assert len({number_of(next(reader).image) for reader in opened}) == 1
    for reader in opened:
        reader.close()


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("sports2d_demo.mp4", (1768, 994), 230),
        ("pose2sim_singleperson_cam02.mp4", (1080, 1920), 100),
        ("vtest.avi", (768, 576), 795),
    ],
)
def test_real_videos_are_read_to_the_end(name: str, size: tuple[int, int], count: int) -> None:
    with read(shared(f"video/{name}"), options=ReadOptions(every=5)) as reader:
        assert reader.size == size
        got = [(frame.index, frame.time_s) for frame in reader]
    assert reader.frame_count == len(got) == -(-count // 5)
    assert got[-1][1] == pytest.approx(float(got[-1][0] / Fraction(reader.fps)), abs=1e-3)
    assert reader.notes == []


@pytest.mark.assets
def test_seeking_in_a_real_video_lands_on_the_frame() -> None:
    path = shared("video/sports2d_demo.mp4")
    with read(path, options=ReadOptions(start_s=5.0, end_s=5.2)) as reader:
        got = list(reader)
    assert [frame.index for frame in got] == [150, 151, 152, 153, 154, 155]
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == 150:
                np.testing.assert_array_equal(got[0].image, frame.to_ndarray(format="rgb24"))
                break


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there")
def test_a_decoder_that_cannot_be_started_is_one_sentence(tmp_path: Path) -> None:
    """There is no room for its threads' stacks: FFmpeg refuses again when it is drained.

    The size of a stack is set here: with an unlimited one glibc takes small stacks, which fit.
    """
    clip = make_clip(tmp_path / "clip.mp4", 3)
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'ulimit -s 65536; exec \'{sys.executable}\' -c "$0" "$1"',
            WITHOUT_ROOM,
            clip,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.startswith(f"refused: {clip}: cannot be read"), done.stdout + done.stderr


WITHOUT_ROOM = """
import re, resource, sys
from pathlib import Path
from posekit.errors import SourceError
from posekit.video import ReadOptions
from posekit.video.decoding.container import open_input, video_stream
from posekit.video.decoding.decode import Decoding, use_threads
from posekit.video.decoding.packets import timeline_of
from posekit.video.sources import resolve
source, options = resolve(sys.argv[1]), ReadOptions()
container = open_input(source, options)
stream = video_stream(container, source)
use_threads(stream, 16, ahead=True)
decoding = Decoding(container, stream, source, options, timeline_of(container, stream))
taken = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (taken + (20 << 20), -1))
try:
    list(decoding)
except SourceError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize(("name", "mark"), [("a.mp4", b"avc1"), ("a.avi", b"H264")])
def test_a_codec_that_no_one_knows_is_one_sentence(name: str, mark: bytes, tmp_path: Path) -> None:
    path = make_clip(tmp_path / name, 3)
    data = path.read_bytes()
    assert mark in data
    path.write_bytes(data.replace(mark, b"zzzz"))
    with pytest.raises(SourceError, match=r"this build of PyAV has no decoder for it"):
        read(path)
