"""Images into video files: whole or not there, each at its time."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from posekit.errors import InputError, SourceError
from posekit.video import VideoWriter, WriteOptions, read, suffix_of
from posekit.video.encode import ENCODERS, usable
from tests.support.clips import number_of, numbered


def film(path: Path, count: int = 30, **options: object) -> VideoWriter:
    writer = VideoWriter(path, size=(160, 96), fps=25, options=WriteOptions(**options))  # type: ignore[arg-type]
    for i in range(count):
        writer.write(numbered(i), i / 25)
    return writer


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("codec", ["h264", "vp9", "av1"])
def test_images_and_their_uneven_times_come_back(tmp_path: Path, codec: str) -> None:
    if usable(codec) is None:
        pytest.skip(f"this PyAV has no {codec} encoder")
    times = [0.0, 0.01, 0.05, 0.2, 0.24, 1.0, 1.5, 1.54]
    path = tmp_path / f"film{suffix_of(codec)}"  # type: ignore[arg-type]
    options = WriteOptions(codec=codec)  # type: ignore[arg-type]
    with VideoWriter(path, size=(160, 96), fps=25, options=options) as writer:
        for i, time_s in enumerate(times):
            writer.write(numbered(i), 7.0 + time_s)
    assert files(tmp_path) == [path.name]
    with read(path) as reader:
        frames = list(reader)
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    # from 0 on, however late the first image was; MP4 keeps 1/90000 s or finer
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=2e-5)


def test_colors_survive_and_are_tagged(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[:32, 32:] = (220, 20, 20), (20, 220, 20)
    image[32:, :32], image[32:, 32:] = (20, 20, 220), (200, 200, 60)
    options = WriteOptions(quality=1)
    with VideoWriter(tmp_path / "c.mp4", size=(64, 64), fps=25, options=options) as writer:
        writer.write(image, 0)
    with av.open(str(tmp_path / "c.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
    back = frame.to_ndarray(format="rgb24").astype(int)
    for y, x in ((10, 10), (10, 54), (54, 10), (54, 54)):
        assert np.abs(back[y, x] - image[y, x]).max() <= 5


def test_odd_sizes_keep_pixel_coordinates(tmp_path: Path) -> None:
    image = np.full((47, 61, 3), 30, np.uint8)
    image[20:28, 12:20] = 220
    image[:, 60] = 120
    options = WriteOptions(quality=1)
    with VideoWriter(tmp_path / "odd.mp4", size=(61, 47), fps=25, options=options) as writer:
        writer.write(image, 0)
    with read(tmp_path / "odd.mp4") as reader:
        back = next(reader).image.astype(int)
    assert reader.size == (62, 48)
    assert np.abs(back[:47, :61] - image).max() < 12
    assert np.abs(back[:, 61] - 120).max() < 12


def test_images_of_another_size_are_fitted_with_borders(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "f.mp4", size=(160, 96), fps=25) as writer:
        writer.write(np.full((96, 160, 3), 200, np.uint8), 0)
        writer.write(np.full((200, 100, 3), 200, np.uint8), 1)
    with read(tmp_path / "f.mp4") as reader:
        second = list(reader)[1].image
    assert second[48, 80].min() > 180
    assert second[48, 10].max() < 30  # 100 x 200 at scale 0.48 is 48 wide: 56 px left and right
    assert second[48, 150].max() < 30


def test_the_index_stands_before_the_frames(tmp_path: Path) -> None:
    film(tmp_path / "f.mp4").close()
    data = (tmp_path / "f.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_nothing_appears_before_the_end_and_the_old_file_stands_until_then(tmp_path: Path) -> None:
    path = tmp_path / "f.mp4"
    path.write_bytes(b"old")
    writer = film(path)
    assert path.read_bytes() == b"old"
    writer.close()
    writer.close()
    assert files(tmp_path) == ["f.mp4"]
    assert path.stat().st_size > 1000


def test_aborting_or_forgetting_leaves_nothing(tmp_path: Path) -> None:
    writer = film(tmp_path / "f.mp4")
    writer.abort()
    writer.abort()
    writer.close()
    assert files(tmp_path) == []
    forgotten = film(tmp_path / "g.mp4")
    del forgotten
    gc.collect()
    assert files(tmp_path) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("write ")]
    with pytest.raises(InputError, match="after it was closed"):
        writer.write(numbered(0), 0)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_keeps_what_was_done_under_a_name_that_says_so(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), film(tmp_path / "f.mp4", 12):
        raise error
    assert files(tmp_path) == ["f.mp4.incomplete"]
    with read(tmp_path / "f.mp4.incomplete") as reader:
        assert sum(1 for _ in reader) == 12


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError), film(tmp_path / "f.mp4", 12):
        raise SourceError("as after a full disk")
    assert files(tmp_path) == []


def test_no_image_no_file(tmp_path: Path) -> None:
    writer = film(tmp_path / "f.mp4", 0)
    writer.close()
    assert files(tmp_path) == []


def test_a_missing_encoder_names_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "av1", ())
    with pytest.raises(SourceError, match="no av1 encoder; choose h264 or vp9"):
        film(tmp_path / "f.mp4", codec="av1")
    assert files(tmp_path) == []


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'xvid': wanted one of h264, vp9, av1"):
        WriteOptions(codec="xvid")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"h264 goes into \.mp4, \.mkv, \.mov, not \.webm"):
        film(tmp_path / "f.webm")
    with pytest.raises(InputError, match="fps"):
        VideoWriter(tmp_path / "f.mp4", size=(10, 10), fps=0)
    writer = film(tmp_path / "f.mp4")
    with pytest.raises(InputError, match="uint8 image"):
        writer.write(np.zeros((4, 4), np.uint8), 2)
    writer.abort()


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="its folder is not there"):
        film(tmp_path / "none" / "f.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_that_may_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SourceError, match="cannot be written to"):
        film(tmp_path / "f.mp4")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits stand in for a full disk")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
        import resource, signal
        import numpy as np
        from pathlib import Path
        from posekit.errors import SourceError
        from posekit.video import VideoWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        noise = np.random.default_rng(0)
        writer = VideoWriter(Path({str(tmp_path)!r}) / "f.mp4", size=(320, 240), fps=25)
        try:
            for i in range(200):
                writer.write(noise.integers(0, 255, (240, 320, 3), np.uint8), i / 25)
            writer.close()
        except SourceError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert "f.mp4: no room left to write it" in done.stdout
    assert done.stderr == ""
    assert files(tmp_path) == []


def test_av1_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if usable("av1") is None:
        pytest.skip("this PyAV has no AV1 encoder")
    film(tmp_path / "f.mp4", 5, codec="av1").close()
    assert capfd.readouterr() == ("", "")
