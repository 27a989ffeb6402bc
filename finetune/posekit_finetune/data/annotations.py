"""Annotations in, labeled persons out.

Joints are matched by name, so that COCO, MPII and AI Challenger can share the channels of one
network, as in the paper's 24-joint head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posekit.atomic import AtomicFolder
from posekit.errors import DataError, InputError, SourceError
from posekit.evaluate.annotations import LabelFile, find_image, read_label_file
from posekit.geometry import Warp
from posekit.inputs.coco import Annotation, ImageId
from posekit.skeletons import parse
from posekit.types import Boxes, ModelSpec, Skeleton, UInt8
from posekit.video.images import read_image
from posekit_finetune.data import patch_store
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.data.persons import FindCounts, cut_patches

# Source: Semi_Human_Pose's union of COCO, MPII, AIC and Human3.6M, with its names; AIC's neck,
# MPII's upper_neck and thorax are labeled at different places and stay separate.
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

_READER = 2  # increment when other persons are chosen: invalidates stored patches


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated person: xyxy box and joints (J, 3), x, y, visibility, in image px.

    name: of the image in the labels.  file: its path.
    """

    name: str
    file: Path
    box: tuple[float, float, float, float]
    joints: NDArray[np.float64]


@dataclass(frozen=True)
class LabelOptions:
    """Which persons of a label file are read.

    first: number of instances, in the order of the file's images; None for all.  category: in
    COCO's form, by name or id; None: person, or the only one.  skeleton: None for the network's.
    """

    first: int | None = None
    category: str | None = None
    skeleton: Skeleton | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.first < 1:
            raise InputError(f"first {self.first}: wanted 1 instance or more")


def read_labeled(
    annotations: str | Path,
    images: str | Path,
    spec: ModelSpec,
    *,
    options: LabelOptions = LabelOptions(),
    work: str | Path,
) -> LabeledPersons:
    """Persons of a COCO file (any joint names) or of MPII's JSON list, stored in `work`.

    Crowds, boxes without area and persons without a joint of the skeleton are left out, with a
    note. Raises DataError with the entry that is wrong, InputError.
    """
    path, folder, first = Path(annotations), Path(images), options.first
    joints = options.skeleton or spec.skeleton
    found = read_label_file(path, category=options.category, error=DataError)
    columns = _columns(found.skeleton.keypoints, joints, path)
    usable = _usable(found, columns)
    chosen = [_instance(each, found, folder, path=path) for each in usable[:first]]
    if not chosen:
        raise DataError(f"{path}: no person in it has a labeled joint of {joints.name}")
    parts = {"labels": hashlib.sha256(path.read_bytes()).hexdigest(), "first": first}
    if options.category is not None:
        parts["category"] = options.category
    files = list(dict.fromkeys(each.file for each in chosen))
    key = patch_store.cache_key(
        {**parts, "joints": joints.keypoints, "reader": _READER}, files, spec
    )
    place = Path(work) / f"labelled-{key}"  # the name that interrupted runs left there
    if not place.is_dir():
        patch_store.check_disk_space(Path(work), len(chosen), spec)
        with AtomicFolder(place) as output:
            _cut(chosen, spec, columns=columns, into=output.folder)
    persons, extra = patch_store.load(place, spec, ("points", "weights"))
    notes = list(found.notes)
    if left_out := len(found.persons) - len(usable):
        notes.append(
            f"{path}: {left_out} crowds, boxes without area and persons without a joint of "
            f"{joints.name} are left out"
        )
    points, weights = extra["points"], extra["weights"]
    return LabeledPersons(persons, points, weights, columns >= 0, joints, tuple(notes))


def _cut(
    instances: list[Instance],
    spec: ModelSpec,
    *,
    columns: NDArray[np.int64],
    into: Path,
) -> None:
    """Write patches, points and weights of all instances into a folder."""
    writer = patch_store.PatchWriter(into, spec)
    boxes = Boxes(np.array([each.box for each in instances], np.float32))
    warp = Warp.from_boxes(boxes, spec)
    groups: dict[Path, int] = {}
    image: UInt8 = np.zeros((1, 1, 3), np.uint8)
    try:
        for n, each in enumerate(instances):
            if each.file not in groups or each.file != instances[n - 1].file:
                image = _image(each.file)
            groups.setdefault(each.file, len(groups))
            writer.write(n, cut_patches(image, Warp(warp.matrix[n : n + 1]), spec)[0])
    finally:
        writer.close()
    joints = np.stack([each.joints for each in instances])[:, columns]
    weights = ((joints[:, :, 2] > 0) & (columns >= 0)).astype(np.float32)
    points = warp.to_crop(joints[:, :, :2]) * weights[:, :, None]
    rows = [
        patch_store.Row(each.box, each.name, groups[each.file], float("nan"), -1)
        for each in instances
    ]
    counts = FindCounts(pictures=len(groups), persons=len(rows))
    extra = {"points": points, "weights": weights}
    patch_store.save(into, rows, list(range(len(rows))), counts=counts, extra=extra)


def _image(path: Path) -> UInt8:
    try:
        return read_image(path)
    except SourceError as error:
        raise DataError(f"labeled image {error}") from error


def _columns(names: Sequence[str], skeleton: Skeleton, path: Path) -> NDArray[np.int64]:
    """Index of each of the skeleton's joints among the labels', -1 where they have none."""
    plain = list(names)
    columns = np.array([plain.index(n) if n in plain else -1 for n in skeleton.keypoints], np.int64)
    if (columns < 0).all():
        raise DataError(
            f"{path}: none of its joints {plain} has a name of {skeleton.name}: "
            f"{list(skeleton.keypoints)}"
        )
    return columns


def _usable(found: LabelFile, columns: NDArray[np.int64]) -> list[Annotation]:
    """Single persons with a box and a labeled joint among `columns`, image by image.

    Both orders are the file's. Source: the order of Semi_Human_Pose's loader, so that the first
    1,000 are the same ones.
    """
    of_image: dict[ImageId, list[Annotation]] = {key: [] for key in found.files}
    known = columns[columns >= 0]
    for each in found.persons:
        has_area = each.bbox is not None and min(each.bbox[2:]) > 0
        if has_area and not each.is_crowd and any(each.keypoints[3 * k + 2] > 0 for k in known):
            of_image[each.image_id].append(each)
    return [each for persons in of_image.values() for each in persons]


def _instance(person: Annotation, found: LabelFile, folder: Path, *, path: Path) -> Instance:
    """The person in 0-based px, and its image. Raises DataError."""
    name = found.files[person.image_id]
    try:
        file = find_image(folder, name)
    except SourceError as error:
        raise DataError(
            f"{path}: names {name!r}, which is not in {folder}; wanted the folder that its file "
            "names start from"
        ) from error
    x, y, width, height = (float(value) for value in person.bbox or (0, 0, 0, 0))
    x, y = x - found.layout.origin, y - found.layout.origin
    joints = np.array(person.keypoints, np.float64).reshape(-1, 3)
    joints[:, :2] -= found.layout.origin
    return Instance(name, file, (x, y, x + width, y + height), joints)
