"""The frozen teacher: test-time augmentation of each person, computed once before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.atomic import AtomicFile, explained
from posekit.bundle import Bundle
from posekit.geometry import Warp
from posekit.inference.tta import TtaRuntime
from posekit.types import Float32, Int64, UInt8
from posekit_finetune.data.persons import Persons

_BLOCK = 2
"""Persons per block: 16 crops with 8 views; larger blocks are no faster."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """A frozen network's predictions for N persons in their canonical crops.

    maps: float16 (N, K, h, w), often a memmap.  points: float32 (N, K, 2) crop px.
    scores: (N, K), peak heights.  known: bool (K,), keypoints that the network has, None: all; for
    the others maps and scores are 0 and points NaN.
    rotated: (N, K, 2), points of the rotated views alone, NaN where not predicted; or None.
    """

    maps: NDArray[np.float16]
    points: Float32
    scores: Float32
    known: NDArray[np.bool_] | None = None
    rotated: Float32 | None = None

    def mean_peak(self, rows: Int64) -> float:
        """Mean peak height of the known keypoints of these persons."""
        scores = self.scores[rows]
        return float((scores if self.known is None else scores[:, self.known]).mean())


def predict_pseudo_labels(
    persons: Persons,
    bundle: Bundle,
    *,
    views: int,
    threads: int | None = None,
    path: Path | None = None,
    progress: Progress = lambda _done, _all: None,
) -> PseudoLabels:
    """A bundle's predictions for every person, from `views` views (1, 2, 4, 8, 14 or 16).

    path: stores the maps (`.npy`), or loads them if it exists; 78 kB per person for 17 maps of
    48 x 48.  Raises BundleError, InputError, SourceError.
    """
    spec = persons.spec
    runtime = TtaRuntime(bundle, views=views, device="cpu", threads=threads)
    size = (len(persons), len(spec.skeleton), *spec.heatmap_size[::-1])
    if path is not None and path.exists():
        stored: NDArray[np.float16] = np.load(path, mmap_mode="r")
        if stored.shape == size:
            return PseudoLabels(stored, *_decode(stored, bundle))
    maps = np.empty(size, np.float16)
    for start in range(0, len(persons), _BLOCK):
        maps[start : start + _BLOCK] = _block_maps(runtime, persons, start)
        progress(min(start + _BLOCK, len(persons)), len(persons))
    if path is not None:
        maps = save_maps(path, maps)
    return PseudoLabels(maps, *_decode(maps, bundle))


def with_rotated_views(
    labels: PseudoLabels,
    persons: Persons,
    held: Int64,
    *,
    bundle: Bundle,
    threads: int | None = None,
    progress: Progress = lambda _done, _all: None,
) -> PseudoLabels:
    """Pseudo-labels with the points of the bundle's rotated views alone, of the held-out persons.

    Raises BundleError.
    """
    views = predict_pseudo_labels(
        persons.select(held), bundle, views=14, threads=threads, progress=progress
    )
    rotated = np.full(labels.points.shape, np.nan, np.float32)
    rotated[held] = views.points
    return replace(labels, rotated=rotated)


def _block_maps(runtime: TtaRuntime, persons: Persons, start: int) -> Float32:
    """Maps of one block of persons; their views are cropped from the patches."""
    to_crop = np.eye(2, 3)[None]
    to_crop[:, :, 2] = -np.array(persons.offset)
    patches: UInt8 = persons.patches[np.arange(start, min(start + _BLOCK, len(persons)))]
    crops = [runtime.crop(patch, Warp(to_crop)) for patch in patches]
    return runtime.maps(np.concatenate(crops))


def _decode(maps: NDArray[np.float16], bundle: Bundle) -> tuple[Float32, Float32]:
    blocks = [
        codecs.decode(np.asarray(maps[start : start + 256], np.float32), bundle.pose_spec)
        for start in range(0, len(maps), 256)
    ]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def save_maps(path: Path, maps: NDArray[np.float16]) -> NDArray[np.float16]:
    """Write maps as `.npy`, atomically; returns them as a memmap of the file.

    Not by `np.save` or `open_memmap`: on a full disk the one reports no reason, the other ends the
    process.  Raises SourceError.
    """
    with AtomicFile(path, "wb") as output, explained(path):
        header = np.lib.format.header_data_from_array_1_0(maps)
        np.lib.format.write_array_header_1_0(output.file, header)
        output.file.write(maps.data)
    stored: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return stored
