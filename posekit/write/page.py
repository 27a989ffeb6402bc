"""The page of `posekit view`, written while poses are estimated."""

from __future__ import annotations

from pathlib import Path

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.view import Origin, ResultsBuilder, page_of
from posekit.write.format import Format
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
        self._results.add_poses(frame, poses)

    def finish(self) -> None:
        """The page."""
        self.out.file.write(page_of(self.out.path, [self._results.build()]))
