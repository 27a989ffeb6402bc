"""What reading costs: threads, queues, memory, CPU time."""

import gc
import os
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from posekit import video
from posekit.types import Frame
from posekit.video import ReadOptions, read
from posekit.video.decoding.convert import Converter, Decoded
from posekit.video.decoding.pool import Pool
from tests.support.assets import shared
from tests.support.clips import make_clip, number_of, numbered


def numbers(path: Path, **options: object) -> list[int]:
    with read(path, options=ReadOptions(**options)) as reader:  # type: ignore[arg-type]
        return [number_of(frame.image) for frame in reader]


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read ")]


def test_skipped_frames_are_never_made_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 50)
    converted = count_conversions(monkeypatch)
    assert numbers(clip, every=10) == [0, 10, 20, 30, 40]
    assert converted == [0, 10, 20, 30, 40]


def count_conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    converted: list[int] = []
    original = Converter.__call__

    def counted(self: Converter, decoded: Decoded) -> Frame:
        converted.append(decoded.index)
        return original(self, decoded)

    monkeypatch.setattr(Converter, "__call__", counted)
    return converted


def test_decoding_runs_ahead_but_no_further_than_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = count_conversions(monkeypatch)
    clip = make_clip(tmp_path / "clip.mp4", 120)
    with read(clip, options=ReadOptions(prefetch=3)) as reader:
        next(reader)
        deadline = time.monotonic() + 5
        while len(converted) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        # one taken, three queued, one in the decoder's hand
        assert len(converted) == 5
        assert sum(1 for _ in reader) == 119


def test_leaving_early_or_forgetting_the_reader_ends_its_thread(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 120)
    before = readers()
    with read(clip) as reader:
        next(reader)
        assert len(readers()) == len(before) + 1
    assert readers() == before
    assert list(reader) == []
    forgotten = read(clip)
    next(forgotten)
    del forgotten
    gc.collect()
    assert readers() == before


def test_closing_takes_no_time_while_the_queue_is_full(tmp_path: Path) -> None:
    reader = read(make_clip(tmp_path / "clip.mp4", 120), options=ReadOptions(prefetch=1))
    time.sleep(0.1)
    began = time.monotonic()
    reader.close()
    reader.close()
    assert time.monotonic() - began < 1


def test_an_image_keeps_its_memory_as_long_as_any_view_of_it_lives() -> None:
    pool = Pool(2)
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    corner = pool.copy(image)[:2, :2].T
    for _ in range(5):
        assert not np.shares_memory(pool.copy(image * 0), corner)
    np.testing.assert_array_equal(corner, image[:2, :2].T)
    address = corner.ctypes.data
    del corner
    again = [pool.copy(image) for _ in range(2)]
    assert address in [each.ctypes.data for each in again]


@pytest.mark.assets
@pytest.mark.slow
def test_reading_costs_little_more_than_a_bare_loop() -> None:
    path = shared("video/sports2d_demo.mp4")

    def bare() -> None:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")

    def ours() -> None:
        with read(path) as reader:
            for _ in reader:
                pass

    spent: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(5):
        for job in (bare, ours):
            began = time.process_time()
            job()
            spent[job.__name__].append(time.process_time() - began)
    ratio = min(spent["ours"]) / min(spent["bare"])
    print(f"CPU seconds, ours / bare PyAV: {ratio:.3f}")
    # quiet machines give 0.9 to 1.0; a frame's memory that is not given back costs 1.2
    assert ratio < 1.15, spent


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_flat_over_a_long_video(tmp_path: Path) -> None:
    few = [numbered(i, (640, 480)) for i in range(4)]  # freed memory would hide growth
    images = [few[i % 4] for i in range(1500)]
    clip = make_clip(tmp_path / "long.mp4", images, options={"preset": "ultrafast"})
    size, memory = 640 * 480 * 3, []
    with (
        read(clip) as reader,
        video.VideoWriter(tmp_path / "out.mp4", size=(640, 480), fps=25) as writer,
    ):
        for frame in reader:
            writer.write(frame.image, frame.time_s)
            if frame.index >= 500 and frame.index % 100 == 0:
                memory.append(resident_bytes())
    print(f"resident MiB after 500..1500 frames: {[s // 2**20 for s in memory]}")
    # keeping even one frame in twenty over the 900 measured ones would add 45 of them
    assert memory[-1] - memory[0] < 45 * size / 2, [s // 2**20 for s in memory]
