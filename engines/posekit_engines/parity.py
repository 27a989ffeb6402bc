"""How far an export strays from the network that it was made from, in crop pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from posekit import codecs
from posekit.errors import ParityError
from posekit.types import Float32, ModelSpec, UInt8

SURE = 0.3
"""Keypoints scored below this by the source are no keypoints: their argmax may be anywhere."""


@dataclass(frozen=True)
class Parity:
    """The shift of the keypoints that the source is sure of, and of all scores.

    mean_px, p99_px, max_px: crop pixels.  max_score: largest difference of a score.
    points: how many keypoints were compared.  crops: on how many pictures.
    """

    mean_px: float
    p99_px: float
    max_px: float
    max_score: float
    points: int
    crops: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def check(self, budget_px: float, what: str) -> None:
        """Raises ParityError where the mean shift is above `budget_px` or is no number."""
        if not self.mean_px <= budget_px:
            raise ParityError(
                f"{what}: strays {self.mean_px:.3f} px on average from the source network on "
                f"{self.crops} check crops; wanted at most {budget_px}: the export is not written",
                self.mean_px,
            )


def compare(
    points: Float32, scores: Float32, source: tuple[Float32, Float32], *, crops: int
) -> Parity:
    """Points (N, K, 2) and scores (N, K) against the source's."""
    sure = source[1] > SURE
    shift = np.linalg.norm(points - source[0], axis=2)[sure]
    if not shift.size:
        shift = np.zeros(1)
    return Parity(
        mean_px=round(float(shift.mean()), 6),
        p99_px=round(float(np.percentile(shift, 99)), 6),
        max_px=round(float(shift.max()), 6),
        max_score=round(float(np.abs(scores - source[1]).max()), 6),
        points=int(sure.sum()),
        crops=crops,
    )


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


def source_answer(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool
) -> tuple[Float32, Float32]:
    """What the torch network and the numpy codecs find in crops uint8 (N, H, W, 3) RGB."""
    return codecs.decode(source_maps(net, crops, spec, flip=flip), spec)
