"""Boxes, crops and the way back; IoU and OKS. The pixel convention, once:

the center of the first pixel is (0, 0), x points right, y points down, so an image of width W
covers x from -0.5 to W - 0.5. A box [x0, y0, x1, y1] is in the same coordinates. Every module
of posekit uses it, which a round-trip test checks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Boxes, Float32, ModelSpec

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Warp:
    """N affine maps from frame pixels to crop pixels.

    matrix: float64 (N, 2, 3); crop = matrix[:, :, :2] @ frame + matrix[:, :, 2].
    """

    matrix: Float64

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, np.float64)
        if matrix.ndim != 3 or matrix.shape[1:] != (2, 3):
            raise InputError(f"warp: wanted shape (N, 2, 3), got {matrix.shape}")
        object.__setattr__(self, "matrix", matrix)

    def __len__(self) -> int:
        return len(self.matrix)

    @classmethod
    def from_boxes(cls, boxes: Boxes, spec: ModelSpec) -> Warp:
        """The upright crop of each box: grown to the crop's aspect, then by `spec.padding`.

        Boxes may lie partly or wholly outside the frame; a side under one pixel counts as one.
        The enlarged box spans W - crop_shrink px and its center lies at W/2 - crop_center
        (MSRA: simple baselines' get_affine_transform; UDP: Huang et al., CVPR 2020).
        """
        width, height = spec.input_size
        xyxy = boxes.xyxy.astype(np.float64)
        size = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 1.0)
        span = np.maximum(size[:, 0], size[:, 1] * (width / height)) * spec.padding
        scale = (width - spec.crop_shrink) / span
        target = np.array([width, height]) / 2 - spec.crop_center
        center = (xyxy[:, :2] + xyxy[:, 2:]) / 2
        matrix = np.zeros((len(xyxy), 2, 3))
        matrix[:, 0, 0] = matrix[:, 1, 1] = scale
        # UDP shrinks each axis by a pixel, so y's scale is (H - 1) / h, not (W - 1) / w.
        matrix[:, 1, 1] = (height - spec.crop_shrink) / (span * (height / width))
        matrix[:, :, 2] = target - center * np.stack([matrix[:, 0, 0], matrix[:, 1, 1]], 1)
        return cls(matrix)

    def to_crop(self, points: ArrayLike) -> Float32:
        """Frame points (N, K, 2) in crop pixels."""
        return _apply(self.matrix, points)

    def to_frame(self, points: ArrayLike) -> Float32:
        """Crop points (N, K, 2) in frame pixels."""
        return _apply(self.inverse().matrix, points)

    def inverse(self) -> Warp:
        """The maps from crop pixels to frame pixels."""
        linear = np.linalg.inv(self.matrix[:, :, :2])
        return Warp(np.concatenate([linear, -linear @ self.matrix[:, :, 2:]], 2))


def _apply(matrix: Float64, points: ArrayLike) -> Float32:
    array = np.asarray(points, np.float64)
    if array.ndim != 3 or array.shape[0] != len(matrix) or array.shape[2] != 2:
        raise InputError(f"points: wanted shape ({len(matrix)}, K, 2), got {array.shape}")
    moved: Float64 = np.einsum("nij,nkj->nki", matrix[:, :, :2], array) + matrix[:, None, :, 2]
    return moved.astype(np.float32)


def box_iou(a: Boxes, b: Boxes) -> Float32:
    """Intersection over union of each pair, float32 (len(a), len(b)); 0 where both are empty."""
    low = np.maximum(a.xyxy[:, None, :2], b.xyxy[None, :, :2])
    high = np.minimum(a.xyxy[:, None, 2:], b.xyxy[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(2)
    area = [(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).prod(1) for boxes in (a, b)]
    union = area[0][:, None] + area[1][None] - overlap
    iou: Float32 = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def oks(
    a: Float32, b: Float32, areas: Float32, *, sigmas: ArrayLike, visible: ArrayLike | None = None
) -> Float32:
    """Object keypoint similarity of each person in `b` (M, K, 2) to each in `a` (N, K, 2).

    areas: (N,) px², the size of each person in `a`.  visible: (N, K) or (N, M, K) weights;
    pairs without one visible keypoint score 0.  Returns float32 (N, M).
    Source: COCO keypoint evaluation, exp(-d² / (2 area (2 sigma)²)).
    """
    distance2 = ((a[:, None] - b[None]) ** 2).sum(3)
    variance = (2 * np.asarray(sigmas, np.float32)) ** 2
    scale = np.maximum(areas, 1e-6)[:, None, None]  # no area: only an exact match scores
    hits: Float32 = np.exp(-distance2 / (2 * scale * variance))
    if visible is None:
        plain: Float32 = hits.mean(2, dtype=np.float32)
        return plain
    weights = np.asarray(visible, np.float32)
    weights = np.broadcast_to(weights[:, None] if weights.ndim == 2 else weights, hits.shape)
    total = weights.sum(2)
    sums = (hits * weights).sum(2)
    mean: Float32 = np.divide(sums, total, out=np.zeros_like(total), where=total > 0)
    return mean


def compose(after: Float64, before: Float64) -> Float64:
    """`before` and then `after`, affine maps (..., 2, 3)."""
    linear = after[..., :2] @ before[..., :2]
    moved = (after[..., :2] @ before[..., 2:]) + after[..., 2:]
    return np.concatenate([linear, moved], -1)
