"""COCO files, read in one place and checked: data sets, keypoint labels and lists of results.

`--boxes`, `eval`, `calibrate` and `adapt` all read through `parse_coco`, so they take the same
persons: the annotations of one category, in images whose ids are unique.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posekit.errors import InputError, PosekitError
from posekit.inputs.parsing import number, numbers, shown

ImageId = int | str
Entries = Sequence[Mapping[str, Any]]

LARGEST = 1e9
"""Coordinates and sizes beyond this, px, are refused: their squares still fit float32."""

_PERSON = 1  # COCO's number, for lists of results, which have no names
_LISTED = 12  # categories that a message lists


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation, checked; what the file leaves out is None, empty or the default.

    bbox, head_box: x, y, width, height, px.  keypoints: flat x, y, visibility.  area: px².
    where: begins a message about it.
    """

    image_id: ImageId
    where: str = ""
    bbox: Sequence[float] | None = None
    keypoints: Sequence[float] = ()
    score: float = 1.0
    area: float | None = None
    head_box: Sequence[float] | None = None
    is_crowd: bool = False
    file_name: str = ""


@dataclass(frozen=True)
class Category:
    """A category of a file; keypoints: their names, where it gives them."""

    id: ImageId | None
    name: str = ""
    keypoints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{shown(self.id)}: {shown(self.name)}" if self.name else shown(self.id)


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The persons of a COCO file.

    images: file name by id, in the file's order; "" where it has none; empty for results.
    annotations: those of `category`, in the file's order.  notes: what was assumed or left out.
    """

    images: Mapping[ImageId, str]
    annotations: Sequence[Annotation]
    category: Category
    notes: tuple[str, ...] = ()


def parse_coco(
    data: Any,
    *,
    name: str,
    error: type[PosekitError] = InputError,
    keypoints: bool = False,
    category: str | None = None,
) -> CocoFile:
    """The persons of a data set (an object) or of results (a list), as `json` gives them.

    keypoints: only annotations with keypoints count.  name: begins every message.  category: name
    or id of the persons' category, see `choose_category`.
    Raises `error`: a field of the wrong kind, an id that is not unique or not listed, or no
    category that is persons.
    """
    images: dict[ImageId, str] = {}
    categories: list[Category] = []
    entries = data
    if isinstance(data, dict):
        images = _images(data.get("images"), name, error)
        categories = _categories(data.get("categories") or [], name, error)
        entries = data.get("annotations")
    rows = {
        f"{name}: annotation {n}": row
        for n, row in enumerate(_objects(entries, f"{name}: annotations", error))
        if row.get("keypoints") or not keypoints
    }
    ids = [_category_of(row, where, error) for where, row in rows.items()]
    candidates = _candidates(categories, ids, name=name, error=error, with_keypoints=keypoints)
    chosen = Category(None)
    if candidates:
        chosen = choose_category(candidates, category, name=name, error=error)
    kept = [
        _annotation(row, where, error)
        for (where, row), found in zip(rows.items(), ids, strict=True)
        if found in (None, chosen.id)
    ]
    _check_listed(kept, images, error)
    left_out = len(rows) - len(kept)
    was_meant = category is not None
    return CocoFile(images, kept, chosen, _notes(chosen, left_out, name, was_meant=was_meant))


def choose_category(
    categories: Sequence[Category],
    wanted: str | None = None,
    *,
    name: str,
    error: type[PosekitError] = InputError,
) -> Category:
    """The one called `wanted`, or of that id; None: called person, else the only one.

    Case does not matter.  Raises `error`, which lists them, where that leaves none or several.
    """
    title = ("person" if wanted is None else wanted).strip().casefold()
    chosen = [each for each in categories if each.name.strip().casefold() == title]
    if wanted is None:
        chosen = chosen or list(categories)
    elif not chosen:
        chosen = [each for each in categories if str(each.id).casefold() == title]
    if len(chosen) == 1:
        return chosen[0]
    several = chosen or categories
    listed = ", ".join(map(str, several[:_LISTED])) + (", ..." if len(several) > _LISTED else "")
    if wanted is not None and not chosen:
        raise error(
            f"{name}: none of its {len(several)} categories ({listed}) is called {shown(wanted)}; "
            "--category wants the name or id of one of them"
        )
    raise error(
        f"{name}: cannot tell which of {len(several)} categories ({listed}) is persons; wanted one "
        "called person, or only one: name it by --category"
    )


def floats(
    values: object, *, name: str, count: int | None = None, error: type[PosekitError] = InputError
) -> list[float]:
    """`parsing.numbers` within LARGEST, fast for the many lists that are right."""
    row: list[Any] = values if isinstance(values, list) else [None]
    plain = set(map(type, row)) <= {int, float} and count in (None, len(row))
    if plain and all(-LARGEST <= value <= LARGEST for value in row):
        return list(map(float, row))
    return numbers(values, name=name, count=count, low=-LARGEST, high=LARGEST, error=error)


def _candidates(
    listed: Sequence[Category],
    ids: Sequence[ImageId | None],
    *,
    name: str,
    error: type[PosekitError],
    with_keypoints: bool,
) -> Sequence[Category]:
    """The categories of which one is persons; none where no annotation has any."""
    used = [each for each in dict.fromkeys(ids) if each is not None]
    if not listed:
        # 0 beside others: numbered from 0, so that 1 is not COCO's person
        is_coco = _PERSON in used and 0 not in used
        return [Category(each, "person" if is_coco and each == 1 else "") for each in used]
    known = {each.id for each in listed}
    if strange := [each for each in used if each not in known]:
        raise error(
            f"{name}: annotations have category_id {shown(strange[0])}, which is not among its "
            f"categories ({', '.join(map(str, listed[:_LISTED]))})"
        )
    if with_keypoints:
        listed = [each for each in listed if each.keypoints or each.id in used]
        if not listed:
            raise error(f"{name}: no category names keypoints and no annotation has keypoints")
    return listed


def _notes(category: Category, left_out: int, name: str, *, was_meant: bool) -> tuple[str, ...]:
    notes = []
    if (
        not was_meant
        and category.id not in (None, _PERSON)
        and category.name.strip().casefold() != "person"
    ):
        notes.append(f"{name}: its only category ({category}) is taken for persons")
    if left_out:
        notes.append(f"{name}: {left_out} annotations of other categories are left out")
    return tuple(notes)


def _images(value: object, name: str, error: type[PosekitError]) -> dict[ImageId, str]:
    images: dict[ImageId, str] = {}
    for n, image in enumerate(_objects(value, f"{name}: images", error)):
        where = f"{name}: image {n}"
        key = _id(image.get("id"), f"{where}: id", error)
        file = _text(image.get("file_name", ""), f"{where}: file_name", error)
        if key in images:
            raise error(
                f"{name}: images {shown(images[key])} and {shown(file)} have the same id "
                f"{shown(key)}; wanted an id for each"
            )
        images[key] = file
    return images


def _categories(value: object, name: str, error: type[PosekitError]) -> list[Category]:
    found = []
    for n, entry in enumerate(_objects(value, f"{name}: categories", error)):
        where = f"{name}: category {n}"
        names = entry.get("keypoints") or []
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise error(f"{where}: keypoints: wanted a list of names, got {shown(names)}")
        key = _id(entry.get("id"), f"{where}: id", error)
        title = _text(entry.get("name", ""), f"{where}: name", error)
        found.append(Category(key, title, tuple(names)))
    for same, count in Counter(each.id for each in found).items():
        if count > 1:
            raise error(f"{name}: {count} categories have the same id {shown(same)}")
    return found


def _annotation(row: Mapping[str, Any], where: str, error: type[PosekitError]) -> Annotation:
    box, head, area = row.get("bbox"), row.get("bbox_head"), row.get("area")
    return Annotation(
        _id(row.get("image_id"), f"{where}: image_id", error),
        where,
        None if box is None else floats(box, name=f"{where}: bbox", count=4, error=error),
        _keypoints(row.get("keypoints") or [], f"{where}: keypoints", error),
        number(row.get("score", 1.0), name=f"{where}: score", error=error),
        None if area is None else _area(area, f"{where}: area", error),
        floats(head, name=f"{where}: bbox_head", count=4, error=error) if head else None,
        _flag(row.get("iscrowd"), f"{where}: iscrowd", error),
        _text(row.get("file_name", ""), f"{where}: file_name", error),
    )


def _area(value: object, name: str, error: type[PosekitError]) -> float:
    return number(value, name=name, low=0, high=LARGEST**2, error=error)


def _keypoints(values: object, name: str, error: type[PosekitError]) -> list[float]:
    found = floats(values, name=name, error=error)
    if len(found) % 3:
        raise error(f"{name}: {len(found)} numbers; wanted x, y and visibility of each keypoint")
    return found


def _check_listed(
    annotations: Sequence[Annotation],
    images: Mapping[ImageId, str],
    error: type[PosekitError],
) -> None:
    """Whether every annotation is in a listed image, where any are listed."""
    if not images:
        return
    for each in annotations:
        if each.image_id not in images:
            raise error(
                f"{each.where}: image_id {shown(each.image_id)} is not among the ids of the file's "
                f"images, such as {shown(next(iter(images)))}"
            )


def _objects(value: object, name: str, error: type[PosekitError]) -> Entries:
    if not isinstance(value, list):
        raise error(f"{name}: wanted a list of objects, as COCO has it, got {shown(value)}")
    for n, each in enumerate(value):
        if not isinstance(each, dict):
            raise error(f"{name}, entry {n}: wanted an object, as COCO has it, got {shown(each)}")
    return value


def _category_of(row: Mapping[str, Any], name: str, error: type[PosekitError]) -> ImageId | None:
    value = row.get("category_id")
    return None if value is None else _id(value, f"{name}: category_id", error)


def _id(value: object, name: str, error: type[PosekitError]) -> ImageId:
    """A whole number, also as text ("12" is 12), or any other text."""
    if isinstance(value, str) and value:
        is_number = value.isascii() and value.isdecimal() and len(value) < 19
        return int(value) if is_number and str(int(value)) == value else value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    raise error(f"{name}: wanted a whole number below 2**63, or a text, got {shown(value)}")


def _text(value: object, name: str, error: type[PosekitError]) -> str:
    if not isinstance(value, str):
        raise error(f"{name}: wanted a text, got {shown(value)}")
    return value


def _flag(value: object, name: str, error: type[PosekitError]) -> bool:
    if value in (None, 0, 1):
        return bool(value)
    raise error(f"{name}: wanted 0 or 1, got {shown(value)}")
