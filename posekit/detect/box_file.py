"""Boxes that another program found: COCO JSON, or JSON Lines with a line a frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from posekit.errors import InputError, SourceError
from posekit.types import Boxes, Frame

_Row = list[float]  # x0, y0, x1, y1, score
_PERSON = 1  # COCO's category
_NOBODY = Boxes(np.zeros((0, 4), np.float32))


class BoxFile:
    """Boxes by frame, read from a file.

    COCO: a data set, or a list of results. JSON Lines: `{"frame": 3, "boxes": [[x0, y0, x1, y1,
    score?], ...]}`, or posekit's own results. Images are matched by file name where the file has
    names, else by the number that is the name, else (and for video) frame = image id.
    Coordinates are posekit's pixels. Raises SourceError, InputError with the line or entry.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            text = self.path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{self.path}: boxes cannot be read: {error}") from error
        if not text.strip():
            raise InputError(f"{self.path}: is empty; wanted COCO JSON or JSON Lines")
        # COCO is one JSON value; with JSON Lines the second line makes the parser stop.
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        self._is_data_set = isinstance(whole, dict) and "annotations" in whole
        if self._is_data_set or isinstance(whole, list):
            rows, self._images = _coco(whole, self.path)
        else:
            rows, self._images = _lines(text, self.path)
        for name, key in list(self._images.items()):
            # A name without its folder serves too; where two share it, the first one's.
            self._images.setdefault(PurePath(name).name, key)
        self._boxes = {key: _boxes(found, self.path, key) for key, found in rows.items()}

    def __call__(self, frame: Frame) -> Boxes:
        """The boxes of a frame, by its name and index; see `boxes`."""
        return self.boxes(frame.index, frame.name)

    def boxes(self, index: int, file_name: str = "") -> Boxes:
        """The boxes of frame `index` or of the image `file_name`; none where the file has none.

        Raises InputError where the file lists images and this is not one of them.
        """
        name = PurePath(file_name).name
        key = self._images.get(file_name, self._images.get(name))
        if key is None and name and self._is_data_set:
            raise InputError(
                f"{self.path}: has no image {name!r}; it holds {len(self._images)} such as "
                f"{next(iter(self._images), None)!r}"
            )
        if key is None and not (name and self._images):
            stem = PurePath(name).stem
            key = int(stem) if stem.isdecimal() and int(stem) in self._boxes else index
        return _NOBODY if key is None else self._boxes.get(key, _NOBODY)


def _lines(text: str, path: Path) -> tuple[dict[int, list[_Row]], dict[str, int]]:
    """JSON Lines: rows by frame, and the frames by file name."""
    rows: dict[int, list[_Row]] = {}
    images: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line) if line.strip() else {"posekit": None}
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({error}); wanted JSON Lines or COCO") from error
        if not isinstance(entry, dict):
            raise InputError(f"{where}: wanted an object with frame and boxes, got {line[:60]}")
        if "posekit" in entry and "frame" not in entry:
            continue  # an empty line, or the header of posekit's results
        key = _integer(entry, "frame", where)
        rows.setdefault(key, []).extend(_line_rows(entry, where))
        if entry.get("file"):
            images[str(entry["file"])] = key
    return rows, images


def _line_rows(entry: Mapping[str, Any], where: str) -> Iterator[_Row]:
    persons, boxes = entry.get("persons"), entry.get("boxes")
    if isinstance(persons, list):
        for person in persons:
            if not isinstance(person, dict):
                raise InputError(f"{where}: wanted persons as objects, got {person!r}")
            box = _numbers(person.get("box"), (4,), where)
            yield [*box, *_numbers([person.get("box_score", 1.0)], (1,), where)]
    elif isinstance(boxes, list):
        for box in boxes:
            yield [*_numbers(box, (4, 5), where), 1.0][:5]
    else:
        raise InputError(f"{where}: wanted boxes or persons, got {sorted(entry)}")


def _coco(data: Any, path: Path) -> tuple[dict[int, list[_Row]], dict[str, int]]:
    """A data set or results: rows by image id, and the ids by file name."""
    images: dict[str, int] = {}
    entries: Any = data
    person: Any = _PERSON
    if isinstance(data, dict):
        entries = _objects(data, "annotations", path)
        for image in _objects(data, "images", path):
            images[str(image.get("file_name"))] = _integer(image, "id", f"{path}, an image")
        names = _objects(data, "categories", path) if "categories" in data else []
        person = next((c.get("id") for c in names if c.get("name") == "person"), _PERSON)
    rows: dict[int, list[_Row]] = {key: [] for key in images.values()}
    for number, entry in enumerate(entries):
        where = f"{path}, annotation {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: wanted an object with image_id and bbox, got {entry!r}")
        if entry.get("category_id", person) == person and not entry.get("iscrowd"):
            x, y, width, height = _numbers(entry.get("bbox"), (4,), where)
            (score,) = _numbers([entry.get("score", 1.0)], (1,), where)
            key = _integer(entry, "image_id", where)
            rows.setdefault(key, []).append([x, y, x + width, y + height, score])
            if entry.get("file_name"):  # posekit's own COCO results have it
                images.setdefault(str(entry["file_name"]), key)
    return rows, images


def _objects(data: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    values = data.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InputError(f"{path}: wanted {key} as a list of objects, as COCO has it")
    return values


def _integer(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int):
        raise InputError(f"{where}: wanted {key} as a whole number, got {value!r}")
    return value


def _numbers(value: Any, lengths: tuple[int, ...], where: str) -> _Row:
    """`value` as a list of one of `lengths`. Raises InputError."""
    is_row = isinstance(value, list) and len(value) in lengths
    if not is_row or not all(type(number) in (int, float) for number in value):
        wanted = " or ".join(map(str, lengths))
        raise InputError(f"{where}: wanted a box or score of {wanted} numbers, got {value!r}")
    return [float(number) for number in value]


def _boxes(rows: list[_Row], path: Path, key: int) -> Boxes:
    array = np.array(rows, np.float32).reshape(-1, 5)
    scores = array[:, 4]
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(f"{path}: a score of frame {key} is not in [0, 1]: {scores.tolist()}")
    try:
        return Boxes(array[:, :4], scores)
    except InputError as error:
        raise InputError(f"{path}: frame {key}: {error}") from error
