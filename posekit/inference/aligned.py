"""Self-aligned test-time augmentation: each person is viewed again, turned upright.

The first view is the crop as it is. The line from hips to shoulders in its prediction gives the
angle of the second, which is cut from the frame so that this line is vertical, and mirrored. Their
maps are averaged as in `tta`. A network is seldom wrong at the same places in both, so that two
views of this kind gain more than the flip test where people lean, lie or hang upside down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.geometry import Float64, Warp, compose
from posekit.inference.runtime import Runtime
from posekit.inference.tta import COUNTS, Reader, View, fuse, matrix_of, view_warps
from posekit.types import Float32, ModelSpec, Skeleton, UInt8

_FIRST = {"aligned": (View(),), "aligned-flip": (View(), View(mirrored=True))}
_MIRRORED = {"aligned": (True,), "aligned-flip": (False, True)}
"""Of the second views: whether each is mirrored."""
_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_VISIBLE = 0.1  # keypoints that score less say nothing about a person's extent


@dataclass(frozen=True, eq=False)
class AlignedCrops:
    """What `AlignedRuntime.crops` gives: the first views uint8 (N * V, h, w, 3), and what the
    second ones are cut from.
    """

    images: Sequence[UInt8]
    warps: Sequence[Warp]
    first: UInt8


class AlignedRuntime(Runtime):
    """A Runtime that views each person again at the angle that its own prediction gives.

    views: aligned, 2 views, or aligned-flip, 4: both with their mirror image. Takes that many times
    as long as the network. The bundle must contain the `maps` graph, and its skeleton shoulders and
    hips. Raises BundleError, DeviceError, InputError.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        views: str = "aligned",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        if views not in COUNTS:
            raise InputError(f"views {views!r}: wanted a number, or one of {', '.join(COUNTS)}")
        super().__init__(bundle, device=device, threads=threads, flip=True, graph="maps")
        self._torso = _torso(self.spec.skeleton)
        self._mirrored = _MIRRORED[views]
        first = _FIRST[views]
        self._matrices = np.stack([matrix_of(view, self.spec) for view in first])
        self._readers = [Reader.of(view, self.spec) for view in first]

    def crop(self, image: UInt8, warp: Warp) -> Any:
        """The persons of one image, for `infer`."""
        return self.crops([image], [warp])

    def crops(self, images: Sequence[UInt8], warps: Sequence[Warp]) -> Any:
        """The persons of several images, one warp each, as AlignedCrops."""
        return AlignedCrops(images, warps, self._cut(images, warps, self._matrices[None]))

    def infer(self, crops: AlignedCrops) -> tuple[Float32, Float32]:  # type: ignore[override]
        """Points float32 (N, K, 2), px of the upright crop, and scores (N, K).

        Raises InputError, EngineError.
        """
        return codecs.decode(self.maps(crops), self.spec)

    def maps(self, crops: AlignedCrops) -> Float32:
        """Averaged heatmaps (N, K, h, w) of the upright crop. Raises InputError, EngineError."""
        if len(crops.first) == 0:
            columns, rows = self.spec.heatmap_size
            return np.zeros((0, len(self.spec.skeleton), rows, columns), np.float32)
        first = self._run(crops.first, len(self._readers))
        points, scores = codecs.decode(first[:, 0], self.spec)
        turned = upright(points, scores, self.spec, torso=self._torso)
        mirror = matrix_of(View(mirrored=True), self.spec)
        chosen = [compose(mirror, turned) if each else turned for each in self._mirrored]
        cut = self._cut(crops.images, crops.warps, np.stack(chosen, 1))
        second = self._run(cut, len(chosen))
        readers = [
            Reader(matrix, self.spec, mirrored=each)
            for matrix, each in zip(chosen, self._mirrored, strict=True)
        ]
        return fuse(np.concatenate([first, second], 1), [*self._readers, *readers])

    def _run(self, crops: UInt8, views: int) -> Float32:
        """Maps (N, V, K, h, w) of crops of which those of a person are contiguous."""
        maps = self.run(crops)[0]
        return maps.reshape(-1, views, *maps.shape[1:])

    def _cut(self, images: Sequence[UInt8], warps: Sequence[Warp], matrices: Float64) -> UInt8:
        """Views of every person; matrices: (N or 1, V, 2, 3) from crop px to each view's px."""
        return super().crops(images, view_warps(warps, matrices))


def upright(
    points: Float32, scores: Float32, spec: ModelSpec, *, torso: NDArray[np.int64]
) -> Float64:
    """(N, 2, 3) from crop px to the px of a view in which the torso stands upright.

    points, scores: (N, K, 2), crop px, and (N, K).  torso: indices of both shoulders, both hips.
    The view is turned about the crop's center. Where the crop is not square, it is also enlarged
    as far as the person, turned, fits it better.
    """
    lean = np.nan_to_num(lean_of(points, torso))
    cos, sin = np.cos(lean), np.sin(lean)
    linear = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)
    width, height = spec.input_size
    if width != height:
        linear *= _enlargement(points, scores, linear, aspect=width / height)[:, None, None]
    center = (np.array([width, height]) - 1) / 2
    moved: Float64 = np.concatenate([linear, (center - linear @ center)[:, :, None]], 2)
    return moved


def lean_of(points: Float32, torso: NDArray[np.int64]) -> Float64:
    """Angle (N,) from straight up to the line from hips to shoulders, radians, clockwise on screen.

    points: (N, K, 2).  torso: indices of both shoulders, both hips.
    """
    ends = points[:, torso].astype(np.float64).reshape(len(points), 2, 2, 2).mean(2)
    line = ends[:, 0] - ends[:, 1]
    angle: Float64 = np.arctan2(line[:, 0], -line[:, 1])
    return angle


def _enlargement(points: Float32, scores: Float32, linear: Float64, *, aspect: float) -> Float64:
    """(N,), 1 or more: how much larger the turned person may be drawn in a crop of this aspect."""
    visible = (scores > _VISIBLE)[:, :, None]
    spans = []
    for each in (points, np.einsum("nij,nkj->nki", linear, points)):
        low, high = np.where(visible, each, np.inf).min(1), np.where(visible, each, -np.inf).max(1)
        size = np.maximum(high - low, 1.0)  # of a person without a visible keypoint, too
        spans.append(np.maximum(size[:, 0], size[:, 1] * aspect))
    ratio: Float64 = np.maximum(1.0, spans[0] / spans[1])
    return ratio


def _torso(skeleton: Skeleton) -> NDArray[np.int64]:
    missing = [name for name in _TORSO if name not in skeleton.keypoints]
    if missing:
        raise InputError(
            f"aligned views: skeleton {skeleton.name} has no {', '.join(missing)}, which give the "
            "angle of the torso; choose a number of views"
        )
    return np.array([skeleton.keypoints.index(name) for name in _TORSO])
