"""How far an export strays from the network that it was made from, in crop pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from posekit import codecs
from posekit.parity import SURE, Parity, compare
from posekit.types import Float32, ModelSpec, UInt8

__all__ = ["SURE", "Parity", "compare", "normalised", "source_maps", "source_points"]


def normalised(crops: UInt8, spec: ModelSpec) -> Float32:
    """What the network alone takes, float32 (N, 3, H, W), of crops uint8 (N, H, W, 3) RGB."""
    pixels = crops if spec.color == "rgb" else crops[..., ::-1]
    image = (pixels - np.array(spec.mean)) / np.array(spec.std)
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32)


def source_maps(net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool) -> Float32:
    """Heatmaps of the torch network, float32 (N, K, h, w); with `flip` merged with the mirrored."""
    views = [crops, crops[:, :, ::-1]] if flip else [crops]
    with torch.no_grad():
        maps: list[Float32] = [
            net(torch.from_numpy(normalised(view, spec))).numpy() for view in views
        ]
    if not flip:
        return maps[0]
    mirror, shift = spec.skeleton.mirror, spec.flip_shift
    return codecs.merge_flip(maps[0], maps[1], mirror=mirror, shift=shift)


def source_points(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool
) -> tuple[Float32, Float32]:
    """What the torch network and the numpy codecs find in crops uint8 (N, H, W, 3) RGB."""
    return codecs.decode(source_maps(net, crops, spec, flip=flip), spec)
