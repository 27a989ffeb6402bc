"""The poses of one source as a few flat arrays, whichever way they were read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posekit.types import Float32, Int64, Skeleton, UInt8

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """Where results come from, as their header states it.

    source: path or URL.  size: (W, H) of the frames, px, or None.  fps: nominal, or None.
    """

    model: str
    skeleton: Skeleton
    source: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    version: str = ""


@dataclass(frozen=True, eq=False)
class Persons:
    """R persons of one or several frames, a row each.

    ids: int64 (R,), track ids, or places in the frame.  points, raw_points: float32 (R, K, 2), px.
    scores: float32 (R, K).  confidence: float32 (R, K), calibrated; NaN without calibration.
    boxes: float32 (R, 4), px.  box_scores: float32 (R,).
    """

    ids: Int64
    points: Float32
    raw_points: Float32
    scores: Float32
    confidence: Float32
    boxes: Float32
    box_scores: Float32

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Int64) -> Persons:
        """Some of the rows, in the order given."""
        return Persons(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Results:
    """The poses of one source.

    frames: int64 (F,), numbers in the source.  times_s: float64 (F,), never falling.
    sizes: int64 (F, 2), W and H, px.  files: name of each frame's image; empty for video.
    starts: int64 (F + 1,): the rows of frame f are starts[f] to starts[f + 1].
    tracked: whether ids are tracks.  file: from which they were read, or None.
    """

    origin: Origin
    frames: Int64
    times_s: Float64
    sizes: Int64
    files: tuple[str, ...]
    starts: Int64
    persons: Persons
    tracked: bool
    file: Path | None = None

    @property
    def frame_of_row(self) -> Int64:
        """int64 (R,): position of each row's frame among the frames."""
        return np.repeat(np.arange(len(self.frames)), np.diff(self.starts))

    def every(self, step: int) -> Results:
        """Each `step`-th frame."""
        kept = np.arange(0, len(self.frames), step)
        counts = np.diff(self.starts)[kept]
        rows = np.flatnonzero(self.frame_of_row % step == 0)
        return replace(
            self,
            frames=self.frames[kept],
            times_s=self.times_s[kept],
            sizes=self.sizes[kept],
            files=self.files[::step],
            starts=np.concatenate([[0], np.cumsum(counts)]),
            persons=self.persons.select(rows),
        )


@dataclass
class ResultsBuilder:
    """Collects results frame by frame."""

    origin: Origin
    tracked: bool = True
    _frames: list[int] = field(default_factory=list)
    _times_s: list[float] = field(default_factory=list)
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _files: list[str] = field(default_factory=list)
    _persons: list[Persons] = field(default_factory=list)

    def add(
        self,
        frame: int,
        time_s: float,
        persons: Persons,
        *,
        size: tuple[int, int] | None = None,
        file: str = "",
    ) -> None:
        """Append one frame.  size: (W, H), px; None: the origin's."""
        self._frames.append(frame)
        self._times_s.append(time_s)
        self._sizes.append(size or self.origin.size or (0, 0))
        self._files.append(file)
        self._persons.append(persons)

    @property
    def last_time_s(self) -> float:
        """Time of the newest frame, seconds; minus infinity before the first."""
        return self._times_s[-1] if self._times_s else -np.inf

    def build(self) -> Results:
        """What was added so far."""
        counts = [len(each) for each in self._persons]
        has_files = any(self._files)
        sizes = np.array(self._sizes, np.int64).reshape(-1, 2)
        return Results(
            self.origin,
            np.array(self._frames, np.int64),
            np.array(self._times_s, np.float64),
            _without_zeros(sizes, self._persons),
            tuple(self._files) if has_files else (),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            _joined(self._persons, len(self.origin.skeleton)),
            self.tracked,
        )


def _without_zeros(sizes: Int64, persons: Iterable[Persons]) -> Int64:
    """Sizes where the source gave none: what holds every box."""
    if len(sizes) and not sizes.any():
        corners = [each.boxes[:, 2:].max(0) for each in persons if len(each)]
        sizes[:] = np.ceil(np.max(corners, 0)).clip(1) if corners else (640, 360)
    return sizes


def empty_persons(keypoints: int) -> Persons:
    """No person, of a skeleton with so many keypoints."""
    none = np.zeros((0, keypoints), np.float32)
    points = np.zeros((0, keypoints, 2), np.float32)
    return Persons(
        np.zeros(0, np.int64), points, points, none, none, np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
    )  # fmt: skip


def _joined(persons: list[Persons], keypoints: int) -> Persons:
    """All rows in order."""
    full = [each for each in persons if len(each)] or [empty_persons(keypoints)]
    return Persons(
        **{
            name: np.concatenate([getattr(each, name) for each in full])
            for name in Persons.__dataclass_fields__
        }
    )


def to_uint8(values: Float32) -> UInt8:
    """Shares from 0 to 1 in steps of 1/255; NaN is 0."""
    shares: UInt8 = np.rint(np.nan_to_num(values, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    return shares
