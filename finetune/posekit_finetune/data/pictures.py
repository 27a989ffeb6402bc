"""Files to the pictures that are worth a look: all images, and frames spread over the videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekit import video
from posekit.errors import InputError, SourceError
from posekit.types import Frame, UInt8
from posekit.video.images import read_image
from posekit.video.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from posekit_finetune.data.duplicates import likeness, thumbnail

_LEAST_GAP_S = 0.1
"""Frames of a video that are looked at lie at least this far apart."""

_STRETCH_S = (0.5, 10.0)
"""A stretch of video that the hold-out never parts, shortest and longest."""

_STRETCHES = 20
"""So many stretches are wanted of all videos together."""

_RUN = 20
"""Images in a row that look like frames of one video are one group, at most this many."""

_SAME_SCENE = 0.8
"""Whole pictures at least this alike (correlation) may be frames of one video."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture to look for persons in.

    label: "img.jpg" or "clip.mp4#120".  group: see Persons.  clip: which video, -1 for an image.
    frame: None where an image file cannot be read.
    """

    frame: Frame | None
    label: str
    group: int
    clip: int = -1


@dataclass(frozen=True)
class Clip:
    """A video, how many frames it has and how long it lasts."""

    source: video.Source
    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / max(self.fps, 1e-6)


@dataclass(frozen=True, eq=False)
class MediaFiles:
    """What the paths hold: image sources and clips.  `files` are all of them, for a cache key."""

    images: tuple[video.Source, ...]
    clips: tuple[Clip, ...]

    @property
    def files(self) -> list[Path]:
        """Every file, in order."""
        stills = [path for source in self.images for path in source.paths]
        return [*stills, *(Path(clip.source.target) for clip in self.clips)]

    def count(self, limit: int) -> int:
        """How many pictures `pictures` gives, about."""
        stills = min(limit, sum(len(source.paths) for source in self.images))
        return stills + sum(math.ceil(c.frames / self._every(c, limit)) for c in self.clips)

    def pictures(self, limit: int, seed: int) -> Iterator[Picture]:
        """At most `limit` images, chosen by `seed`, and about as many frames of all clips.

        An image that cannot be read comes without a frame. Raises SourceError for a broken video.
        """
        yield from _stills(self.images, limit, seed)
        total = sum(clip.seconds for clip in self.clips)
        stretch_s = min(max(total / _STRETCHES, _STRETCH_S[0]), _STRETCH_S[1])
        group = sum(len(source.paths) for source in self.images)  # beyond every image's
        for number, clip in enumerate(self.clips):
            options = video.ReadOptions(every=self._every(clip, limit))
            name, last = Path(clip.source.name).name, 0
            with video.read(clip.source, options=options) as reader:
                for frame in reader:
                    last = max(last, math.floor(frame.time_s / stretch_s))
                    yield Picture(frame, f"{name}#{frame.index}", group + last, number)
            group += last + 1

    def _every(self, clip: Clip, limit: int) -> int:
        """Spread over its whole length, its share of `limit` by length, never too close."""
        total = max(sum(each.frames for each in self.clips), 1)
        return max(round(_LEAST_GAP_S * clip.fps), math.ceil(total / limit), 1)


def media_files(paths: Sequence[str | Path]) -> MediaFiles:
    """Images and videos of files, folders and patterns; a folder gives both.

    Raises SourceError, and InputError for a camera or a stream.
    """
    named = [each for path in paths for each in _within(path)]
    sources = video.expand(named)
    for source in sources:
        if source.kind not in ("images", "file"):
            raise InputError(
                f"{source.name}: adaptation looks at its pictures more than once; record a video "
                "first and pass the file"
            )
    images = tuple(source for source in sources if source.kind == "images")
    return MediaFiles(images, tuple(_clip(s) for s in sources if s.kind == "file"))


def _within(path: str | Path) -> list[str | Path]:
    """A folder as itself, where it holds images, and its videos; anything else as it is."""
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
        if count is None:  # the container does not tell: count once
            count = sum(1 for _ in reader)
        return Clip(source, max(count, 1), float(reader.fps))


def _stills(sources: Sequence[video.Source], limit: int, seed: int) -> Iterator[Picture]:
    paths = [(index, path) for source in sources for index, path in enumerate(source.paths)]
    chosen = np.arange(len(paths))
    if len(paths) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(paths), limit, replace=False))
    group, run = -1, 0
    before = None
    for number in chosen.tolist():
        index, path = paths[number]
        frame = _still(path, index)
        if frame is None:
            yield Picture(None, path.name, max(group, 0))
            continue
        look = thumbnail(frame.image)
        follows = before is not None and run < _RUN and likeness(before, look) >= _SAME_SCENE
        group, run = (group, run + 1) if follows else (group + 1, 1)
        before = look
        yield Picture(frame, path.name, group)


def _still(path: Path, index: int) -> Frame | None:
    try:
        image: UInt8 = read_image(path)
    except SourceError:
        return None  # one damaged file among many; they are counted
    return Frame(image, index, 0.0, path.name)
