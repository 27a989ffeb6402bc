"""Targets of the students: the teacher's maps, or labels, in a student's own view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posekit import codecs
from posekit.geometry import Float64
from posekit.types import Float32, ModelSpec
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import losses
from posekit_finetune.train.losses import Target
from posekit_finetune.views import warps

_MIN_CONFIDENCE = 0.02
"""Peaks below this count as if they were this high: no weight becomes 0."""


@dataclass(frozen=True, eq=False)
class TargetBuilder:
    """Teacher maps in the teacher's view to the target of a student in its own view.

    teacher_peak: mean peak height of the teacher on all persons.
    known: bool (K,), joints that are learned: the others of a union of skeletons have no teacher.
    """

    recipe: Recipe
    spec: ModelSpec
    teacher_peak: float = 1.0
    known: NDArray[np.bool_] | None = None

    def __call__(
        self,
        maps: Tensor,
        easy: Float64,
        hard: Float64,
        *,
        teacher_maps: list[Tensor],
        disputed: Tensor | None = None,
    ) -> Target:
        """The target of one student.

        maps: its teacher's, one of `teacher_maps`, (B, K, h, w).  easy, hard: (B, 2, 3), warps of
        the teacher's and the student's view.  disputed: (B, K), see `step.Batch`.
        """
        recipe, matrix = self.recipe, warps.relative_warp(easy, hard)
        height, cells = losses.peaks(maps.detach())
        weight = self._weight(height, teacher_maps)
        if disputed is not None:
            weight = weight * (1 + recipe.dispute * disputed)
        weight = warps.swap_sides(weight, matrix, self.spec)
        warped, defined, visible = (
            self._warped(maps, matrix)
            if recipe.target == "maps"
            else self._rendered(maps, height, cells, matrix=matrix)
        )
        if recipe.mask:
            return Target(warped, defined, weight * visible)
        return Target(warped, torch.ones_like(defined), weight)

    def _weight(self, height: Tensor, teacher_maps: list[Tensor]) -> Tensor:
        """Weight of each teacher map (B, K), by the `height` of its peak, in the teacher's view."""
        recipe, weight = self.recipe, torch.ones_like(height)
        if recipe.confidence:
            weight = weight * height.clamp_min(_MIN_CONFIDENCE) / self.teacher_peak
        if recipe.keep < 1:
            weight = weight * (height >= torch.quantile(height, 1 - recipe.keep))
        if recipe.agree_px and len(teacher_maps) > 1:
            first, second = (losses.peaks(each)[1] for each in teacher_maps)
            distance = (first - second).norm(dim=2) * self.spec.map_scale[0]
            weight = weight * (distance <= recipe.agree_px)
        if self.known is not None:
            weight = weight * torch.from_numpy(self.known).to(weight.device)
        return weight

    def _warped(self, maps: Tensor, matrix: Float64) -> tuple[Tensor, Tensor, Tensor]:
        """The maps resampled in the student's view, where defined, and which are visible (B, K)."""
        warped, defined = warps.warp_maps(maps, matrix, self.spec)
        area = torch.from_numpy(np.abs(np.linalg.det(matrix[:, :, :2])).astype(np.float32))
        swapped = warps.swap_sides(maps, matrix, self.spec)
        return warped, defined, losses.in_view(swapped, warped, area.to(maps.device))

    def _rendered(
        self, maps: Tensor, height: Tensor, cells: Tensor, *, matrix: Float64
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussians rendered in the student's view, where a resampled one would lose height."""
        spec = self.spec
        if self.recipe.target == "gaussian":
            height = torch.ones_like(height)
        warped_cells = self._warp_cells(cells, matrix)
        height = warps.swap_sides(height, matrix, spec)
        rendered = losses.render_gaussians(warped_cells, height, maps, sigma=spec.sigma)
        last = torch.tensor(spec.heatmap_size, device=maps.device) - 1
        visible = ((warped_cells >= 0) & (warped_cells <= last)).all(2).float()
        return rendered, torch.ones_like(maps[:, :1]), visible

    def _warp_cells(self, cells: Tensor, matrix: Float64) -> Tensor:
        """Cells (B, K, 2) of one view in another's, left and right exchanged by a mirror."""
        points = warps.warp_points(cell_points(cells, self.spec), matrix, self.spec)
        warped = self.spec.crop_to_cells(points.astype(np.float64))
        return torch.from_numpy(warped.astype(np.float32)).to(cells.device)


def cell_points(cells: Tensor, spec: ModelSpec) -> Float32:
    """Cells (B, K, 2), x then y, in px of their view, on the CPU."""
    points: Float32 = spec.cells_to_crop(cells.cpu().double().numpy()).astype(np.float32)
    return points


def labeled_target(points: Float32, weight: Float32, matrix: Float64, *, spec: ModelSpec) -> Target:
    """Ideal maps of labeled points in the view of a warp (B, 2, 3).

    points: (B, K, 2), canonical crop px.  weight: (B, K), 0 where not labeled.
    """
    maps = torch.from_numpy(codecs.encode(warps.warp_points(points, matrix, spec), spec))
    weights = warps.swap_sides(torch.from_numpy(weight), matrix, spec)
    return Target(maps, torch.ones_like(maps[:, :1]), weights)
