"""Losses between heatmaps: pure functions of tensors. The gradient goes to the student's side only
where the caller has detached the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BACKGROUND = 1e-6
"""Least mass of a target that is still normalised."""


@dataclass(frozen=True, eq=False)
class Target:
    """What a student should say in its own view.

    maps: (B, K, h, w).  defined: (B, 1, h, w), 0 where the teacher did not look.
    weight: (B, K), how much each map counts.
    """

    maps: Tensor
    defined: Tensor
    weight: Tensor


def mse(student: Tensor, target: Target) -> Tensor:
    """Half the mean squared difference of the maps (B, K, h, w), times the weights, squared.

    Equation 1 of Xie et al., ICCV 2021; their code's JointsMSELoss, with K as the divisor.
    """
    weight = target.weight[:, :, None, None]
    difference = (weight * (student - target.maps)) ** 2 * target.defined
    return 0.5 * difference.mean()


def bce(student: Tensor, target: Target) -> Tensor:
    """Binary cross-entropy a cell, for maps in [0, 1]."""
    wanted = target.maps.clamp(0, 1)
    cells = F.binary_cross_entropy(student.clamp(1e-6, 1 - 1e-6), wanted, reduction="none")
    return (cells * target.defined * target.weight[:, :, None, None]).mean()


def spatial_kl(logits: Tensor, target: Target, power: float = 2.0) -> Tensor:
    """Mean KL(q || p) over the cells of each map: q ~ target ** power, p = softmax of `logits`.

    Only where a joint is counts, not how high its peak is: adding a number to a map's logits
    changes nothing, so the loss cannot be lowered by lowering every map, which is how consistency
    on pixel values collapses.
    """
    shares = _shares(target, power)
    logs = F.log_softmax(logits.float().flatten(2), 2)
    divergence = (shares * (shares.clamp_min(1e-9).log() - logs)).sum(2)
    return (divergence * target.weight).mean()


def amplitude(maps: Tensor, target: Target, height: Tensor, *, power: float = 2.0) -> Tensor:
    """Mean squared difference of the student's peak near the target's and `height` (B, K).

    Keeps scores where they were, which `spatial_kl` leaves free.
    """
    shares = _shares(target, power)
    near = shares > 0.6 * shares.amax(2, keepdim=True)
    peak = (maps.flatten(2) * near).amax(2)
    return (((peak - height) ** 2) * target.weight).mean()


def _shares(target: Target, power: float) -> Tensor:
    """Share of each cell in its map (B, K, h * w)."""
    raised = (target.maps.clamp_min(0) ** power * target.defined).flatten(2)
    return raised / raised.sum(2, keepdim=True).clamp_min(BACKGROUND)


def aim(expected: Tensor, target: Target, like: float = 8.0) -> Tensor:
    """How far a gated network expects joints (B, K, 2) from the target's peaks, in gates' reach.

    Huber beyond one reach of `like` cells: a wrong peak does not pull without bound.
    """
    _, cells = peaks(target.maps)
    far = (expected - cells) / like
    return (
        F.huber_loss(far, torch.zeros_like(far), reduction="none").sum(2) * target.weight
    ).mean()


def in_view(before: Tensor, after: Tensor, scale: Tensor) -> Tensor:
    """(B, K): 1 where at least half of a map's mass is in view after it was carried.

    before: with left and right as in `after`.  scale: (B,), by how much the carrying map enlarges
    areas.
    """
    mass, kept = ((maps.clamp_min(0) ** 2).sum((2, 3)) for maps in (before, after))
    return (kept > 0.5 * mass * scale[:, None]).float()


def nearest_pair(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """For each joint the mean of that pair of maps, one of each list, whose peaks lie nearest.

    All (B, K, h, w). Source: Huang et al., CVPR 2023 (SSPCM), whose pairs are two networks now and
    an epoch ago.
    """
    pairs = [(a, b) for a in first for b in second]
    apart = torch.stack([(peaks(a)[1] - peaks(b)[1]).norm(dim=2) for a, b in pairs])
    means = torch.stack([(a + b) / 2 for a, b in pairs])
    index = apart.argmin(0)[None, :, :, None, None].expand(1, *means.shape[1:])
    return means.gather(0, index)[0]


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Heights (B, K) and cells (B, K, 2), x then y, of the maxima."""
    height, flat = maps.flatten(2).max(2)
    width = maps.shape[3]
    return height, torch.stack([flat % width, flat // width], 2).float()


def rendered(cells: Tensor, height: Tensor, like: Tensor, *, sigma: float) -> Tensor:
    """Clean Gaussians at cells (B, K, 2) of these heights (B, K), as maps `like` (B, K, h, w).

    Re-rendered targets cannot decay. Source: Kim et al., ECCV 2022 (UniFrame).
    """
    rows, columns = like.shape[2:]
    x = torch.arange(columns, device=like.device) - cells[..., 0, None]
    y = torch.arange(rows, device=like.device) - cells[..., 1, None]
    gauss = torch.exp(-(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * sigma**2))
    return gauss * height[:, :, None, None]
