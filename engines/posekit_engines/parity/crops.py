"""The check crops that an export is compared on: the user's, or embedded ones with hard cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from posekit import bundle
from posekit.bundle import Bundle
from posekit.detect import Detector
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.types import Boxes, Frame, ModelSpec, UInt8
from posekit.video import ReadOptions, expand, is_live, read

MAX_CROPS = 16
MIN_CROPS = 8
_PER_FRAME = 4  # people of one frame at most, so that more frames are used
_Edit = Callable[[UInt8], UInt8]


@dataclass(frozen=True, eq=False)
class CheckCrops:
    """Crops to compare an export on.

    crops: uint8 (N, H, W, 3) RGB.  warp: N matrices, frame px to crop px.  names: N.
    where: their source, for the report.
    """

    crops: UInt8
    warp: Warp
    names: tuple[str, ...]
    where: str

    def __len__(self) -> int:
        return len(self.crops)

    def first(self, count: int) -> Self:
        """The first `count`, at least one."""
        count = max(1, count)
        warp = Warp(self.warp.matrix[:count])
        return type(self)(self.crops[:count], warp, self.names[:count], self.where)

    def without(self, others: Self) -> Self:
        """Those whose pixels differ from all of `others`; may be none."""
        excluded = {crop.tobytes() for crop in others.crops}
        rows = [n for n, crop in enumerate(self.crops) if crop.tobytes() not in excluded]
        names = tuple(self.names[n] for n in rows)
        return type(self)(self.crops[rows], Warp(self.warp.matrix[rows]), names, self.where)


def load_check_crops(
    source: str | Path | None, spec: ModelSpec, *, count: int = MAX_CROPS
) -> CheckCrops:
    """Up to `count` crops of a folder, image or video; the embedded ones for None.

    People are found by the embedded detector; where it finds none, the crop is the whole image.
    Raises InputError (live source, nothing found), SourceError.
    """
    if source is None:
        return embedded_crops(spec).first(count)
    if is_live(source):
        raise InputError(f"{source}: wanted a folder, images or a video, not a live source")
    people = list(_people(str(source), spec, count))
    crops, matrices, names = zip(*people, strict=True)
    return CheckCrops(np.stack(crops), Warp(np.stack(matrices)), names, str(source)).first(count)


def _people(source: str, spec: ModelSpec, count: int) -> Iterator[tuple[UInt8, UInt8, str]]:
    """(crop, matrix, name) of people in frames spread over the source, until `count` are found."""
    detector = Detector("nanodet-person", device="cpu")
    found = 0
    for frame in _spread(source, count):
        boxes = detector(frame, fallback=True)
        boxes = boxes.select(np.arange(min(len(boxes), _PER_FRAME)))
        warp = Warp.from_boxes(boxes, spec)
        for n, matrix in enumerate(warp.matrix):
            name = f"{frame.name or f'frame {frame.index}'}, person {n + 1}"
            yield warp_image(frame.image, matrix, spec), matrix, name
        found += len(boxes)
        if found >= count:
            return


def _spread(source: str, count: int) -> Iterator[Frame]:
    """About `count` frames, evenly spaced over each video or folder of `source`."""
    for one in expand([source]):
        with read(one) as reader:
            total = reader.frame_count or count
        with read(one, options=ReadOptions(every=max(1, total // count))) as reader:
            yield from reader


def warp_image(image: UInt8, matrix: UInt8, spec: ModelSpec) -> UInt8:
    """A crop uint8 (H, W, 3), black beyond the image, sampled as the plain runtime does.

    matrix: (2, 3), image px to crop px.
    """
    crop = cv2.warpAffine(image, matrix, spec.input_size, flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


def embedded_crops(spec: ModelSpec) -> CheckCrops:
    """16 crops of the embedded MoveNet's check images (256 px a side: the frames here).

    The first 8 have every kind: people, truncated, half outside, saturated, flat, noise.
    """
    images = Bundle.open(bundle.find("movenet-thunder")).reference["crops"]
    crops, matrices, names = [], [], []
    for name, index, edit, zoom, offset in _CASES:
        matrix = Warp.from_boxes(_box(zoom, offset, spec), spec).matrix[0]
        crops.append(warp_image(edit(images[index]), matrix, spec))
        matrices.append(matrix)
        names.append(f"{name} {index + 1}")
    return CheckCrops(np.stack(crops), Warp(np.stack(matrices)), tuple(names), "embedded")


def _box(zoom: float, offset: float, spec: ModelSpec) -> Boxes:
    """The box whose crop is as high as the image, over `zoom`; moved right by a share of 256 px."""
    height = 256 / spec.padding / zoom
    width = height * spec.input_size[0] / spec.input_size[1]
    x, y = 127.5 + 256 * offset, 127.5
    return Boxes(np.array([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]]))


def _unchanged(image: UInt8) -> UInt8:
    return image


def _mirrored(image: UInt8) -> UInt8:
    return np.ascontiguousarray(image[:, ::-1])


def _saturated(image: UInt8) -> UInt8:
    return np.clip(image.astype(np.int32) * 3, 0, 255).astype(np.uint8)


def _dark(image: UInt8) -> UInt8:
    return image // 5


def _blurred(image: UInt8) -> UInt8:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)


def _flat(image: UInt8) -> UInt8:
    return np.full_like(image, 128)


def _white(image: UInt8) -> UInt8:
    return np.full_like(image, 255)


def _noise(image: UInt8) -> UInt8:
    return np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)


_CASES: tuple[tuple[str, int, _Edit, float, float], ...] = (
    ("person", 0, _unchanged, 1, 0),
    ("person", 1, _unchanged, 1, 0),
    ("person", 2, _unchanged, 1, 0),
    ("cut by the border", 0, _unchanged, 1.5, 0),
    ("half outside", 1, _unchanged, 1, 0.3),
    ("saturated", 2, _saturated, 1, 0),
    ("flat", 0, _flat, 1, 0),
    ("noise", 0, _noise, 1, 0),
    ("mirrored", 0, _mirrored, 1, 0),
    ("mirrored", 1, _mirrored, 1, 0),
    ("dark", 2, _dark, 1, 0),
    ("cut by the border", 1, _unchanged, 1.5, 0.1),
    ("half outside", 2, _unchanged, 1, -0.25),
    ("small", 0, _unchanged, 0.6, 0),
    ("white", 0, _white, 1, 0),
    ("blurred", 1, _blurred, 1, 0),
)


def reference_crops(spec: ModelSpec) -> UInt8:
    """The embedded MoveNet's check crops, uint8 (N, H, W, 3) RGB, cut to this input's size."""
    crops = Bundle.open(bundle.find("movenet-thunder")).reference["crops"]
    width, height = spec.input_size
    side = crops.shape[1]
    center = side // 2
    across = min(side, round(side * width / height)) // 2
    down = min(side, round(side * height / width)) // 2
    parts = crops[:, center - down : center + down, center - across : center + across]
    return np.stack([cv2.resize(part, (width, height)) for part in parts]).astype(np.uint8)
