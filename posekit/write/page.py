"""The page of `posekit view`, written while poses are estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.view import Origin, Persons, ResultsBuilder, page_of
from posekit.write.format import Format, person_ids
from posekit.write.header import Header


class Page(Format[AtomicFile]):
    """One self-contained HTML page; it refers to the source, or to the overlay beside it.

    All numbers are kept in memory until the end, about 0.4 kB a person and frame.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.out = AtomicFile(path)
        origin = Origin(
            header.model, header.skeleton, header.source, header.size, header.fps, header.version
        )
        self._results = ResultsBuilder(origin)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Keep one frame."""
        self._results.tracked &= poses.ids is not None or not len(poses)
        confidence = poses.confidence
        persons = Persons(
            np.array(person_ids(poses), np.int64),
            poses.points,
            poses.points if poses.raw_points is None else poses.raw_points,
            poses.scores,
            np.full_like(poses.scores, np.nan) if confidence is None else confidence,
            poses.boxes.xyxy,
            poses.boxes.scores,
        )
        self._results.add(frame.index, frame.time_s, persons, size=frame.size, file=frame.name)

    def finish(self) -> None:
        """The page."""
        self.out.file.write(page_of(self.out.path, [self._results.build()]))
