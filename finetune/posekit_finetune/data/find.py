"""Unlabeled images and videos in, persons out: detected, deduplicated, cropped and stored."""

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
from posekit.detect import MAX_BOXES, BoxFile, Detector, full_frame
from posekit.errors import DataError, InputError
from posekit.geometry import Warp, box_iou
from posekit.types import Boxes, Frame, Int64, ModelSpec, UInt8
from posekit.video.timeline import listed
from posekit_finetune.data import patch_store
from posekit_finetune.data.duplicates import DuplicateFilter, thumbnail
from posekit_finetune.data.persons import FindCounts, Persons, cut_patches
from posekit_finetune.data.pictures import MediaFiles, MediaFrame, media_files
from posekit_finetune.data.shuffled_tiles import TileDetector

MIN_PERSONS = 50
"""With fewer persons, adaptation would overfit to them instead of learning their domain."""

_LINK_S = 0.5
"""Frames further apart are not linked: another person may stand there."""

_LINK_IOU = 0.4
"""Least overlap of two boxes of one person in consecutive frames."""

_SHOWN_NOTES = 3  # in an error

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FindOptions:
    """Which persons of the unlabeled images and videos are used.

    boxes: a detector (embedded name, `.posekit`, `.onnx`), "full" for one person per image, or a
        file of boxes (`.json`, `.jsonl`).
    limit: maximum number of persons; of more, a uniform sample by `seed`.
    category, max_boxes: of a file of boxes, see `BoxFile`.
    device, threads: of the detector.
    min_side_px: detected boxes whose longer side is smaller are excluded.
    least_share: also those smaller than this share of the largest in their image: of 250 LSPET
        photos 558 of 1,011 boxes, spectators behind the athletes.
    """

    boxes: str | Path = "nanodet-person"
    limit: int = 2000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    min_side_px: float = 40.0
    least_share: float = 0.5
    category: str | None = None
    max_boxes: int = MAX_BOXES

    def __post_init__(self) -> None:
        if self.limit < MIN_PERSONS:
            raise InputError(f"limit {self.limit}: wanted at least {MIN_PERSONS} persons")
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

    They are stored in a folder of `work` and loaded from there when files and options are the same.
    progress: called with the frames searched so far and in total.
    Raises DataError (fewer than 50 persons, none found, all blank, shuffled tiles), SourceError,
    InputError.
    """
    if not paths:
        raise InputError("unlabeled images: wanted at least one file, folder or pattern, got none")
    media = media_files(paths)
    fields = _cache_fields(options)
    if names := media.nested_names:
        fields["names"] = names
    key = patch_store.cache_key(fields, media.files, spec)
    folder = Path(work) / f"persons-{key}"
    if not folder.is_dir():
        count = min(options.limit, media.frame_count(options.limit))
        patch_store.check_disk_space(Path(work), count, spec)
        with AtomicFolder(folder) as output:
            _collect(media, spec, options, into=output.folder, progress=progress)
    return patch_store.load(folder, spec)[0]


def _cache_fields(options: FindOptions) -> dict[str, Any]:
    """The options that decide which persons are found; a file of boxes or weights by its hash."""
    fields: dict[str, Any] = dataclasses.asdict(options)
    del fields["device"], fields["threads"], fields["max_boxes"]
    if options.category is None:
        del fields["category"]
    if options.kind != "full":
        path = Path(options.boxes)
        path = path if path.suffix in (".json", ".jsonl", ".onnx") else bundle.find(options.boxes)
        if not path.is_file():
            raise InputError(f"boxes {options.boxes}: no such file")
        fields["boxes"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return fields


def _collect(
    media: MediaFiles,
    spec: ModelSpec,
    options: FindOptions,
    *,
    into: Path,
    progress: Progress | None,
) -> None:
    """Search all frames and write the persons into a folder. Raises DataError."""
    detect, detect_in_image = _box_finders(options, media)
    collector = PersonCollector(spec, options, into)
    total, unread = media.frame_count(options.limit), list[str]()
    try:
        for done, each in enumerate(media.frames(options.limit, options.seed), start=1):
            if each.frame is not None:
                boxes = (detect_in_image if each.clip < 0 else detect)(each.frame)
                collector.add(each, each.frame, boxes)
            else:
                collector.count(pictures=1, unreadable=1)
                unread.append(each.label)
            if progress is not None:
                progress(min(done, total), total)
    finally:
        collector.writer.close()
    order, counts = collector.result()
    if (grid := collector.tiles.grid) is not None:
        raise DataError(
            f"{media.files[0].parent}: most images are {grid} x {grid} tiles in a wrong order; "
            "wanted images as a camera takes them"
        )
    notes = [*media.notes, *getattr(detect, "notes", ())]
    if unread:
        notes.append(f"{len(unread)} images cannot be read and are left out: {listed(unread)}")
    _check_counts(counts, len(order), media.files[0].parent, notes=notes)
    patch_store.save(into, collector.rows, order, counts=counts, notes=notes)


def _box_finders(
    options: FindOptions, media: MediaFiles
) -> tuple[Callable[[Frame], Boxes], Callable[[Frame], Boxes]]:
    """Finds the boxes in a video frame, and in an image."""
    if options.kind == "full":
        return full_frame, full_frame
    if options.kind == "file":
        boxes = BoxFile(options.boxes, category=options.category, max_boxes=options.max_boxes)
        boxes.check_sources(media.sources)
        return boxes, boxes
    detector = Detector(options.boxes, device=options.device, threads=options.threads)
    return detector, functools.partial(detector, fallback=True)


@dataclass(eq=False)
class PersonCollector:
    """Collects persons frame by frame, see `add`.

    rows: one for each patch in the file.  writer: of that file.  tiles: detects shuffled tiles.
    """

    spec: ModelSpec
    options: FindOptions
    folder: Path
    rows: list[patch_store.Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = patch_store.PatchWriter(self.folder, self.spec)
        self.tiles = TileDetector()
        self._links = FrameLinks()
        self._duplicates = DuplicateFilter(self.options.limit)
        self._ordinals: list[int] = []  # of each row: its person's number among the distinct ones
        self._is_whole_image: list[bool] = []
        self._kept = self._image_count = 0
        self._random = np.random.default_rng(self.options.seed)
        self._counts: dict[str, int] = {}

    def count(self, **increments: int) -> None:
        """Add to the fields of FindCounts."""
        for name, number in increments.items():
            self._counts[name] = self._counts.get(name, 0) + number

    def add(self, media: MediaFrame, frame: Frame, boxes: Boxes) -> None:
        """Add the distinct persons of a frame."""
        whole = self.options.kind == "detector" and bool((boxes.scores == 0).all()) and len(boxes)
        self._image_count += media.clip < 0
        self.tiles.add(frame.image)
        self.count(pictures=1, **({"whole": 1} if whole else {"persons": len(boxes)}))
        if self.options.kind == "detector" and not whole:
            large = _large(boxes, self.options)
            self.count(small=len(boxes) - int(large.sum()))
            boxes = boxes.select(large)
        time_s = frame.time_s if media.clip >= 0 else math.nan
        tracks = self._links(media.clip, time_s, boxes)
        patches = cut_patches(frame.image, Warp.from_boxes(boxes, self.spec), self.spec)
        for n, patch in enumerate(patches):
            box = tuple(boxes.xyxy[n].tolist())
            row = patch_store.Row(box, media.label, media.group, time_s, int(tracks[n]))
            self._add_person(patch, row, whole=bool(whole))

    def _add_person(self, patch: UInt8, row: patch_store.Row, *, whole: bool) -> None:
        """Keep a person unless it is blank or a duplicate; over the limit it replaces a random one.

        Source: reservoir sampling, Vitter 1985: equal probability for each person, in one pass.
        """
        width, height = self.spec.input_size
        x, y = (patch.shape[1] - width) // 2, (patch.shape[0] - height) // 2
        cells = thumbnail(patch[y : y + height, x : x + width])
        if not cells.any():
            self.count(blank=1)
            return
        if self._duplicates.is_duplicate(cells):
            self.count(duplicates=1)
            return
        ordinal, self._kept = self._kept, self._kept + 1
        place = ordinal
        if ordinal >= self.options.limit:
            self.count(surplus=1)
            place = int(self._random.integers(0, ordinal + 1))
            if place >= self.options.limit:
                return
        self.rows[place : place + 1] = [row]
        self._ordinals[place : place + 1] = [ordinal]
        self._is_whole_image[place : place + 1] = [whole]
        self.writer.write(place, patch)
        self._duplicates.store(place, cells)

    def result(self) -> tuple[list[int], FindCounts]:
        """Indices of the rows in the order of their frames, and the counts.

        Whole images count only where a person was detected in most images: otherwise they are
        likely to show landscapes.
        """
        counts = FindCounts(**self._counts)
        drop_whole = counts.whole > self._image_count / 2
        order = sorted(range(len(self.rows)), key=self._ordinals.__getitem__)
        return [row for row in order if not (drop_whole and self._is_whole_image[row])], counts


def _large(boxes: Boxes, options: FindOptions) -> Any:
    """Which boxes are large enough, in px and relative to the largest of the frame, bool (N,)."""
    sides = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).max(1, initial=0.0)
    minimum = max(options.min_side_px, options.least_share * float(sides.max(initial=0.0)))
    return sides >= minimum


class FrameLinks:
    """Track numbers of persons, linked over the sampled frames of a clip by overlap alone."""

    def __init__(self) -> None:
        self._clip, self._time_s = -1, -math.inf
        self._boxes = Boxes(np.zeros((0, 4), np.float32))
        self._tracks = np.zeros(0, np.int64)
        self._next = 0

    def __call__(self, clip: int, time_s: float, boxes: Boxes) -> Int64:
        """Track number of each box, continued from the previous frame if linked; -1 in images."""
        if clip < 0:
            return np.full(len(boxes), -1, np.int64)
        tracks = np.full(len(boxes), -1, np.int64)
        if clip == self._clip and 0 < time_s - self._time_s <= _LINK_S:
            iou = box_iou(self._boxes, boxes)
            while iou.max(initial=0.0) >= _LINK_IOU:  # greedily, the best pair first
                old, new = np.unravel_index(int(iou.argmax()), iou.shape)
                tracks[new] = self._tracks[old]
                iou[old], iou[:, new] = 0, 0
        unlinked = np.flatnonzero(tracks < 0)
        tracks[unlinked] = self._next + np.arange(len(unlinked))
        self._next += len(unlinked)
        self._clip, self._time_s, self._boxes, self._tracks = clip, time_s, boxes, tracks
        return tracks


def _check_counts(counts: FindCounts, kept: int, where: Path, *, notes: Sequence[str]) -> None:
    """Raise DataError where too few persons were found, with the notes on what was left out."""
    if kept >= MIN_PERSONS:
        return
    error = DataError(_shortage(counts, kept, where))
    for note in notes[:_SHOWN_NOTES]:
        error.add_note(note)
    raise error


def _shortage(counts: FindCounts, kept: int, where: Path) -> str:
    """The sentence."""
    images = f"{where}: {counts.pictures} images"
    if counts.pictures and counts.unreadable == counts.pictures:
        return f"{images}, none can be read; they are damaged or not images"
    if counts.persons == 0 and counts.whole > counts.blank:
        return (
            f"{images}, no person detected; if there are persons, pass their boxes (--boxes FILE), "
            "or --boxes full where each image shows one"
        )
    return (
        f"{images}: {counts.persons} persons and {counts.whole} images without a detection; "
        f"{counts.duplicates} near-duplicates, {counts.blank} blank, {counts.small} too small; "
        f"{kept} distinct persons are left, wanted at least {MIN_PERSONS}; add images that differ"
    )
