"""Unlabelled pictures in, persons out: found, looked through for repeats, cut, kept on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posekit import bundle
from posekit.atomic import AtomicFolder
from posekit.detect import BoxFile, Detector, full_frame
from posekit.errors import DataError, InputError
from posekit.geometry import Warp, box_iou
from posekit.types import Boxes, Frame, Int64, ModelSpec, UInt8
from posekit_finetune.data import patch_store
from posekit_finetune.data.duplicates import DuplicateFilter, thumbnail
from posekit_finetune.data.persons import Found, Persons, cut_patches
from posekit_finetune.data.pictures import MediaFiles, Picture, media_files
from posekit_finetune.data.shuffled_tiles import TileDetector

LEAST_PERSONS = 50
"""With fewer, adaptation would learn these persons and not their domain."""

_LINK_S = 0.5
"""Frames further apart are not linked: a person may have become another."""

_LINK_IOU = 0.4
"""Boxes of two frames that overlap less are two persons."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FindOptions:
    """Which persons of the pictures are learned from.

    boxes: a detector (embedded name, `.posekit`, `.onnx`), "full" for one person a picture, or a
        file of boxes (`.json`, `.jsonl`).
    limit: most persons; of more, an even choice by `seed`.  device, threads: the detector's.
    min_side_px: detected boxes whose longer side is smaller are left out.
    least_share: and those smaller than this share of the largest in their picture: of 250 LSPET
        photos 558 of 1,011 boxes, spectators behind those who do the sport.
    """

    boxes: str | Path = "nanodet-person"
    limit: int = 2000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    min_side_px: float = 40.0
    least_share: float = 0.5

    def __post_init__(self) -> None:
        if self.limit < LEAST_PERSONS:
            raise InputError(f"limit {self.limit}: wanted at least {LEAST_PERSONS} persons")
        if self.min_side_px < 0 or not 0 <= self.least_share <= 1:
            raise InputError(
                f"min_side_px {self.min_side_px}, least_share {self.least_share}: wanted 0 or "
                "more, and 0 to 1"
            )

    @property
    def kind(self) -> str:
        """full, file or detector."""
        if str(self.boxes) == "full":
            return "full"
        return "file" if Path(self.boxes).suffix in (".json", ".jsonl") else "detector"


def find_persons(
    paths: Sequence[str | Path],
    spec: ModelSpec,
    options: FindOptions = FindOptions(),
    *,
    work: str | Path,
    progress: Progress | None = None,
) -> Persons:
    """The persons of images, folders, patterns and videos, without near-duplicates.

    They are kept in a folder of `work`, and found there at once when files and options are the
    same. progress: called with pictures done and pictures in all.
    Raises DataError (fewer than 50 persons, nobody, all blank, cut into tiles), SourceError,
    InputError.
    """
    if not paths:
        raise InputError("unlabelled pictures: wanted at least one file, folder or pattern")
    found = media_files(paths)
    if options.kind == "file" and len(found.clips) > 1:
        raise InputError(
            f"{options.boxes}: a box file tells of one video, and there are {len(found.clips)}; "
            "pass one video, or a detector"
        )
    key = patch_store.key_of(_told(options), found.files, spec)
    folder = Path(work) / f"persons-{key}"
    if not folder.is_dir():
        patch_store.check_room(Path(work), min(options.limit, found.count(options.limit)), spec)
        with AtomicFolder(folder) as output:
            _gather(found, spec, options, into=output.folder, progress=progress)
    return patch_store.load(folder, spec)[0]


def _told(options: FindOptions) -> dict[str, Any]:
    """The options that decide which persons are found; files by their content."""
    told: dict[str, Any] = dataclasses.asdict(options)
    del told["device"], told["threads"]
    if options.kind != "full":
        path = Path(options.boxes)
        path = path if path.suffix in (".json", ".jsonl", ".onnx") else bundle.find(options.boxes)
        if not path.is_file():
            raise InputError(f"boxes {options.boxes}: no such file")
        told["boxes"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return told


def _gather(
    found: MediaFiles,
    spec: ModelSpec,
    options: FindOptions,
    *,
    into: Path,
    progress: Progress | None,
) -> None:
    """Look through all pictures and write the persons into a folder. Raises DataError."""
    find, find_still = _finders(options)
    gathering = PersonCollector(spec, options, into)
    total = found.count(options.limit)
    try:
        for done, picture in enumerate(found.pictures(options.limit, options.seed), start=1):
            if picture.frame is not None:
                boxes = (find_still if picture.clip < 0 else find)(picture.frame)
                gathering.look(picture, picture.frame, boxes)
            else:
                gathering.count(pictures=1, unreadable=1)
            if progress is not None:
                progress(min(done, total), total)
    finally:
        gathering.writer.close()
    order, counts = gathering.result()
    if gathering.tiles.cut is not None:
        raise DataError(
            f"{found.files[0].parent}: most pictures are tiles in a wrong order, "
            f"{gathering.tiles.cut} each way; wanted pictures as a camera takes them"
        )
    _check(counts, len(order), found.files[0].parent)
    patch_store.save(into, gathering.rows, order, found=counts)


def _finders(options: FindOptions) -> tuple[Callable[[Frame], Boxes], Callable[[Frame], Boxes]]:
    """What finds the persons of a frame of video, and of an image."""
    if options.kind == "full":
        return full_frame, full_frame
    if options.kind == "file":
        boxes = BoxFile(options.boxes)
        return boxes, boxes
    detector = Detector(options.boxes, device=options.device, threads=options.threads)
    return detector, functools.partial(detector, fallback=True)


@dataclass(eq=False)
class PersonCollector:
    """Persons as they come, picture by picture; see `look`.

    rows: what the table says of each patch in the file.  writer: that file.  tiles: whether the
    pictures are whole.
    """

    spec: ModelSpec
    options: FindOptions
    folder: Path
    rows: list[patch_store.Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = patch_store.PatchWriter(self.folder, self.spec)
        self._links = Links()
        self._distinct = DuplicateFilter(self.options.limit)
        self.tiles = TileDetector()
        self._numbers: list[int] = []  # of each row: the how-manieth distinct person it was
        self._whole: list[bool] = []
        self._kept = self._stills = 0
        self._random = np.random.default_rng(self.options.seed)
        self._counts: dict[str, int] = {}

    def count(self, **more: int) -> None:
        """Add to the counts of Found."""
        for name, number in more.items():
            self._counts[name] = self._counts.get(name, 0) + number

    def look(self, picture: Picture, frame: Frame, boxes: Boxes) -> None:
        """Take the distinct persons of a picture."""
        whole = self.options.kind == "detector" and bool((boxes.scores == 0).all()) and len(boxes)
        self._stills += picture.clip < 0
        self.tiles.look(frame.image)
        self.count(pictures=1, **({"whole": 1} if whole else {"persons": len(boxes)}))
        if self.options.kind == "detector" and not whole:
            large = _large(boxes, self.options)
            self.count(small=len(boxes) - int(large.sum()))
            boxes = boxes.select(large)
        time_s = frame.time_s if picture.clip >= 0 else math.nan
        tracks = self._links(picture.clip, time_s, boxes)
        patches = cut_patches(frame.image, Warp.from_boxes(boxes, self.spec), self.spec)
        for n, patch in enumerate(patches):
            box = tuple(boxes.xyxy[n].tolist())
            row = patch_store.Row(box, picture.label, picture.group, time_s, int(tracks[n]))
            self._take(patch, row, whole=bool(whole))

    def _take(self, patch: UInt8, row: patch_store.Row, *, whole: bool) -> None:
        """Keep a person unless it is blank or known; over the limit, in place of a random one.

        Source: reservoir sampling, Vitter 1985: each has the same chance, in one pass.
        """
        width, height = self.spec.input_size
        x, y = (patch.shape[1] - width) // 2, (patch.shape[0] - height) // 2
        look = thumbnail(patch[y : y + height, x : x + width])
        if not look.any():
            self.count(blank=1)
            return
        if self._distinct.is_near(look):
            self.count(duplicates=1)
            return
        number, self._kept = self._kept, self._kept + 1
        place = number
        if number >= self.options.limit:
            self.count(surplus=1)
            place = int(self._random.integers(0, number + 1))
            if place >= self.options.limit:
                return
        self.rows[place : place + 1] = [row]
        self._numbers[place : place + 1] = [number]
        self._whole[place : place + 1] = [whole]
        self.writer.put(place, patch)
        self._distinct.put(place, look)

    def result(self) -> tuple[list[int], Found]:
        """Rows in the order of their pictures, and the counts.

        Whole pictures count only where somebody was found in most: else they are landscapes.
        """
        found = Found(**self._counts)
        few = found.whole > self._stills / 2
        order = sorted(range(len(self.rows)), key=self._numbers.__getitem__)
        return [row for row in order if not (few and self._whole[row])], found


def _large(boxes: Boxes, options: FindOptions) -> Any:
    """Which boxes are large enough, alone and beside the largest of the picture, bool (N,)."""
    sides = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).max(1, initial=0.0)
    least = max(options.min_side_px, options.least_share * float(sides.max(initial=0.0)))
    return sides >= least


class Links:
    """Numbers for persons that are followed over the frames of a clip, by overlap alone."""

    def __init__(self) -> None:
        self._clip, self._time_s = -1, -math.inf
        self._boxes = Boxes(np.zeros((0, 4), np.float32))
        self._tracks = np.zeros(0, np.int64)
        self._next = 0

    def __call__(self, clip: int, time_s: float, boxes: Boxes) -> Int64:
        """A number for each box, that of the box it continues where there is one; -1 in images."""
        if clip < 0:
            return np.full(len(boxes), -1, np.int64)
        tracks = np.full(len(boxes), -1, np.int64)
        if clip == self._clip and 0 < time_s - self._time_s <= _LINK_S:
            likeness = box_iou(self._boxes, boxes)
            while likeness.max(initial=0.0) >= _LINK_IOU:  # the best pair first
                old, new = np.unravel_index(int(likeness.argmax()), likeness.shape)
                tracks[new] = self._tracks[old]
                likeness[old], likeness[:, new] = 0, 0
        fresh = np.flatnonzero(tracks < 0)
        tracks[fresh] = self._next + np.arange(len(fresh))
        self._next += len(fresh)
        self._clip, self._time_s, self._boxes, self._tracks = clip, time_s, boxes, tracks
        return tracks


def _check(found: Found, kept: int, where: Path) -> None:
    """Raise DataError where there is too little to learn from."""
    if kept >= LEAST_PERSONS:
        return
    pictures = f"{where}: {found.pictures} pictures"
    if found.pictures and found.unreadable == found.pictures:
        raise DataError(f"{pictures}, and none can be read; they are damaged or no images")
    if found.persons == 0 and found.whole > found.blank:
        raise DataError(
            f"{pictures} and nobody found in them; if there are persons, give their boxes (--boxes "
            "FILE), or --boxes full where each picture shows one"
        )
    raise DataError(
        f"{pictures}: {found.persons} persons and {found.whole} pictures with nobody found; "
        f"{found.duplicates} are near-duplicates, {found.blank} blank, {found.small} too small; "
        f"{kept} distinct persons are left and at least {LEAST_PERSONS} are wanted; add pictures "
        "that differ"
    )
