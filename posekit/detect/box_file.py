"""Boxes that another program found: COCO JSON, or JSON Lines with a line a frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import numpy as np

from posekit.errors import InputError, SourceError
from posekit.inputs.coco import Annotation, ImageId, floats, parse_coco
from posekit.inputs.parsing import JSON_BYTES, number, parse_json, reason, shown
from posekit.types import Boxes, Frame
from posekit.video import Source

MAX_BOXES = 1000
"""Boxes of one frame that are taken by default: tracking and suppression compare all pairs."""

_Row = list[float]  # x0, y0, x1, y1, score
_Key = tuple[str, ImageId]  # file name or "", and frame or image id
_MIN_SIDE_PX = 1.0  # a thinner box shows nothing; coordinates as shares of the frame are all below
_NO_BOXES = Boxes(np.zeros((0, 4), np.float32))


@dataclass(frozen=True)
class _Content:
    """rows: by file name and number.

    lists_images: an image that is not among them is an error.  lists_all: images without persons
    have entries too, so that a name which is missing may be another spelling of one that is there.
    """

    rows: Mapping[_Key, list[_Row]]
    notes: tuple[str, ...] = ()
    lists_images: bool = False
    lists_all: bool = True


class BoxFile:
    """Boxes by frame, read from a file; a frame that it gives no box has no person.

    COCO: a data set, or a list of results. JSON Lines: `{"frame": 3, "boxes": [[x0, y0, x1, y1,
    score?], ...]}`, or posekit's own results. Images are matched by path where the file has names,
    and, but for results, by as much of the path as both have; else by the number that is the name,
    else (and for video) frame = image id. Coordinates are posekit's pixels.
    category: of the persons in a COCO file, by name or id; None: the one called person, else the
    only one.  max_boxes: of one frame.  Raises SourceError, InputError with the line or annotation.
    """

    is_exact = True
    """Each frame's persons are those of its boxes: no one is tracked into a frame without."""

    def __init__(
        self, path: str | Path, *, category: str | None = None, max_boxes: int = MAX_BOXES
    ) -> None:
        self.path = Path(path)
        content = _read(self.path, category)
        _check_counts(content.rows, max_boxes, self.path)
        self._lists_images, self._lists_all = content.lists_images, content.lists_all
        self._notes = list(content.notes)
        self._thin = self._missing = 0
        self._first_missing: ImageId = ""
        self._boxes = {key: self._checked(key, rows) for key, rows in content.rows.items()}
        self._by_name: dict[str, list[_Key]] = {}
        self._by_base: dict[str, list[str]] = {}
        self._by_number: dict[ImageId, list[_Key]] = {}
        for key in self._boxes:
            self._by_number.setdefault(key[1], []).append(key)
            if key[0]:
                self._by_name.setdefault(key[0], []).append(key)
        for name in self._by_name:
            self._by_base.setdefault(PurePosixPath(name).name, []).append(name)
        self._taken_by: dict[str, str] = {}

    def check_sources(self, sources: Sequence[Source]) -> None:
        """Whether each frame and image of all `sources` has boxes of its own.

        Raises InputError: a video and anything else, several sources where the file names no image,
        or an image name that two of them have.
        """
        has_video = any(source.kind != "images" for source in sources)
        if len(sources) > 1 and (has_video or not self._by_name):
            kind = "video" if has_video else "folder"
            raise InputError(
                f"{self.path}: holds the boxes of one {kind}, and {len(sources)} sources are "
                f"given, such as {sources[1].name}: run them one by one"
            )
        owners: dict[str, str] = {}
        for source in sources:
            for path in source.paths:
                name = _plain(source.identity(path))
                if (other := owners.setdefault(name, source.name)) != source.name:
                    raise InputError(
                        f"{self.path}: {shown(name)} is in both {other} and {source.name}; read "
                        "the images by one pattern such as 'FOLDER/**/*.jpg', which names them "
                        "with their folders"
                    )

    def __call__(self, frame: Frame) -> Boxes:
        """The boxes of a frame, by its name and index; see `boxes`."""
        return self.boxes(frame.index, frame.name)

    @property
    def notes(self) -> list[str]:
        """What was assumed, left out or missing so far, a sentence each."""
        found = list(self._notes)
        if self._thin:
            found.append(
                f"{self.path}: {self._thin} boxes narrower or lower than 1 px are left out; "
                "coordinates are pixels"
            )
        if self._missing:
            found.append(
                f"{self.path}: has no entry for {self._missing} frames or images, the first is "
                f"{shown(self._first_missing)}; they count as without persons"
            )
        return found

    def boxes(self, index: int, file_name: str = "") -> Boxes:
        """The boxes of frame `index` or of the image `file_name`; none where the file has none.

        Raises InputError where the file lists images and this is not one of them, or where the
        names leave open which one it is.
        """
        if not file_name:
            return self._of(self._key_of(index), index)
        stem = PurePosixPath(_plain(file_name)).stem
        position = int(stem) if stem.isascii() and stem.isdecimal() else index
        return self._of(self._key_of_image(file_name, index, position), file_name)

    def boxes_of(self, image_id: ImageId, file_name: str) -> Boxes:
        """The boxes of an image of a COCO data set: by name, or by id where the file has no names.

        Raises InputError as `boxes` does.
        """
        return self._of(self._key_of_image(file_name, image_id, image_id), file_name)

    def _of(self, key: _Key | None, wanted: ImageId) -> Boxes:
        if key is not None and key in self._boxes:
            return self._boxes[key]
        self._first_missing = self._first_missing if self._missing else wanted
        self._missing += 1
        return _NO_BOXES

    def _key_of(self, index: ImageId) -> _Key | None:
        """The entry with this frame number or image id."""
        keys = self._by_number.get(index, [])
        if len(keys) > 1:
            names = " and ".join(shown(name) for name, _ in keys[:2])
            raise InputError(
                f"{self.path}: number {shown(index)} stands for {names}; wanted one entry a frame, "
                "or images, which are matched by name"
            )
        return keys[0] if keys else None

    def _key_of_image(self, file_name: str, page: ImageId, position: ImageId) -> _Key | None:
        """By name; by `page` among entries of one name; by `position` where no entry has a name."""
        name = _plain(file_name)
        entry = self._entry_of(name)
        if entry is not None:
            pages = self._by_name[entry]
            return pages[0] if len(pages) == 1 else (entry, page)
        if self._lists_images:
            raise InputError(
                f"{self.path}: has no image {shown(name)}; it holds {len(self._by_name)} such as "
                f"{shown(next(iter(self._by_name), None))}"
            )
        return None if self._by_name else self._key_of(position)

    def _entry_of(self, name: str) -> str | None:
        """The file's own name of an image; two images never take the same one."""
        exact = [name] if name in self._by_name else []
        found = exact or (self._same_ending(name) if self._lists_all else [])
        if len(found) > 1:
            raise InputError(
                f"{self.path}: {shown(name)} may be {' or '.join(map(shown, found[:3]))}; read the "
                "images by a pattern such as 'FOLDER/**/*.jpg', which names them with their folders"
            )
        if not found:
            return None
        self._claim(found[0], name)
        return found[0]

    def _claim(self, entry: str, name: str) -> None:
        """Note who takes an entry; a name that is shorter than the entry's may be anyone's."""
        if len(PurePosixPath(name).parts) < len(PurePosixPath(entry).parts):
            return
        other = self._taken_by.setdefault(entry, name)
        if other != name:
            raise InputError(
                f"{self.path}: the boxes of {shown(entry)} would serve both {shown(other)} and "
                f"{shown(name)}; wanted names with their folders"
            )

    def _same_ending(self, name: str) -> list[str]:
        """Names that end as `name` does, by whole folders, as far as both go."""
        parts = PurePosixPath(name).parts
        found = []
        for other in self._by_base.get(parts[-1] if parts else "", []):
            theirs = PurePosixPath(other).parts
            length = min(len(parts), len(theirs))
            if parts[-length:] == theirs[-length:]:
                found.append(other)
        return found

    def _checked(self, key: _Key, rows: list[_Row]) -> Boxes:
        """The boxes of one entry, without those that are too thin to show anything."""
        array = np.array(rows, np.float32).reshape(-1, 5)
        try:
            boxes = Boxes(array[:, :4], array[:, 4])
        except InputError as error:
            where = f"image {shown(key[0])}" if key[0] else f"frame {shown(key[1])}"
            raise InputError(f"{self.path}: {where}: {error}") from error
        wide = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] >= _MIN_SIDE_PX).all(1)
        self._thin += len(boxes) - int(wide.sum())
        return boxes if wide.all() else boxes.select(wide)


def _read(path: Path, category: str | None) -> _Content:
    """The file's rows: JSON Lines where its first line is an object that is not a COCO data set."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next(iter(_lines(file)), None)
            if first is None:
                raise InputError(f"{path}: is empty; wanted COCO JSON or JSON Lines")
            value = _value(first[1], path)
            if isinstance(value, dict) and not value.keys() & {"annotations", "images"}:
                return _json_lines(itertools.chain([first], _lines(file, first[0] + 1)), path)
            rest = file.read(JSON_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: boxes cannot be read: {reason(error)}") from error
    if value is None or rest.strip():
        value = parse_json(first[1] + rest, name=str(path))
    return _coco(value, path, category)


def _check_counts(rows: Mapping[_Key, list[_Row]], most: int, path: Path) -> None:
    for key, boxes in rows.items():
        if len(boxes) > most:
            where = f"image {shown(key[0])}" if key[0] else f"frame {shown(key[1])}"
            raise InputError(
                f"{path}: {where}: {len(boxes):,} boxes, more than {most:,} in one frame; keep the "
                "best of them, or raise the limit with --max-boxes"
            )


def _lines(file: TextIO, start: int = 1) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    lines = iter(lambda: file.readline(JSON_BYTES), "")
    return ((n, line) for n, line in enumerate(lines, start) if line.strip())


def _value(line: str, path: Path) -> Any:
    """What a line holds by itself; None where it is only the beginning of something."""
    try:
        return parse_json(line, name=str(path))
    except InputError:
        return None


def _json_lines(lines: Iterator[tuple[int, str]], path: Path) -> _Content:
    """JSON Lines: rows by file name and frame."""
    rows: dict[_Key, list[_Row]] = {}
    for n, line in lines:
        where = f"{path}, line {n}"
        entry = parse_json(line, name=where)
        if not isinstance(entry, dict):
            raise InputError(f"{where}: wanted an object with frame and boxes, got {shown(entry)}")
        if "posekit" in entry and "frame" not in entry:
            continue  # the header of posekit's results
        frame = number(entry.get("frame"), name=f"{where}: frame", low=0, high=1e15, whole=True)
        file = entry.get("file") or ""
        if not isinstance(file, str):
            raise InputError(f"{where}: file: wanted a text, got {shown(file)}")
        rows.setdefault((_plain(file), int(frame)), []).extend(_line_rows(entry, where))
    return _Content(rows)


def _line_rows(entry: Mapping[str, Any], where: str) -> Iterator[_Row]:
    persons, boxes = entry.get("persons"), entry.get("boxes")
    if isinstance(persons, list):
        for n, person in enumerate(persons):
            if not isinstance(person, dict):
                raise InputError(f"{where}: person {n}: wanted an object, got {shown(person)}")
            name = f"{where}: person {n}"
            box = floats(person.get("box"), name=f"{name}: box", count=4)
            yield [*box, _score(person.get("box_score", 1.0), f"{name}: box_score")]
    elif isinstance(boxes, list):
        for n, box in enumerate(boxes):
            name = f"{where}: box {n}"
            scored = isinstance(box, list) and len(box) == 5
            corners = floats(box[:4] if scored else box, name=name, count=4)
            yield [*corners, _score(box[4], f"{name}: score") if scored else 1.0]
    else:
        raise InputError(f"{where}: wanted boxes or persons, got {shown(sorted(entry))}")


def _coco(data: Any, path: Path, category: str | None) -> _Content:
    """A data set or results: rows by file name and image id."""
    found = parse_coco(data, name=str(path), category=category)
    rows: dict[_Key, list[_Row]] = {}
    names: dict[str, ImageId] = {}
    for key, file in found.images.items():
        rows[_plain(file), key] = []
        if file and names.setdefault(_plain(file), key) != key:
            raise InputError(f"{path}: image {shown(file)} is listed twice; wanted it once")
    persons = [each for each in found.annotations if not each.is_crowd]
    for each in persons:
        name = _plain(found.images.get(each.image_id, each.file_name))
        rows.setdefault((name, each.image_id), []).append(_coco_row(each))
    crowds = len(found.annotations) - len(persons)
    notes = [f"{path}: {crowds} boxes of crowds are left out"] if crowds else []
    is_data_set = isinstance(data, dict)
    return _Content(rows, (*found.notes, *notes), bool(names), lists_all=is_data_set)


def _coco_row(annotation: Annotation) -> _Row:
    if annotation.bbox is None:
        raise InputError(f"{annotation.where}: has no bbox; wanted x, y, width and height")
    x, y, width, height = annotation.bbox
    return [x, y, x + width, y + height, _score(annotation.score, f"{annotation.where}: score")]


def _score(value: object, name: str) -> float:
    return number(value, name=name, low=0, high=1)


def _plain(name: str) -> str:
    """A path with forward slashes and without needless parts; "" stays."""
    return str(PurePosixPath(name.replace("\\", "/"))) if name else ""
