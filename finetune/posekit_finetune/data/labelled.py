"""Labelled persons for semi-supervised training: annotations in, patches and keypoints out.

Joints are matched by name, so that COCO, MPII and AI Challenger can share the channels of one
network, as the paper's 24-joint head does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.atomic import AtomicFolder
from posekit.errors import DataError, InputError, SourceError
from posekit.geometry import Warp
from posekit.skeletons import COCO_17, MPII_16, parse
from posekit.types import Boxes, Float32, ModelSpec, Skeleton, UInt8
from posekit.video.images import read_image
from posekit_finetune.data import patch_store
from posekit_finetune.data.persons import Found, Persons, cut_patches

# Source: Semi_Human_Pose's union of COCO, MPII, AIC and Human3.6M, whose names these are; AIC's
# neck, MPII's upper_neck and thorax are labelled at different places and stay apart.
UNION_24 = parse(
    {
        "name": "union_24",
        "keypoints": [
            *("pelvis", "right_hip", "right_knee", "right_ankle"),
            *("left_hip", "left_knee", "left_ankle", "belly", "thorax", "neck", "upper_neck"),
            *("nose", "head", "head_top", "left_shoulder", "left_elbow", "left_wrist"),
            *("right_shoulder", "right_elbow", "right_wrist"),
            *("right_eye", "left_eye", "right_ear", "left_ear"),
        ],
        "mirror": [(1, 4), (2, 5), (3, 6), (14, 17), (15, 18), (16, 19), (20, 21), (22, 23)],
        "bones": [
            *((0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 8), (8, 10), (10, 13)),
            *((8, 14), (14, 15), (15, 16), (8, 17), (17, 18), (18, 19)),
        ],
    }
)

_MPII_PIXELS = 200.0  # MPII's scale is a person's height over 200 px
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Labelled:
    """N labelled persons, for the skeleton of a network.

    persons: their patches.  points: float32 (N, K, 2), crop px.  weights: float32 (N, K), 1 where
    the joint is labelled, hidden ones too, else 0.  known: bool (K,), joints that the data set has.
    """

    persons: Persons
    points: Float32
    weights: Float32
    known: NDArray[np.bool_]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        shape = (len(self.persons), len(self.skeleton))
        got = (self.points.shape, self.weights.shape, self.known.shape)
        if got != ((*shape, 2), shape, shape[1:]):
            raise InputError(
                f"labelled: points, weights, known of {got}; wanted {(*shape, 2)}, {shape}, "
                f"{shape[1:]}"
            )

    def __len__(self) -> int:
        return len(self.persons)


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated person: xyxy box and joints (J, 3), x, y, labelled, in picture px."""

    file: str
    box: tuple[float, float, float, float]
    joints: NDArray[np.float64]


def read_labelled(
    annotations: str | Path,
    images: str | Path,
    spec: ModelSpec,
    *,
    first: int | None = None,
    skeleton: Skeleton | None = None,
    work: str | Path,
) -> Labelled:
    """Persons of a COCO file (any joint names) or of MPII's JSON list, kept in `work`.

    first: so many instances, in the order of the file's images; None for all.  skeleton: None for
    the network's. Crowds, boxes without area and persons without a joint of it are left out.
    Raises DataError with the entry that is wrong, InputError.
    """
    path, folder, joints = Path(annotations), Path(images), skeleton or spec.skeleton
    if first is not None and first < 1:
        raise InputError(f"first {first}: wanted 1 instance or more")
    names, instances = _instances(path)
    columns = _columns(names, joints, path)
    chosen = _with_joints(instances, columns, first)
    if not chosen:
        raise DataError(f"{path}: no person in it has a labelled joint of {joints.name}")
    told = {"labels": hashlib.sha256(path.read_bytes()).hexdigest(), "first": first}
    files = list(dict.fromkeys(_file(folder, each, path) for each in chosen))
    key = patch_store.key_of({**told, "joints": joints.keypoints}, files, spec)
    place = Path(work) / f"labelled-{key}"
    if not place.is_dir():
        patch_store.check_room(Path(work), len(chosen), spec)
        with AtomicFolder(place) as output:
            _cut(chosen, folder, spec, columns=columns, into=output.folder)
    persons, extra = patch_store.load(place, spec, ("points", "weights"))
    return Labelled(persons, extra["points"], extra["weights"], columns >= 0, joints)


def _cut(
    instances: list[Instance],
    folder: Path,
    spec: ModelSpec,
    *,
    columns: NDArray[np.int64],
    into: Path,
) -> None:
    """Write patches, points and weights of all instances into a folder."""
    writer = patch_store.PatchWriter(into, spec)
    boxes = Boxes(np.array([each.box for each in instances], np.float32))
    warp = Warp.from_boxes(boxes, spec)
    groups: dict[str, int] = {}
    image: UInt8 = np.zeros((1, 1, 3), np.uint8)
    try:
        for n, each in enumerate(instances):
            if each.file not in groups or each.file != instances[n - 1].file:
                image = _image(folder / each.file)
            groups.setdefault(each.file, len(groups))
            writer.put(n, cut_patches(image, Warp(warp.matrix[n : n + 1]), spec)[0])
    finally:
        writer.close()
    joints = np.stack([each.joints for each in instances])[:, columns]
    weights = ((joints[:, :, 2] > 0) & (columns >= 0)).astype(np.float32)
    points = warp.to_crop(joints[:, :, :2]) * weights[:, :, None]
    rows = [
        patch_store.Row(each.box, Path(each.file).name, groups[each.file], float("nan"), -1)
        for each in instances
    ]
    found = Found(pictures=len(groups), persons=len(rows))
    extra = {"points": points, "weights": weights}
    patch_store.save(into, rows, list(range(len(rows))), found=found, extra=extra)


def _image(path: Path) -> UInt8:
    try:
        return read_image(path)
    except SourceError as error:
        raise DataError(f"labelled image {error}") from error


def _file(folder: Path, instance: Instance, annotations: Path) -> Path:
    file = folder / instance.file
    if not file.is_file():
        raise DataError(
            f"{annotations}: names {instance.file!r}, which is not in {folder}; wanted the folder "
            "that its file names start from"
        )
    return file


def _columns(names: list[str], skeleton: Skeleton, path: Path) -> NDArray[np.int64]:
    """For each joint of the skeleton its place among the annotation's, -1 where it has none."""
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in names]
    columns = np.array([plain.index(n) if n in plain else -1 for n in skeleton.keypoints], np.int64)
    if (columns < 0).all():
        raise DataError(
            f"{path}: none of its joints {plain} has a name of {skeleton.name}: "
            f"{list(skeleton.keypoints)}"
        )
    return columns


def _with_joints(
    instances: Iterator[Instance], columns: NDArray[np.int64], first: int | None
) -> list[Instance]:
    """The first instances with a labelled joint among `columns`."""
    chosen: list[Instance] = []
    for each in instances:
        if first is not None and len(chosen) == first:
            break
        if (each.joints[columns[columns >= 0], 2] > 0).any():
            chosen.append(each)
    return chosen


def _instances(path: Path) -> tuple[list[str], Iterator[Instance]]:
    """Joint names and all annotated persons of a file."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); wanted COCO annotations") from error
    if isinstance(data, list) and data and isinstance(data[0], dict) and "joints_vis" in data[0]:
        return list(MPII_16.keypoints), _mpii(data, path)
    if not isinstance(data, dict) or not {"images", "annotations"} <= set(data):
        raise DataError(
            f"{path}: wanted a COCO file with images and annotations, or MPII's list with joints "
            "and joints_vis"
        )
    return _names(data), _coco(data, path)


def _names(data: Mapping[str, Any]) -> list[str]:
    """The person category's joint names; COCO's where the file leaves them out."""
    for category in data.get("categories") or []:
        if isinstance(category, dict) and category.get("keypoints"):
            return [str(name) for name in category["keypoints"]]
    return list(COCO_17.keypoints)


def _coco(data: Mapping[str, Any], path: Path) -> Iterator[Instance]:
    """Image by image, in the file's order, each with its annotations in the file's order.

    Source: the order of Semi_Human_Pose's loader, so that the first 1,000 are the same ones.
    """
    count = len(_names(data))
    try:
        files = {image["id"]: str(image["file_name"]) for image in data["images"]}
        rows: dict[Any, list[Any]] = {key: [] for key in files}
        for annotation in data["annotations"]:
            rows[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: an image or annotation lacks {error}, or belongs to none"
        ) from error
    for key, persons in rows.items():
        for annotation in persons:
            if (found := _coco_instance(annotation, files[key], count, path=path)) is not None:
                yield found


def _coco_instance(annotation: Any, file: str, count: int, *, path: Path) -> Instance | None:
    if annotation.get("iscrowd") or "keypoints" not in annotation:
        return None
    where = f"{path}: annotation {annotation.get('id')} of {file}"
    try:
        joints = np.array(annotation["keypoints"], np.float64)
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: wanted keypoints and bbox as numbers, got {error!r}") from error
    if joints.shape != (3 * count,) or not np.isfinite([*joints, x, y, width, height]).all():
        raise DataError(
            f"{where}: {joints.size} keypoint numbers; wanted {3 * count} finite ones, x, y and "
            f"visibility of the {count} joints that the category names"
        )
    if width <= 0 or height <= 0:
        return None
    return Instance(file, (x, y, x + width, y + height), joints.reshape(-1, 3))


def _mpii(data: list[Any], path: Path) -> Iterator[Instance]:
    """MPII as its evaluation programs keep it: 1-based joints, centre and scale of a person.

    Source: HRNet's mpii.py: the centre is moved down by 15 px of scale, the box is 200 px of it.
    """
    for number, entry in enumerate(data):
        try:
            joints = np.array(entry["joints"], np.float64).reshape(len(MPII_16), 2) - 1
            seen = np.array(entry["joints_vis"], np.float64).reshape(len(MPII_16), 1)
            (x, y), scale = entry["center"], float(entry["scale"])
            file = str(entry["image"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: entry {number} is not one of MPII's ({error!r})") from error
        half = scale * _MPII_PIXELS / 2
        x, y = float(x) - 1, float(y) - 1 + 15 * scale
        box = (x - half, y - half, x + half, y + half)
        yield Instance(file, box, np.concatenate([joints, seen], 1))
