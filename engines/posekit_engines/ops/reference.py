"""The kernels' reference implementations in numpy: one function per kernel, of the same name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.geometry import Warp
from posekit.inference import tta
from posekit.types import Float32, ModelSpec, UInt8
from posekit_engines.ops.crop_normalize import ColorMatrix

Float64 = NDArray[np.float64]


def decode_flip(
    heatmaps: NDArray[np.floating],
    spec: ModelSpec,
    *,
    mirrored: NDArray[np.floating] | None = None,
    to_frame: Warp | None = None,
) -> Float32:
    """Heatmaps (N, K, h, w) to x, y, score, float32 (N, K, 3); see `codecs.decode`.

    to_frame: crop px to frame px.  Raises InputError.
    """
    other = None if mirrored is None else mirrored.astype(np.float32)
    points, scores = codecs.decode(heatmaps.astype(np.float32), spec, other)
    if to_frame is not None:
        points = to_frame.to_crop(points)
    return np.concatenate([points, scores[..., None]], 2)


def fuse_views(
    heatmaps: NDArray[np.floating], spec: ModelSpec, views: Sequence[tta.View]
) -> Float32:
    """Heatmaps of V views (N, V, K, h, w) to their mean, float32 (N, K, h, w): `tta.fuse`."""
    readers = [tta.Reader.of(view, spec) for view in views]
    return tta.fuse(heatmaps.astype(np.float32), readers)


def crop_normalize(
    frames: Sequence[UInt8], spec: ModelSpec, *, to_frame: Warp, frame_of: Sequence[int]
) -> tuple[Float64, Float64]:
    """Normalized crops (N, 3, h, w) of RGB frames (H, W, 3), and the mirrored ones.

    to_frame: crop px to frame px of each person, cropped from frames[frame_of[n]]. Bilinear at
    exact positions; black outside a frame.
    """
    width, height = spec.input_size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ones = np.ones_like(x)
    crops = []
    for matrix, index in zip(to_frame.matrix, frame_of, strict=True):
        across, down = matrix @ np.stack([x, y, ones]).reshape(3, -1)
        pixels = bilinear(frames[index], across, down).reshape(height, width, 3)
        pixels = pixels if spec.color == "rgb" else pixels[..., ::-1]
        crops.append(((pixels - spec.mean) / spec.std).transpose(2, 0, 1))
    stack = np.array(crops).reshape(-1, 3, height, width)
    return stack, stack[..., ::-1]


def bilinear(image: UInt8, x: Float64, y: Float64) -> Float64:
    """The image (H, W, C) sampled at M positions, float64 (M, C); 0 outside it."""
    height, width = image.shape[:2]
    left, top = np.floor(x), np.floor(y)
    total = np.zeros((len(x), image.shape[2]))
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = np.flatnonzero(inside)
        total[at] += weight[at, None] * image[row[at].astype(int), column[at].astype(int)]
    return total


def rgb_of_nv12(luma: UInt8, chroma: UInt8, color: ColorMatrix) -> UInt8:
    """Luma (H, W) and chroma (H / 2, W), U and V interleaved, to RGB (H, W, 3); nearest chroma."""
    pairs = chroma.reshape(*chroma.shape[:1], -1, 2).astype(np.float64) - 128
    u, v = pairs.repeat(2, 0).repeat(2, 1).transpose(2, 0, 1)
    gray = color.luma[1] * (luma.astype(np.float64) - color.luma[0])
    red_v, green_u, green_v, blue_u = color.chroma
    colors = [gray + red_v * v, gray - green_u * u - green_v * v, gray + blue_u * u]
    rgb: UInt8 = np.rint(np.clip(np.stack(colors, 2), 0, 255)).astype(np.uint8)
    return rgb
