"""A teacher of another size or skeleton: its own crops of the same persons, its maps in ours.

A bigger model looks at bigger crops, padded as it was trained. Its answers are carried to the
student's cells through the two crops of each person, and its keypoints are matched by name.
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
from posekit.evaluate.keypoint_names import plain
from posekit.geometry import Float64, Warp
from posekit.types import Boxes, Float32, Int64, ModelSpec, Skeleton
from posekit_finetune.data import patch_store
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.persons import SAME_CROPS, Persons, cut_patches
from posekit_finetune.data.pictures import MediaFiles, media_files
from posekit_finetune.train.teacher import Progress, PseudoLabels, save_maps
from posekit_finetune.views import warps

_BLOCK = 64
"""Persons at a time."""


def same_crops(theirs: ModelSpec, ours: ModelSpec) -> bool:
    """Whether two networks look at the same crop and answer in the same cells and keypoints."""
    return all(getattr(theirs, name) == getattr(ours, name) for name in SAME_CROPS)


def by_name(theirs: Skeleton, ours: Skeleton) -> tuple[Int64, Int64]:
    """Indices (S,) into both skeletons of the keypoints that bear the same name.

    Raises InputError where fewer than two do.
    """
    names = [plain(name) for name in theirs.keypoints]
    pairs = [
        (names.index(name), k)
        for k, name in enumerate(plain(each) for each in ours.keypoints)
        if name in names
    ]
    if len(pairs) < 2:
        raise InputError(
            f"--teacher: its skeleton {theirs.name} shares {len(pairs)} keypoints with the model's "
            f"{ours.name}; wanted the same names, such as {', '.join(ours.keypoints[:3])}"
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
    """The same persons in the same order, cut from their pictures for another network.

    paths, options: those by which `persons` were found; nothing is detected again.  Kept in `work`.
    Raises DataError, SourceError, InputError.
    """
    found = media_files(paths)
    key = patch_store.key_of({"persons": persons.fingerprint}, found.files, spec)
    folder = Path(work) / f"persons-{key}"
    if not folder.is_dir():
        patch_store.check_room(Path(work), len(persons), spec)
        with AtomicFolder(folder) as output:
            writer = patch_store.PatchWriter(output.folder, spec)
            try:
                _cut_again(persons, found, writer, options=options, progress=progress)
            finally:
                writer.close()
            table = _table(persons)
            patch_store.save(output.folder, table, list(range(len(table))), found=persons.found)
    return patch_store.load(folder, spec)[0]


def _cut_again(
    persons: Persons,
    found: MediaFiles,
    writer: patch_store.PatchWriter,
    *,
    options: FindOptions,
    progress: Progress,
) -> None:
    """Every person's patch into its row, picture by picture. Raises DataError."""
    left = _rows_by_picture(persons)
    total = found.count(options.limit)
    for done, picture in enumerate(found.pictures(options.limit, options.seed), start=1):
        rows = left.pop((picture.label, picture.group), [])
        if rows and picture.frame is not None:
            warp = Warp.from_boxes(Boxes(persons.boxes[rows]), writer.spec)
            patches = cut_patches(picture.frame.image, warp, writer.spec)
            for row, patch in zip(rows, patches, strict=True):
                writer.put(row, patch)
        progress(min(done, total), total)
    if left:
        raise DataError(
            f"{next(iter(left))[0]}: was there when persons were looked for and is not any more; "
            "leave the pictures alone while posekit adapts"
        )


def _rows_by_picture(persons: Persons) -> dict[tuple[str, int], list[int]]:
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


def remap(taught: PseudoLabels, theirs: Persons, ours: Persons, *, path: Path) -> PseudoLabels:
    """What a foreign teacher says of the persons `theirs`, in the cells and keypoints of `ours`.

    Maps are read where the student's cells lie in the teacher's crop. Keypoints that it does not
    have are not `known`: empty maps, scores of 0 and points of NaN.  path: for the maps (`.npy`).
    Raises InputError, SourceError.
    """
    spec = ours.spec
    from_theirs, to_ours = by_name(theirs.spec.skeleton, spec.skeleton)
    width, height = spec.heatmap_size
    size = (len(ours), len(spec.skeleton), height, width)
    maps = np.zeros(size, np.float16)
    points = np.full((*size[:2], 2), np.nan, np.float32)
    scores = np.zeros(size[:2], np.float32)
    for start in range(0, len(ours), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(ours)))
        told = torch.from_numpy(np.asarray(taught.maps[rows][:, from_theirs], np.float32))
        seen = warps.sample_maps(told, _cells(theirs, ours, rows))[0].clamp_min(0).numpy()
        maps[rows[:, None], to_ours[None]] = seen
        points[rows[:, None], to_ours[None]], scores[rows[:, None], to_ours[None]] = _decoded(
            seen, to_ours, spec
        )
    known: NDArray[np.bool_] = np.zeros(size[1], np.bool_)
    known[to_ours] = True
    return PseudoLabels(save_maps(path, maps), points, scores, known)


def _decoded(seen: Float32, columns: Int64, spec: ModelSpec) -> tuple[Float32, Float32]:
    """Points (n, S, 2) and scores (n, S) of the maps of some keypoints."""
    whole = np.zeros((len(seen), len(spec.skeleton), *seen.shape[2:]), np.float32)
    whole[:, columns] = seen
    points, scores = codecs.decode(whole, spec)
    return points[:, columns], scores[:, columns]


def _cells(theirs: Persons, ours: Persons, rows: Int64) -> Float64:
    """Where the student's cells lie in the teacher's maps, (n, h, w, 2) in its cells."""
    spec, other = ours.spec, theirs.spec
    width, height = spec.heatmap_size
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    crop = np.stack([x, y], 1) * spec.map_scale + spec.map_offset
    boxes = Boxes(ours.boxes[rows])
    there = warps.relative_warp(*(Warp.from_boxes(boxes, each).matrix for each in (spec, other)))
    moved = crop @ there[:, :, :2].transpose(0, 2, 1) + there[:, None, :, 2]
    cells: Float64 = (moved - other.map_offset) / other.map_scale
    return cells.reshape(-1, height, width, 2)
