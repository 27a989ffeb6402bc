"""Files to the frames to search for persons: all images, and frames spread over the videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posekit import video
from posekit.errors import InputError, SourceError
from posekit.types import Frame, UInt8
from posekit.video.images import read_image
from posekit.video.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from posekit_finetune.data.duplicates import correlation, thumbnail

_MIN_INTERVAL_S = 0.1
"""Least time between two sampled frames of a video."""

_SEGMENT_S = (0.5, 10.0)
"""Shortest and longest segment of a video; a segment is held out as a whole or not at all."""

_SEGMENTS = 20
"""Target number of segments of all videos together."""

_MAX_RUN = 20
"""Consecutive images that look like frames of one video form one group of at most this many."""

_SAME_SCENE = 0.8
"""Consecutive images with at least this correlation may be frames of one video."""


@dataclass(frozen=True, eq=False)
class MediaFrame:
    """One image or video frame to search for persons.

    label: "img.jpg" or "clip.mp4#120".  group: see Persons.  clip: index of the video, -1 for an
    image.  frame: None where an image file cannot be read.
    """

    frame: Frame | None
    label: str
    group: int
    clip: int = -1


@dataclass(frozen=True)
class Clip:
    """A video, its number of frames and its frame rate."""

    source: video.Source
    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.frames / max(self.fps, 1e-6)


@dataclass(frozen=True, eq=False)
class MediaFiles:
    """Image sources and clips of the input paths.  `files`: all files, for a cache key.

    notes: what `frames` found to be repaired or left out so far.
    """

    images: tuple[video.Source, ...]
    clips: tuple[Clip, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def sources(self) -> list[video.Source]:
        """Every source, in order."""
        return [*self.images, *(clip.source for clip in self.clips)]

    @property
    def files(self) -> list[Path]:
        """Every file, in order."""
        images = [path for source in self.images for path in source.paths]
        return [*images, *(Path(clip.source.target) for clip in self.clips)]

    @property
    def nested_names(self) -> list[str]:
        """Names of the images, where any lies deeper than in its source's own folder; else none."""
        names = [source.identity(path) for source in self.images for path in source.paths]
        return names if any("/" in name for name in names) else []

    def frame_count(self, limit: int) -> int:
        """Approximate number of frames that `frames` yields."""
        images = min(limit, sum(len(source.paths) for source in self.images))
        return images + sum(math.ceil(c.frames / self._stride(c, limit)) for c in self.clips)

    def frames(self, limit: int, seed: int) -> Iterator[MediaFrame]:
        """At most `limit` images, chosen by `seed`, and about as many frames of all clips.

        An image that cannot be read comes without a frame. Raises SourceError for a broken video.
        """
        yield from _image_frames(self.images, limit, seed)
        self.notes.extend(note for source in self.images for note in source.notes)
        total = sum(clip.seconds for clip in self.clips)
        segment_s = min(max(total / _SEGMENTS, _SEGMENT_S[0]), _SEGMENT_S[1])
        group = sum(len(source.paths) for source in self.images)  # beyond every image's group
        for number, clip in enumerate(self.clips):
            options = video.ReadOptions(every=self._stride(clip, limit))
            name, segment = Path(clip.source.name).name, 0
            with video.read(clip.source, options=options) as reader:
                for frame in reader:
                    segment = max(segment, math.floor(frame.time_s / segment_s))
                    yield MediaFrame(frame, f"{name}#{frame.index}", group + segment, number)
                self.notes.extend(reader.notes)
            group += segment + 1

    def _stride(self, clip: Clip, limit: int) -> int:
        """Every how many frames a clip is sampled: over its whole length, by its share of limit."""
        total = max(sum(each.frames for each in self.clips), 1)
        return max(round(_MIN_INTERVAL_S * clip.fps), math.ceil(total / limit), 1)


def media_files(paths: Sequence[str | Path]) -> MediaFiles:
    """Images and videos of files, folders and patterns; a folder provides both.

    Raises SourceError, and InputError for a camera or a stream.
    """
    expanded = [each for path in paths for each in _with_videos(path)]
    sources = video.expand(expanded)
    for source in sources:
        if source.kind not in ("images", "file"):
            raise InputError(
                f"{source.name}: a live source; adaptation reads its frames more than once: record "
                "a video first and pass the file"
            )
    images = tuple(source for source in sources if source.kind == "images")
    return MediaFiles(images, tuple(_clip(s) for s in sources if s.kind == "file"))


def _with_videos(path: str | Path) -> list[str | Path]:
    """A folder as itself, where it contains images, and its videos; any other path unchanged."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [path]
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    has_images = any(file.suffix.lower() in IMAGE_SUFFIXES for file in files)
    return [folder, *videos] if has_images or not videos else [*videos]


def _clip(source: video.Source) -> Clip:
    with video.read(source) as reader:
        count = reader.frame_count
        if count is None:  # not stored in the container: count once
            count = sum(1 for _ in reader)
        return Clip(source, max(count, 1), float(reader.fps))


def _image_frames(sources: Sequence[video.Source], limit: int, seed: int) -> Iterator[MediaFrame]:
    paths = [
        (index, path, source.identity(path))
        for source in sources
        for index, path in enumerate(source.paths)
    ]
    chosen = np.arange(len(paths))
    if len(paths) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(paths), limit, replace=False))
    group, run = -1, 0
    previous = None
    for number in chosen.tolist():
        index, path, name = paths[number]
        frame = _read_frame(path, index, name)
        if frame is None:
            yield MediaFrame(None, name, max(group, 0))
            continue
        cells = thumbnail(frame.image)
        same_scene = previous is not None and correlation(previous, cells) >= _SAME_SCENE
        group, run = (group, run + 1) if same_scene and run < _MAX_RUN else (group + 1, 1)
        previous = cells
        yield MediaFrame(frame, name, group)


def _read_frame(path: Path, index: int, name: str) -> Frame | None:
    try:
        image: UInt8 = read_image(path)
    except SourceError:
        return None  # one damaged file among many: it is counted
    return Frame(image, index, 0.0, name)
