"""The poses of one source as a few flat arrays, whichever way they were read."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posekit.types import Float32, Frame, Int64, Poses, Skeleton, UInt8

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """Where results come from, as their header states it.

    source: path or URL.  size: (W, H) of the frames, px, or None.  fps: nominal, or None.
    stored_size: (W, H) as the source stores them, px, or None.
    """

    model: str
    skeleton: Skeleton
    source: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    version: str = ""
    stored_size: tuple[int, int] | None = None


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
    def size(self) -> tuple[int, int]:
        """(W, H), px, that holds every frame."""
        if not len(self.sizes):
            return self.origin.size or (640, 360)
        width, height = self.sizes.max(0).tolist()
        return width, height

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


class ResultsBuilder:
    """Collects results frame by frame, in the memory that the numbers take."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.tracked = True
        self._frames, self._times_s, self._sizes = array("q"), array("d"), array("q")
        self._files: list[str] = []
        self._counts = array("q")
        self._rows = {name: bytearray() for name in Persons.__dataclass_fields__}

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
        self._sizes.extend(size or self.origin.size or (0, 0))
        self._files.append(file)
        self._counts.append(len(persons))
        for name in self._rows:
            self._rows[name] += np.ascontiguousarray(getattr(persons, name)).tobytes()

    def add_poses(self, frame: Frame, poses: Poses) -> None:
        """Append a frame as an estimator gives it."""
        if len(poses):
            self.tracked &= poses.ids is not None
        places = np.arange(len(poses), dtype=np.int64)
        persons = Persons(
            places if poses.ids is None else poses.ids,
            poses.points,
            poses.points if poses.raw_points is None else poses.raw_points,
            poses.scores,
            np.full_like(poses.scores, np.nan) if poses.confidence is None else poses.confidence,
            poses.boxes.xyxy,
            poses.boxes.scores,
        )
        self.add(frame.index, frame.time_s, persons, size=frame.size, file=frame.name)

    @property
    def last_time_s(self) -> float:
        """Time of the newest frame, seconds; minus infinity before the first."""
        return self._times_s[-1] if self._times_s else -np.inf

    def build(self) -> Results:
        """What was added so far; nothing can be added afterwards."""
        persons = self._persons()
        starts = np.concatenate([[0], np.cumsum(self._counts, dtype=np.int64)]).astype(np.int64)
        return Results(
            self.origin,
            np.array(self._frames, np.int64),
            np.array(self._times_s, np.float64),
            _known(np.array(self._sizes, np.int64).reshape(-1, 2), persons),
            tuple(self._files) if any(self._files) else (),
            starts,
            persons,
            self.tracked,
        )

    def _persons(self) -> Persons:
        k = len(self.origin.skeleton)
        return Persons(
            np.frombuffer(self._rows["ids"], np.int64),
            self._floats("points", k, 2),
            self._floats("raw_points", k, 2),
            self._floats("scores", k),
            self._floats("confidence", k),
            self._floats("boxes", 4),
            self._floats("box_scores"),
        )

    def _floats(self, name: str, *shape: int) -> Float32:
        return np.frombuffer(self._rows[name], np.float32).reshape(-1, *shape)


def _known(sizes: Int64, persons: Persons) -> Int64:
    """Sizes; where the source gave none, what holds every box."""
    if not sizes.any():
        sizes[:] = np.ceil(persons.boxes[:, 2:].max(0, initial=1)) if len(persons) else (640, 360)
    return sizes


def empty_persons(keypoints: int) -> Persons:
    """No person, of a skeleton with so many keypoints."""
    points = np.zeros((0, keypoints, 2), np.float32)
    scores, boxes = points[:, :, 0], np.zeros((0, 4), np.float32)
    return Persons(np.zeros(0, np.int64), points, points, scores, scores, boxes, boxes[:, 0])


def to_uint8(values: Float32) -> UInt8:
    """Shares from 0 to 1 in steps of 1/255; NaN is 0."""
    shares: UInt8 = np.rint(np.nan_to_num(values, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    return shares
