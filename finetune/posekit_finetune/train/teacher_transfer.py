"""A teacher of another size or skeleton: its own crops of the same persons, its maps resampled.

A larger model takes larger crops, with the padding it was trained with. Its maps are resampled at
the student's cells through the two crops of each person, and its keypoints are matched by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posekit import codecs
from posekit.atomic import AtomicFolder
from posekit.errors import DataError, InputError
from posekit.geometry import Float64, Warp
from posekit.skeletons import plain
from posekit.types import Boxes, Float32, Int64, ModelSpec, Skeleton
from posekit_finetune.data import patch_store
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.persons import SAME_CROPS, Persons, cut_patches
from posekit_finetune.data.pictures import MediaFiles, media_files
from posekit_finetune.train.teacher import Progress, PseudoLabels, save_maps
from posekit_finetune.views import warps

_BLOCK = 64
"""Persons per block."""


def same_crops(teacher: ModelSpec, student: ModelSpec) -> bool:
    """Whether two networks take the same crops and output the same cells and keypoints."""
    return all(getattr(teacher, name) == getattr(student, name) for name in SAME_CROPS)


def shared_keypoints(teacher: Skeleton, student: Skeleton) -> tuple[Int64, Int64]:
    """Indices (S,) into both skeletons of the keypoints with the same name.

    Raises InputError where fewer than two are shared.
    """
    names = [plain(name) for name in teacher.keypoints]
    pairs = [
        (names.index(name), k)
        for k, name in enumerate(plain(each) for each in student.keypoints)
        if name in names
    ]
    if len(pairs) < 2:
        raise InputError(
            f"--teacher: its skeleton {teacher.name} shares {len(pairs)} keypoints with the "
            f"model's {student.name}; wanted the same names, such as "
            f"{', '.join(student.keypoints[:3])}"
        )
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]


def recrop(
    persons: Persons,
    paths: Sequence[str | Path],
    spec: ModelSpec,
    *,
    options: FindOptions,
    work: str | Path,
    progress: Progress = lambda _done, _all: None,
) -> Persons:
    """The same persons in the same order, cropped from their images for another network.

    paths, options: those that `persons` were found with; nothing is detected again.  Stored in
    `work`.
    Raises DataError, SourceError, InputError.
    """
    media = media_files(paths)
    key = patch_store.cache_key({"persons": persons.fingerprint}, media.files, spec)
    folder = Path(work) / f"persons-{key}"
    if not folder.is_dir():
        patch_store.check_disk_space(Path(work), len(persons), spec)
        with AtomicFolder(folder) as output:
            writer = patch_store.PatchWriter(output.folder, spec)
            try:
                _crop_again(persons, media, writer, options=options, progress=progress)
            finally:
                writer.close()
            table = _table(persons)
            patch_store.save(output.folder, table, list(range(len(table))), counts=persons.counts)
    return patch_store.load(folder, spec)[0]


def _crop_again(
    persons: Persons,
    media: MediaFiles,
    writer: patch_store.PatchWriter,
    *,
    options: FindOptions,
    progress: Progress,
) -> None:
    """Write every person's patch into its row, frame by frame. Raises DataError."""
    remaining = _rows_by_frame(persons)
    total = media.frame_count(options.limit)
    for done, each in enumerate(media.frames(options.limit, options.seed), start=1):
        rows = remaining.pop((each.label, each.group), [])
        if rows and each.frame is not None:
            warp = Warp.from_boxes(Boxes(persons.boxes[rows]), writer.spec)
            patches = cut_patches(each.frame.image, warp, writer.spec)
            for row, patch in zip(rows, patches, strict=True):
                writer.write(row, patch)
        progress(min(done, total), total)
    if remaining:
        raise DataError(
            f"{next(iter(remaining))[0]}: existed when persons were searched for and is missing "
            "now; do not change the images while posekit adapts"
        )


def _rows_by_frame(persons: Persons) -> dict[tuple[str, int], list[int]]:
    rows: dict[tuple[str, int], list[int]] = {}
    for n, (source, group) in enumerate(zip(persons.sources, persons.groups.tolist(), strict=True)):
        rows.setdefault((source, group), []).append(n)
    return rows


def _table(persons: Persons) -> list[patch_store.Row]:
    columns = zip(
        persons.boxes.tolist(),
        persons.sources,
        persons.groups.tolist(),
        persons.times_s.tolist(),
        persons.tracks.tolist(),
        strict=True,
    )
    return [patch_store.Row(tuple(box), *rest) for box, *rest in columns]


def remap(
    labels: PseudoLabels, teacher_persons: Persons, persons: Persons, *, path: Path
) -> PseudoLabels:
    """A teacher's pseudo-labels of its own crops, in the cells and keypoints of `persons`.

    Maps are sampled where the student's cells lie in the teacher's crop. Keypoints that the teacher
    does not have are not `known`: empty maps, scores of 0 and points of NaN.  path: for the maps
    (`.npy`).  Raises InputError, SourceError.
    """
    spec = persons.spec
    of_teacher, of_student = shared_keypoints(teacher_persons.spec.skeleton, spec.skeleton)
    width, height = spec.heatmap_size
    size = (len(persons), len(spec.skeleton), height, width)
    maps = np.zeros(size, np.float16)
    points = np.full((*size[:2], 2), np.nan, np.float32)
    scores = np.zeros(size[:2], np.float32)
    for start in range(0, len(persons), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(persons)))
        source = torch.from_numpy(np.asarray(labels.maps[rows][:, of_teacher], np.float32))
        cells = _teacher_cells(teacher_persons, persons, rows)
        sampled = warps.sample_maps(source, cells)[0].clamp_min(0).numpy()
        place = rows[:, None], of_student[None]
        maps[place] = sampled
        points[place], scores[place] = _decode_some(sampled, of_student, spec)
    known: NDArray[np.bool_] = np.zeros(size[1], np.bool_)
    known[of_student] = True
    return PseudoLabels(save_maps(path, maps), points, scores, known)


def _decode_some(maps: Float32, columns: Int64, spec: ModelSpec) -> tuple[Float32, Float32]:
    """Points (n, S, 2) and scores (n, S) of the maps (n, S, h, w) of some keypoints."""
    padded = np.zeros((len(maps), len(spec.skeleton), *maps.shape[2:]), np.float32)
    padded[:, columns] = maps
    points, scores = codecs.decode(padded, spec)
    return points[:, columns], scores[:, columns]


def _teacher_cells(teacher_persons: Persons, persons: Persons, rows: Int64) -> Float64:
    """The student's cells in the teacher's maps, (n, h, w, 2), x then y in the teacher's cells."""
    spec, other = persons.spec, teacher_persons.spec
    width, height = spec.heatmap_size
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    crop = spec.cells_to_crop(np.stack([x, y], 1))
    boxes = Boxes(persons.boxes[rows])
    warp = warps.relative_warp(*(Warp.from_boxes(boxes, each).matrix for each in (spec, other)))
    moved = crop @ warp[:, :, :2].transpose(0, 2, 1) + warp[:, None, :, 2]
    return other.crop_to_cells(moved).reshape(-1, height, width, 2)
