"""Labeled persons of public data sets, read into arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError, PosekitError, SourceError
from posekit.evaluate.keypoint_names import MPII, Layout, layout_of
from posekit.inputs.coco import LARGEST, Annotation, CocoFile, ImageId, floats, parse_coco
from posekit.inputs.parsing import number, numbers, read_json, shown
from posekit.skeletons import COCO_17, MPII_16, plain
from posekit.types import Boxes, Float32, Int64, Skeleton, UInt8

Float64 = NDArray[np.float64]

BOX_SHARE = 0.53
"""Area of a person over that of the box, where a file has none. Source: CrowdPose's protocol."""

_HEAD_SHARE = 0.6  # MPII's head size is 0.6 of the diagonal of the head's box


@dataclass(frozen=True, eq=False)
class Annotations:
    """N labeled persons in I images.

    images: files.  image_names, image_ids: as the labels have them.  image_of: int64 (N,), the
    image each person is in.
    boxes: N, frame px.  keypoints: float32 (N, K, 2), frame px.  visibility: uint8 (N, K):
    0 not labeled, 1 hidden, 2 visible.  areas: (N,), px².  crowds: bool (N,), groups that are
    not single persons.  head_sizes: (N,), px, by the head's box; NaN without one.
    notes: what was assumed or left out.
    """

    name: str
    skeleton: Skeleton
    images: tuple[Path, ...]
    image_names: tuple[str, ...]
    image_ids: tuple[ImageId, ...]
    image_of: Int64
    boxes: Boxes
    keypoints: Float32
    visibility: UInt8
    areas: Float64
    crowds: NDArray[np.bool_]
    head_sizes: Float32
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sizes(self) -> Float32:
        """Each person's size, the square root of the box's area: (N,), px, at least 1."""
        sides = self.boxes.xyxy[:, 2:] - self.boxes.xyxy[:, :2]
        sizes: Float32 = np.sqrt(np.maximum(sides.prod(1), 1))
        return sizes

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """Which of the N are single persons with a labeled keypoint."""
        found: NDArray[np.bool_] = (self.visibility > 0).any(1) & ~self.crowds
        return found

    def select(self, persons: NDArray[Any]) -> Annotations:
        """The persons that `persons` (integers or booleans) names, with all images."""
        return dataclasses.replace(
            self,
            image_of=self.image_of[persons],
            boxes=self.boxes.select(persons),
            keypoints=self.keypoints[persons],
            visibility=self.visibility[persons],
            areas=self.areas[persons],
            crowds=self.crowds[persons],
            head_sizes=self.head_sizes[persons],
        )


@dataclass(frozen=True, eq=False)
class LabelFile:
    """The persons of a label file, in its own coordinates, checked.

    files: image file by id, in the file's order.  persons: in its order, each with a bbox and the
    skeleton's K keypoints.  notes: what was assumed or left out.
    """

    layout: Layout
    skeleton: Skeleton
    files: Mapping[ImageId, str]
    persons: Sequence[Annotation]
    notes: tuple[str, ...] = ()


def read_annotations(
    path: str | Path, images: str | Path, *, category: str | None = None
) -> Annotations:
    """Labels of a file, see `read_label_file`, as arrays; coordinates become 0-based pixels.

    images: the folder that the file's names lie in; leading folders of a name may be missing
    there.  category: of the persons, by name or id.  Raises SourceError (unreadable, a missing
    image), InputError (not such a file).
    """
    path, folder = Path(path), Path(images)
    if not path.is_file():
        raise SourceError(f"{path}: cannot be read: no such file")
    found = read_label_file(path, category=category)
    if not found.persons:
        raise InputError(f"{path}: holds no annotated person")
    return _arrays(found, path, folder)


def read_label_file(
    path: Path, *, category: str | None = None, error: type[PosekitError] = InputError
) -> LabelFile:
    """The labeled persons of COCO's form (AIC, CrowdPose, ExLPose, Human-Art, JHMDB, OCHuman,
    PoseTrack, ...) or of MPII's list. The only reader of labels: `eval`, `calibrate` and `adapt`
    take the same persons.  category: of COCO's form, by name or id; None: person, or the only one.
    Raises `error`, naming the entry that is wrong.
    """
    data, name = read_json(path, error=error), str(path)
    if isinstance(data, list) and data and isinstance(data[0], dict) and "joints_vis" in data[0]:
        return _mpii(data, name, error)
    if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
        raise error(
            f"{name}: not COCO keypoint annotations (images, annotations) nor MPII's list (joints, "
            "joints_vis)"
        )
    coco = parse_coco(data, name=name, error=error, keypoints=True, category=category)
    return _coco(coco, name, error)


def find_image(folder: Path, name: str) -> Path:
    """`folder`/`name`, or with fewer of the name's leading folders. Raises SourceError."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    for skipped in range(len(parts)):
        path = folder.joinpath(*parts[skipped:])
        if path.is_file():
            return path
    raise SourceError(
        f"{folder / name}: no such image; wanted the folder that the labels' file names start from"
    )


def _coco(found: CocoFile, name: str, error: type[PosekitError]) -> LabelFile:
    notes = list(found.notes)
    names = found.category.keypoints
    if not names and found.annotations:
        names = COCO_17.keypoints
        notes.append(f"{name}: its category names no keypoints; COCO's 17 are assumed")
    count = _keypoint_count(found.annotations, names)
    if count < len(names):
        notes.append(f"{name}: names {len(names)} keypoints and holds {count}, the first ones")
    _check(found, count, name, error=error)
    layout = layout_of(names)
    skeleton = layout.skeleton(names[:count])
    return LabelFile(layout, skeleton, found.images, found.annotations, tuple(notes))


def _check(found: CocoFile, count: int, name: str, *, error: type[PosekitError]) -> None:
    """Whether images have names, and persons a box and `count` keypoints."""
    for key, file in found.images.items():
        if not file:
            raise error(f"{name}: image {shown(key)} has no file_name")
    for each in found.annotations:
        if len(each.keypoints) != 3 * count:
            raise error(
                f"{each.where}: {len(each.keypoints)} keypoint numbers; wanted {3 * count}: x, y "
                f"and visibility of the {count} keypoints that its category names"
            )
        if each.bbox is None:
            raise error(f"{each.where}: has no bbox; wanted x, y, width and height")


def _keypoint_count(persons: Sequence[Annotation], names: Sequence[str]) -> int:
    """How many keypoints a person has: those that are named, or COCO's 17, named first, of more.

    Human-Art and OCHuman name more than their persons have.
    """
    count = len(COCO_17)
    begins_as_coco = tuple(map(plain, names[:count])) == COCO_17.keypoints
    holds_coco = any(len(each.keypoints) == 3 * count for each in persons)
    return count if begins_as_coco and holds_coco else len(names)


def _mpii(data: Sequence[Any], name: str, error: type[PosekitError]) -> LabelFile:
    """A list of persons with joints, joints_vis, center and scale (a share of 200 px)."""
    persons = []
    for n, each in enumerate(data):
        where = f"{name}: person {n}"
        file = each.get("image") if isinstance(each, dict) else None
        if not isinstance(file, str) or not file:
            raise error(f"{where}: wanted an object with image, joints, joints_vis, center, scale")
        joints, visible = each.get("joints"), each.get("joints_vis")
        if not isinstance(joints, list) or len(joints) != len(MPII_16):
            raise error(f"{where}: joints: wanted {len(MPII_16)} of x and y, got {shown(joints)}")
        flags = numbers(visible, name=f"{where}: joints_vis", count=len(MPII_16), error=error)
        flat: list[float] = []
        for k, joint in enumerate(joints):
            place = floats(joint, name=f"{where}: joint {k}", count=2, error=error)
            flat += [*place, 2.0 if flags[k] > 0 else 0.0]
        box = _mpii_box(each, where, error)
        persons.append(Annotation(file, where, box, flat))
    files = {each.image_id: str(each.image_id) for each in persons}  # an image's id is its name
    return LabelFile(MPII, MPII_16, files, persons)


def _mpii_box(each: Mapping[str, Any], where: str, error: type[PosekitError]) -> list[float]:
    """x, y, width, height: 200 px of scale around the center.

    The center lies high on the body; published code moves it down by 15 px of scale.
    Source: HRNet's mpii.py.
    """
    scale = number(each.get("scale"), name=f"{where}: scale", low=0, high=LARGEST, error=error)
    x, y = floats(each.get("center"), name=f"{where}: center", count=2, error=error)
    side = 200 * scale
    return [x - side / 2, y + 15 * scale - side / 2, side, side]


def _arrays(found: LabelFile, path: Path, folder: Path) -> Annotations:
    ids = sorted(found.files, key=lambda key: (isinstance(key, str), key))
    place = {key: index for index, key in enumerate(ids)}
    flat = np.array([each.keypoints for each in found.persons], np.float32)
    table = flat.reshape(len(found.persons), len(found.skeleton), 3)
    visibility = table[:, :, 2].clip(0, 2).astype(np.uint8)
    origin = found.layout.origin
    return Annotations(
        name=found.layout.name,
        skeleton=found.skeleton,
        images=_files(folder, [found.files[key] for key in ids], path),
        image_names=tuple(found.files[key] for key in ids),
        image_ids=tuple(ids),
        image_of=np.array([place[each.image_id] for each in found.persons], np.int64),
        boxes=_boxes(found.persons, origin),
        keypoints=np.where(visibility[:, :, None] > 0, table[:, :, :2] - origin, 0),
        visibility=visibility,
        areas=np.array([_area(each) for each in found.persons], np.float64),
        crowds=np.array([each.is_crowd for each in found.persons]),
        head_sizes=np.array([_head_size(each) for each in found.persons], np.float32),
        notes=found.notes,
    )


def _files(folder: Path, names: Sequence[str], path: Path) -> tuple[Path, ...]:
    """The images' files; two names never mean one file. Raises SourceError, InputError."""
    name_of: dict[Path, str] = {}
    files = tuple(find_image(folder, name) for name in names)
    for file, name in zip(files, names, strict=True):
        other = name_of.setdefault(file, name)
        if other != name:
            raise InputError(
                f"{path}: images {shown(other)} and {shown(name)} would both be {file}; wanted the "
                "folder that their names start from"
            )
    return files


def _boxes(persons: Sequence[Annotation], origin: float) -> Boxes:
    corner = np.array([each.bbox for each in persons], np.float32).reshape(-1, 4)
    size = np.maximum(corner[:, 2:], 0)
    xyxy = np.concatenate([corner[:, :2], corner[:, :2] + size], 1) - np.float32(origin)
    return Boxes(xyxy.astype(np.float32))


def _area(person: Annotation) -> float:
    width, height = person.bbox[2:] if person.bbox else (0.0, 0.0)
    return person.area or BOX_SHARE * width * height


def _head_size(person: Annotation) -> float:
    box = person.head_box
    return _HEAD_SHARE * float(np.hypot(box[2], box[3])) if box else float("nan")
