"""Which frames are searched: all files of a folder, frames spread over clips, runs of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit import video
from posekit.errors import InputError
from posekit_finetune.data.pictures import Clip, MediaFiles, media_files
from tests.finetune.media import blobs, write_blobs
from tests.support.clips import make_clip


def groups_of(folder: Path, limit: int = 1000) -> list[int]:
    return [each.group for each in media_files([folder]).frames(limit, 0)]


def test_a_folder_gives_its_images_and_its_videos(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 2)
    make_clip(folder / "b.mp4", 10)
    make_clip(folder / "a.mp4", 10)
    media = media_files([folder])
    names = ["0000.png", "0001.png", "a.mp4", "b.mp4"]
    assert [path.name for path in media.files] == names
    labels = [each.label for each in media.frames(100, 0)]
    assert labels == [
        "0000.png",
        "0001.png",
        *(f"{n}#{i}" for n in names[2:] for i in range(0, 10, 2)),
    ]
    assert media.frame_count(100) == len(labels)


def test_a_folder_of_videos_alone_and_a_pattern_give_the_same(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4"):
        make_clip(tmp_path / name, 4)
    assert [p.name for p in media_files([tmp_path]).files] == ["a.mp4", "b.mp4"]
    assert media_files([tmp_path / "*.mp4"]).files == media_files([tmp_path]).files


def test_long_videos_share_the_limit_by_their_length(tmp_path: Path) -> None:
    sources = video.expand([make_clip(tmp_path / f"{name}.mp4", 3) for name in "ab"])
    clips = (Clip(sources[0], 90_000, 25.0), Clip(sources[1], 9_000, 25.0))
    every = [MediaFiles((), clips)._stride(clip, 1000) for clip in clips]
    assert every == [99, 99]  # 99,000 frames for 1,000: the same spacing in both
    assert MediaFiles((), clips).frame_count(1000) == 910 + 91


def test_frames_lie_a_tenth_of_a_second_apart_at_least(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 60, times_ms=[10 * n for n in range(60)])
    times = [p.frame.time_s for p in media_files([clip]).frames(1000, 0) if p.frame is not None]
    assert np.diff(times) == pytest.approx([0.1] * 5, abs=0.002)


def test_segments_are_twentieths_of_all_clips(tmp_path: Path) -> None:
    clips = [
        make_clip(tmp_path / f"{n}.mp4", 11, times_ms=[2000 * i for i in range(11)])
        for n in range(2)
    ]
    groups = [each.group for each in media_files(clips).frames(1000, 0)]
    # about 44 s in all, so 2.2 s a segment: rarely two frames in one, never of two clips
    assert len(set(groups)) >= 18
    assert groups == sorted(groups)
    assert len(groups) == 22


def test_images_of_one_scene_are_a_group_of_at_most_twenty(tmp_path: Path) -> None:
    for n in range(45):
        image = blobs(7)
        image[10:30, n : n + 10] = 255  # something small moves
        cv2.imwrite(str(tmp_path / f"{n:03}.png"), image)
    for n in range(45, 48):
        cv2.imwrite(str(tmp_path / f"{n:03}.png"), blobs(n))
    groups = groups_of(tmp_path)
    assert groups == [0] * 20 + [1] * 20 + [2] * 5 + [3, 4, 5]


def test_a_file_that_cannot_be_read_comes_without_a_frame(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 3)
    (folder / "0001.png").write_bytes(b"\x89PNG\r\n ...")
    frames = [each.frame for each in media_files([folder]).frames(10, 0)]
    assert [frame is None for frame in frames] == [False, True, False]


def test_frames_have_the_names_and_indices_that_a_box_file_uses(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 30)
    chosen = [p.frame for p in media_files([folder]).frames(5, 1)]
    assert len(chosen) == 5
    assert all(frame is not None and frame.name == f"{frame.index:04}.png" for frame in chosen)


@pytest.mark.parametrize("path", ["0", "rtsp://camera/stream"])
def test_a_live_source_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="record a video"):
        media_files([path])
