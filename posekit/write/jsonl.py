"""JSON Lines: a header line, then one line a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.write.format import Format, strict_json
from posekit.write.header import Header


class JsonLines(Format[AtomicFile]):
    """`{"posekit": …, "skeleton": …}`, then `{"frame", "time_s", "persons"}` a frame.

    Images have "file" too, and frames of another size than the header's have "size". Strict JSON:
    a number that is not finite is null. Points in px with two decimals, scores with four.
    `persons` is Poses.to_dict.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.out, self._size = AtomicFile(path), header.size
        self.out.file.write(strict_json(header.to_dict()) + "\n")

    def write(self, frame: Frame, poses: Poses) -> None:
        """One line."""
        self.out.file.write(frame_line(frame, poses, self._size))


def frame_line(frame: Frame, poses: Poses, size: tuple[int, int] | None) -> str:
    """The line of a frame.  size: the header's, px."""
    line: dict[str, Any] = {"frame": frame.index, "time_s": round(frame.time_s, 6)}
    if frame.name:
        line["file"] = frame.name
    if size is not None and frame.size != size:
        line["size"] = list(frame.size)
    return strict_json({**line, **poses.to_dict()}) + "\n"
