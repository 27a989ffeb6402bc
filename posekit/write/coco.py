"""COCO keypoint results, as `pycocotools.coco.COCO.loadRes` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.write.format import Format, strict_json
from posekit.write.header import Header

_LONGEST_ID = 19  # digits; ids are 64 bits wide


def image_id(name: str, index: int) -> int:
    """COCO's own habit: 000000000139.jpg is image 139; every other frame is its index."""
    stem = PurePosixPath(name).stem
    is_id = stem.isascii() and stem.isdigit() and len(stem) < _LONGEST_ID
    return int(stem) if is_id else index


class Coco(Format[AtomicFile]):
    """A JSON list with one entry a person (Poses.to_coco), written as it comes.

    Beyond COCO: `file_name` for images and `track_id` where persons are tracked. `image_id` is the
    number that is the image's name, else its index; its index for all of them where that is not
    unique. A point or score that is not finite is 0. Coordinates are pixel indices from 0, without
    COCO's half pixel.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._by_name = _is_unique(header.images)
        self._used: set[int] = set()  # by images; frames of video are numbered apart
        self.out = AtomicFile(path)
        self._before = "[\n"

    def write(self, frame: Frame, poses: Poses) -> None:
        """One entry a person; a frame without persons leaves no trace, as in COCO."""
        key = image_id(frame.name, frame.index) if self._by_name else frame.index
        if frame.name:
            key = max(self._used) + 1 if key in self._used else key
            self._used.add(key)
        for n, entry in enumerate(poses.to_coco(key)):
            if frame.name:
                entry["file_name"] = frame.name
            if poses.ids is not None:
                entry["track_id"] = int(poses.ids[n])
            self.out.file.write(self._before + strict_json(entry, missing=0.0))
            self._before = ",\n"

    def finish(self) -> None:
        """Close the list."""
        self.out.file.write("[]\n" if self._before == "[\n" else "\n]\n")


def _is_unique(names: Sequence[str]) -> bool:
    """Whether `image_id` is another for every image."""
    return len({image_id(name, index) for index, name in enumerate(names)}) == len(names)
