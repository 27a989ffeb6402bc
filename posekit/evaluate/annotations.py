"""Labelled persons of public data sets, read into arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError, SourceError
from posekit.evaluate.keypoint_names import MPII, Layout, layout_of
from posekit.skeletons import COCO_17, MPII_16
from posekit.types import Boxes, Float32, Int64, Skeleton, UInt8

Float64 = NDArray[np.float64]

BOX_SHARE = 0.53
"""Area of a person over that of the box, where a file has none. Source: CrowdPose's protocol."""

_HEAD_SHARE = 0.6  # MPII's head size is 0.6 of the diagonal of the head's box


@dataclass(frozen=True, eq=False)
class Annotations:
    """N labelled persons in I images.

    images: files.  image_ids: int64 (I,).  image_of: int64 (N,), the image each person is in.
    boxes: N, frame px.  keypoints: float32 (N, K, 2), frame px.  visibility: uint8 (N, K):
    0 not labelled, 1 hidden, 2 visible.  areas: (N,), px².  crowds: bool (N,), groups that are
    not single persons.  head_sizes: (N,), px, by the head's box; NaN without one.
    """

    name: str
    skeleton: Skeleton
    images: tuple[Path, ...]
    image_ids: Int64
    image_of: Int64
    boxes: Boxes
    keypoints: Float32
    visibility: UInt8
    areas: Float64
    crowds: NDArray[np.bool_]
    head_sizes: Float32

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sizes(self) -> Float32:
        """Each person's size, the square root of the box's area: (N,), px, at least 1."""
        sides = self.boxes.xyxy[:, 2:] - self.boxes.xyxy[:, :2]
        sizes: Float32 = np.sqrt(np.maximum(sides.prod(1), 1))
        return sizes

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which of the N are single persons with a labelled keypoint."""
        found: NDArray[np.bool_] = (self.visibility > 0).any(1) & ~self.crowds
        return found

    def select(self, persons: NDArray[Any]) -> Annotations:
        """The persons that `persons` (integers or booleans) names, with all images."""
        return Annotations(
            self.name,
            self.skeleton,
            self.images,
            self.image_ids,
            self.image_of[persons],
            self.boxes.select(persons),
            self.keypoints[persons],
            self.visibility[persons],
            self.areas[persons],
            self.crowds[persons],
            self.head_sizes[persons],
        )


def read_annotations(path: str | Path, images: str | Path) -> Annotations:
    """Labels of a file: COCO's form (AIC, CrowdPose, ExLPose, Human-Art, JHMDB, OCHuman,
    PoseTrack, ...) or MPII's list; coordinates become 0-based pixels.

    images: the folder that the file's names lie in; leading folders of a name may be missing
    there. Raises SourceError (unreadable, a missing image), InputError (not such a file).
    """
    path, folder = Path(path), Path(images)
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); wanted COCO's or MPII's form") from error
    try:
        rows = _mpii(data, path) if isinstance(data, list) else _coco(data, path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}: not COCO keypoint annotations nor MPII's list ({error!r})"
        ) from error
    if not rows.persons:
        raise InputError(f"{path}: holds no annotated person")
    return _arrays(rows, path, folder)


@dataclass(frozen=True)
class _Rows:
    """What a file says, in its own coordinates; persons have COCO's fields."""

    layout: Layout
    skeleton: Skeleton
    files: Mapping[int, str]
    persons: Sequence[Mapping[str, Any]]


def _coco(data: Mapping[str, Any], path: Path) -> _Rows:
    persons = [each for each in data["annotations"] if each.get("keypoints")]
    categories = data.get("categories") or [{"keypoints": list(COCO_17.keypoints)}]
    named = [each["keypoints"] for each in categories if each.get("keypoints")]
    count = max((len(each["keypoints"]) // 3 for each in persons), default=0)
    if not named or count == 0 or count > len(named[0]):
        raise InputError(
            f"{path}: its categories name {len(named[0]) if named else 0} keypoints and its "
            f"persons have {count}; wanted person keypoints in COCO's form"
        )
    layout = layout_of(named[0])
    files = {int(image["id"]): str(image["file_name"]) for image in data["images"]}
    return _Rows(layout, layout.skeleton(named[0][:count]), files, persons)


def _mpii(data: Sequence[Mapping[str, Any]], path: Path) -> _Rows:
    """A list of persons with joints, joints_vis, center and scale (a share of 200 px)."""
    names = sorted({str(each["image"]) for each in data})
    persons = []
    for number, each in enumerate(data):
        joints, seen = np.array(each["joints"], float), np.array(each["joints_vis"])
        if joints.shape != (len(MPII_16), 2) or seen.shape != (len(MPII_16),):
            raise InputError(f"{path}, person {number}: joints {joints.shape}; wanted (16, 2)")
        side = 200 * float(each["scale"])
        # The centre lies high on the body; what is published moves it down before cropping.
        x, y = each["center"][0], each["center"][1] + 15 * float(each["scale"])
        flags = np.where(seen[:, None] > 0, 2, 0)
        persons.append(
            {
                "image_id": names.index(str(each["image"])) + 1,
                "bbox": [x - side / 2, y - side / 2, side, side],
                "keypoints": np.concatenate([joints, flags], 1).ravel().tolist(),
            }
        )
    return _Rows(MPII, MPII_16, dict(enumerate(names, start=1)), persons)


def _arrays(rows: _Rows, path: Path, folder: Path) -> Annotations:
    ids = sorted(rows.files)
    place = {key: index for index, key in enumerate(ids)}
    count = len(rows.skeleton)
    flat = np.array([_keypoints(each, count, path) for each in rows.persons], np.float32)
    table = flat.reshape(-1, count, 3)
    boxes = _boxes(rows, path)
    seen = np.where(np.isfinite(table[:, :, 2]), table[:, :, 2], 0).clip(0, 2).astype(np.uint8)
    try:
        image_of = np.array([place[int(each["image_id"])] for each in rows.persons], np.int64)
    except KeyError as error:
        raise InputError(f"{path}: a person is in image {error}, which it does not list") from error
    return Annotations(
        name=rows.layout.name,
        skeleton=rows.skeleton,
        images=tuple(_image(folder, rows.files[key]) for key in ids),
        image_ids=np.array(ids, np.int64),
        image_of=image_of,
        boxes=boxes,
        keypoints=np.where(seen[:, :, None] > 0, table[:, :, :2] - rows.layout.origin, 0),
        visibility=seen,
        areas=np.array([_area(each) for each in rows.persons], np.float64),
        crowds=np.array([bool(each.get("iscrowd")) for each in rows.persons]),
        head_sizes=np.array([_head_size(each) for each in rows.persons], np.float32),
    )


def _keypoints(person: Mapping[str, Any], count: int, path: Path) -> list[float]:
    values: list[float] = person["keypoints"]
    if len(values) != 3 * count:
        where = f"{path}, annotation {person.get('id')}"
        raise InputError(f"{where}: {len(values)} numbers of keypoints; wanted {3 * count}")
    return values


def _boxes(rows: _Rows, path: Path) -> Boxes:
    try:
        corner = np.array([each["bbox"] for each in rows.persons], np.float32).reshape(-1, 4)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: a person has no bbox of four numbers ({error!r}); wanted x, y, width, height"
        ) from error
    size = np.maximum(corner[:, 2:], 0)
    xyxy = np.concatenate([corner[:, :2], corner[:, :2] + size], 1) - rows.layout.origin
    return Boxes(xyxy.astype(np.float32))


def _area(person: Mapping[str, Any]) -> float:
    _, _, width, height = person["bbox"]
    return float(person.get("area") or BOX_SHARE * width * height)


def _head_size(person: Mapping[str, Any]) -> float:
    box = person.get("bbox_head")
    return _HEAD_SHARE * float(np.hypot(box[2], box[3])) if box else float("nan")


def _image(folder: Path, name: str) -> Path:
    """`folder`/`name`, or with fewer of the name's leading folders. Raises SourceError."""
    parts = PurePosixPath(name).parts
    for skipped in range(len(parts)):
        path = folder.joinpath(*parts[skipped:])
        if path.is_file():
            return path
    raise SourceError(f"{folder / name}: no such image; --images wants the folder it lies in")
