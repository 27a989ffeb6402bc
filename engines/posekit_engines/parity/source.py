"""The source of a comparison: the torch network in float32, decoded by the numpy codecs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from posekit import codecs
from posekit.types import Float32, ModelSpec, UInt8


def normalize(crops: UInt8, spec: ModelSpec) -> Float32:
    """The network's input float32 (N, 3, H, W) for crops uint8 (N, H, W, 3) RGB."""
    pixels = crops if spec.color == "rgb" else crops[..., ::-1]
    image = (pixels - np.array(spec.mean)) / np.array(spec.std)
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32)


def source_maps(net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool) -> Float32:
    """Heatmaps of the torch network, float32 (N, K, h, w).

    crops: uint8 (N, H, W, 3) RGB.  flip: merged with those of the mirrored crops.
    """
    views = [crops, crops[:, :, ::-1]] if flip else [crops]
    with torch.no_grad():
        maps: list[Float32] = [
            net(torch.from_numpy(normalize(view, spec))).numpy() for view in views
        ]
    if not flip:
        return maps[0]
    mirror, shift = spec.skeleton.mirror, spec.flip_shift
    return codecs.merge_flip(maps[0], maps[1], mirror=mirror, shift=shift)


def source_points(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool
) -> tuple[Float32, Float32]:
    """Points (N, K, 2), crop px, and scores (N, K) of crops uint8 (N, H, W, 3) RGB."""
    return codecs.decode(source_maps(net, crops, spec, flip=flip), spec)
