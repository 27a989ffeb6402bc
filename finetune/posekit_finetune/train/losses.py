"""Losses between heatmaps: pure functions of tensors. The target gets no gradient where the caller
has detached it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BACKGROUND = 1e-6
"""Least mass that a target map is divided by."""


@dataclass(frozen=True, eq=False)
class Target:
    """The target of a student's maps in its own view.

    maps: (B, K, h, w).  defined: (B, 1, h, w), 0 in cells outside the teacher's view.
    weight: (B, K), the weight of each map.
    """

    maps: Tensor
    defined: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        return Target(self.maps.to(device), self.defined.to(device), self.weight.to(device))


def mse(student: Tensor, target: Target) -> Tensor:
    """Half the mean squared difference of the maps (B, K, h, w), times the weights, squared.

    Source: equation 1 of Xie et al., ICCV 2021; JointsMSELoss of their code, divided by K.
    """
    weight = target.weight[:, :, None, None]
    difference = (weight * (student - target.maps)) ** 2 * target.defined
    return 0.5 * difference.mean()


def bce(student: Tensor, target: Target) -> Tensor:
    """Mean binary cross-entropy per cell, for maps in [0, 1]."""
    expected = target.maps.clamp(0, 1)
    cells = F.binary_cross_entropy(student.clamp(1e-6, 1 - 1e-6), expected, reduction="none")
    return (cells * target.defined * target.weight[:, :, None, None]).mean()


def spatial_kl(logits: Tensor, target: Target, power: float = 2.0) -> Tensor:
    """Mean KL(q || p) over the cells of each map: q ~ target ** power, p = softmax of `logits`.

    Depends on the position of a peak, not on its height: adding a constant to a map's logits
    changes nothing, so the loss cannot be reduced by lowering every map, which is how consistency
    on pixel values collapses.
    """
    shares = _normalized(target, power)
    logs = F.log_softmax(logits.float().flatten(2), 2)
    divergence = (shares * (shares.clamp_min(1e-9).log() - logs)).sum(2)
    return (divergence * target.weight).mean()


def amplitude(maps: Tensor, target: Target, height: Tensor, *, power: float = 2.0) -> Tensor:
    """Mean squared difference between `height` (B, K) and the student's peak near the target's.

    Preserves scores, which `spatial_kl` does not constrain.
    """
    shares = _normalized(target, power)
    near = shares > 0.6 * shares.amax(2, keepdim=True)
    peak = (maps.flatten(2) * near).amax(2)
    return (((peak - height) ** 2) * target.weight).mean()


def _normalized(target: Target, power: float) -> Tensor:
    """The target maps to the power, normalized to a sum of 1, (B, K, h * w)."""
    raised = (target.maps.clamp_min(0) ** power * target.defined).flatten(2)
    return raised / raised.sum(2, keepdim=True).clamp_min(BACKGROUND)


def aim(expected: Tensor, target: Target, scale: float = 8.0) -> Tensor:
    """Huber loss between the joints a gated network expects (B, K, 2) and the target's peaks.

    In units of `scale` cells, the width of the gate; linear beyond one unit, so a wrong peak has a
    bounded gradient.
    """
    _, cells = peaks(target.maps)
    offset = (expected - cells) / scale
    loss = F.huber_loss(offset, torch.zeros_like(offset), reduction="none").sum(2)
    return (loss * target.weight).mean()


def in_view(before: Tensor, after: Tensor, scale: Tensor) -> Tensor:
    """(B, K): 1 where more than half of a map's mass is in view after warping.

    before: with left and right as in `after`.  scale: (B,), factor by which the warp scales areas.
    """
    mass, remaining = ((maps.clamp_min(0) ** 2).sum((2, 3)) for maps in (before, after))
    return (remaining > 0.5 * mass * scale[:, None]).float()


def nearest_pair(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """For each joint the mean of the pair of maps, one of each list, whose peaks lie closest.

    All (B, K, h, w). Source: Huang et al., CVPR 2023 (SSPCM), whose pairs are two networks now and
    an epoch ago.
    """
    pairs = [(a, b) for a in first for b in second]
    distance = torch.stack([(peaks(a)[1] - peaks(b)[1]).norm(dim=2) for a, b in pairs])
    means = torch.stack([(a + b) / 2 for a, b in pairs])
    index = distance.argmin(0)[None, :, :, None, None].expand(1, *means.shape[1:])
    return means.gather(0, index)[0]


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Heights (B, K) and cells (B, K, 2), x then y, of the maxima."""
    height, flat = maps.flatten(2).max(2)
    width = maps.shape[3]
    return height, torch.stack([flat % width, flat // width], 2).float()


def render_gaussians(cells: Tensor, height: Tensor, like: Tensor, *, sigma: float) -> Tensor:
    """Gaussians at cells (B, K, 2) with heights (B, K), in the shape of `like` (B, K, h, w).

    Rendered targets cannot decay. Source: Kim et al., ECCV 2022 (UniFrame).
    """
    rows, columns = like.shape[2:]
    x = torch.arange(columns, device=like.device) - cells[..., 0, None]
    y = torch.arange(rows, device=like.device) - cells[..., 1, None]
    gauss = torch.exp(-(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * sigma**2))
    return gauss * height[:, :, None, None]
