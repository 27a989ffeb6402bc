"""The page of `posekit view`, written while poses are estimated."""

from __future__ import annotations

import tempfile
from pathlib import Path

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.view import page_of, read_lines
from posekit.write.format import Format, strict_json
from posekit.write.header import Header
from posekit.write.jsonl import frame_line


class Page(Format[AtomicFile]):
    """One self-contained HTML page; it refers to the source, or to the overlay beside it.

    The page needs all frames at once, so they wait as JSON Lines in an unnamed file in the same
    folder: memory is flat until the end, when it is about that of the page.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.out, self._size = AtomicFile(path), header.size
        try:
            self._lines = tempfile.TemporaryFile("w+", dir=path.parent, encoding="utf-8")  # noqa: SIM115
            self._lines.write(strict_json(header.to_dict()) + "\n")
        except OSError:
            self.out.abort()
            raise

    def write(self, frame: Frame, poses: Poses) -> None:
        """Keep one frame."""
        self._lines.write(frame_line(frame, poses, self._size))

    def finish(self) -> None:
        """The page of what was kept."""
        self._lines.seek(0)
        results = read_lines(self._lines, self.out.path)
        self._lines.close()
        self.out.file.write(page_of(self.out.path, [results]))

    def discard(self) -> None:
        """Close the unnamed file, which then is gone."""
        self._lines.close()
