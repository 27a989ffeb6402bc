"""The frozen teacher: maps of many views of each person, averaged once before training."""

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
from posekit.tta import TtaRuntime
from posekit.types import Float32, Int64, UInt8
from posekit_finetune.data.persons import Persons

_BLOCK = 2
"""Persons at a time: with 8 views 16 crops, more gain nothing."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What a frozen network says of N persons in their canonical crops.

    maps: float16 (N, K, h, w), often a memmap.  points: float32 (N, K, 2) crop px.
    scores: (N, K), the peaks.  known: bool (K,), keypoints that the network has; None: all. Of the
    others maps and scores are 0 and points NaN.
    turned: (N, K, 2), what the turned views alone say, NaN of who was not asked; or None.
    """

    maps: NDArray[np.float16]
    points: Float32
    scores: Float32
    known: NDArray[np.bool_] | None = None
    turned: Float32 | None = None

    def peak(self, rows: Int64) -> float:
        """Mean height of the known keypoints' peaks on these persons."""
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
    """A bundle's answer on every person, in `views` views (1, 2, 4, 8 or 16).

    path: where the maps are kept (`.npy`); found there they are read, not made. 78 kB a person
    for 17 maps of 48 x 48.  Raises BundleError, InputError, SourceError.
    """
    spec = persons.spec
    runtime = TtaRuntime(bundle, views=views, device="cpu", threads=threads)
    size = (len(persons), len(spec.skeleton), *spec.heatmap_size[::-1])
    if path is not None and path.exists():
        maps: NDArray[np.float16] = np.load(path, mmap_mode="r")
        if maps.shape == size:
            return PseudoLabels(maps, *_decoded(maps, bundle))
    made = np.empty(size, np.float16)
    for start in range(0, len(persons), _BLOCK):
        made[start : start + _BLOCK] = _seen(runtime, persons, start)
        progress(min(start + _BLOCK, len(persons)), len(persons))
    if path is not None:
        made = save_maps(path, made)
    return PseudoLabels(made, *_decoded(made, bundle))


def with_turned(
    taught: PseudoLabels,
    persons: Persons,
    held: Int64,
    *,
    bundle: Bundle,
    threads: int | None = None,
) -> PseudoLabels:
    """What the bundle's turned views alone say of the held-out persons, put beside the rest.

    Raises BundleError.
    """
    seen = predict_pseudo_labels(persons.select(held), bundle, views=14, threads=threads)
    turned = np.full(taught.points.shape, np.nan, np.float32)
    turned[held] = seen.points
    return replace(taught, turned=turned)


def _seen(runtime: TtaRuntime, persons: Persons, start: int) -> Float32:
    """Maps of one block of persons; views are cut from their patches."""
    back = np.eye(2, 3)[None].repeat(1, 0)
    back[:, :, 2] = -np.array(persons.offset)
    patches: UInt8 = persons.patches[np.arange(start, min(start + _BLOCK, len(persons)))]
    crops = [runtime.crop(patch, Warp(back)) for patch in patches]
    return runtime.maps(np.concatenate(crops))


def _decoded(maps: NDArray[np.float16], bundle: Bundle) -> tuple[Float32, Float32]:
    blocks = [
        codecs.decode(np.asarray(maps[start : start + 256], np.float32), bundle.pose_spec)
        for start in range(0, len(maps), 256)
    ]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def save_maps(path: Path, maps: NDArray[np.float16]) -> NDArray[np.float16]:
    """Write maps as `.npy`, whole or not at all; returns them as they lie there.

    Raises SourceError.
    """
    with AtomicFile(path, "wb") as output, explained(path):
        header = np.lib.format.header_data_from_array_1_0(maps)
        np.lib.format.write_array_header_1_0(output.file, header)
        output.file.write(maps.data)  # np.save would not say of a full disk that it is full
    kept: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return kept
