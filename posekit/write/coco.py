"""COCO keypoint results, as `pycocotools.coco.COCO.loadRes` reads them."""

from __future__ import annotations

from pathlib import Path

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.write.format import Format, strict_json
from posekit.write.header import Header


def image_id(frame: Frame) -> int:
    """COCO's own habit: 000000000139.jpg is image 139; every other frame is its index.

    Give all images of a folder numbers as names, or none: `file_name` tells them apart anyway.
    """
    stem = Path(frame.name).stem
    return int(stem) if stem.isascii() and stem.isdigit() else frame.index


class Coco(Format[AtomicFile]):
    """A JSON list with one entry a person (Poses.to_coco), written as it comes.

    Beyond COCO: `file_name` for images and `track_id` where persons are tracked. A point or score
    that is not finite is 0. Coordinates are pixel indices from 0, without COCO's half pixel.
    """

    def __init__(self, path: Path, header: Header) -> None:
        del header  # the format has no place for it
        self.out = AtomicFile(path)
        self._before = "[\n"

    def write(self, frame: Frame, poses: Poses) -> None:
        """One entry a person; a frame without persons leaves no trace, as in COCO."""
        for n, entry in enumerate(poses.to_coco(image_id(frame))):
            if frame.name:
                entry["file_name"] = frame.name
            if poses.ids is not None:
                entry["track_id"] = int(poses.ids[n])
            self.out.file.write(self._before + strict_json(entry, missing=0.0))
            self._before = ",\n"

    def finish(self) -> None:
        """Close the list."""
        self.out.file.write("[]\n" if self._before == "[\n" else "\n]\n")
