"""The method: one step of easy-hard consistency, in the paper's order.

Xie et al., An Empirical Study of the Collapsing Problem in Semi-Supervised 2D Human Pose
Estimation, ICCV 2021, Algorithm 1 of its supplement, with the choices of `Recipe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posekit import codecs
from posekit.geometry import Float64, compose
from posekit.types import Float32, ModelSpec, UInt8
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import losses
from posekit_finetune.train.networks import NetworkOutput, network_output
from posekit_finetune.views import out_of_domain, warps
from posekit_finetune.views.warps import Random, Views


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled persons: patches uint8 (B, PH, PW, 3), points (B, K, 2) canonical crop px, and
    weight (B, K), 0 where a keypoint is not labelled; a generator a person.
    """

    randoms: Sequence[Random]
    patches: UInt8
    points: Float32
    weight: Float32


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from; `randoms` draw the views, one generator a person.

    patches: uint8 (B, PH, PW, 3).  ensemble: the teacher's maps in the canonical crop, float32
    (B, K, h, w), where the recipe's teacher is the ensemble.
    disputed: (B, K), 1 where it is sure and the source says something else, or None.
    """

    randoms: Sequence[Random]
    patches: UInt8
    ensemble: Tensor | None = None
    disputed: Tensor | None = None
    labels: Labels | None = None


@dataclass(frozen=True, eq=False)
class Networks:
    """students: one or two that learn.  averages: their running means, or empty.
    source: the network before it learned.
    teacher_peak, source_peak: mean height of the peaks of teacher and source on all persons.
    """

    students: list[nn.Module]
    averages: list[nn.Module]
    source: nn.Module
    teacher_peak: float = 1.0
    source_peak: float = 1.0


@dataclass(frozen=True)
class StepReport:
    """Loss by name, and mean peaks of teachers and students in their own views."""

    losses: dict[str, float]
    teacher_peak: float = 0.0
    student_peak: float = 0.0


@dataclass(eq=False)
class Step:
    """One step on a batch; call it, and the networks have moved.

    spec and offset: how patches are cut.  backward: of the loss (Fabric's).
    known: bool (K,), joints that are learned; the others of a union of skeletons have no teacher.
    """

    networks: Networks
    recipe: Recipe
    spec: ModelSpec
    offset: tuple[float, float]
    optimizer: torch.optim.Optimizer
    backward: Callable[[Tensor], None] = field(default=torch.Tensor.backward)
    known: NDArray[np.bool_] | None = None

    def __call__(self, batch: Batch, *, consistency: bool = True) -> StepReport:
        """Algorithm 1, lines 1 to 7; without `consistency` only the labelled images count."""
        recipe, students = self.recipe, self.networks.students
        parts: dict[str, Tensor] = {}
        peaks = [0.0, 0.0]
        if batch.labels is not None:  # line 1
            parts["supervised"] = recipe.supervised * self._supervised(batch.labels)
        if consistency and recipe.consistency:
            total, *peaks = self._consistency(batch)
            parts["consistency"] = recipe.consistency * total
        if consistency and recipe.retain:
            parts["retained"] = recipe.retain * self._retained(batch)
        if not parts:
            return StepReport({})
        self.optimizer.zero_grad()
        self.backward(sum(parts.values(), torch.zeros(())))
        if recipe.clip:
            for student in students:
                nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
        self.optimizer.step()  # line 7
        return StepReport({name: float(v.detach()) for name, v in parts.items()}, *peaks)

    def _consistency(self, batch: Batch) -> tuple[Tensor, float, float]:
        """The loss between the views, and the mean peaks of teachers and students."""
        students = self.networks.students
        easy, hard_matrices = self._draw(batch)  # line 2
        taught = self._teach(easy, batch)  # line 3: no gradient
        total, heights = 0.0 * taught[0].sum().detach(), []
        for matrix in hard_matrices:
            for student, maps in zip(students, taught, strict=True):
                carrying = warps.relative_warp(easy.matrix, matrix)
                target = self._target(maps, carrying, taught, disputed=batch.disputed)
                hard = self._hard(batch, matrix, target)  # line 4
                told = self._answer(student, hard)  # line 5
                total = total + self._loss(told, target)  # line 6
                heights.append(float(told.maps.detach().amax((2, 3)).mean()))
        peak = float(torch.stack(taught).detach().amax((3, 4)).mean())
        return total, peak, float(np.mean(heights))

    def _retained(self, batch: Batch) -> Tensor:
        """How far the students stray from their source on far views of every second person.

        Both sides in the same shape, maps to the power, so that the source itself has no loss.
        """
        recipe, half = self.recipe, slice(0, None, 2)
        randoms, patches = batch.randoms[half], batch.patches[half]
        seen = out_of_domain.out_of_domain_views(
            randoms, patches, self.offset, strength=recipe.far, spec=self.spec
        )
        with torch.no_grad():
            kept = self._answer(self.networks.source, seen).maps
        height = kept.amax((2, 3))
        weight = height.clamp_min(0.02) / self.networks.source_peak
        target = losses.Target(kept, torch.ones_like(kept[:, :1]), weight)
        total = torch.zeros((), device=kept.device)
        for student in self.networks.students:
            maps = self._answer(student, seen).maps
            logits = recipe.power * maps.clamp_min(1e-8).log()
            total = total + losses.spatial_kl(logits, target, recipe.power)
            tall = losses.amplitude(maps, target, height, power=recipe.power)
            total = total + recipe.amplitude * tall
        return total

    def _draw(self, batch: Batch) -> tuple[Views, list[Float64]]:
        """The view that teaches and the warps of those that learn."""
        recipe, randoms = self.recipe, batch.randoms
        easy = warps.draw_warps(randoms, recipe.easy, self.spec)
        if recipe.teacher == "ensemble":
            easy = warps.identity(len(randoms))
        hard = [warps.draw_warps(randoms, recipe.hard, self.spec) for _ in range(recipe.hard_views)]
        if recipe.hard_from_easy:  # the crop is warped a second time, from the picture itself
            hard = [compose(matrix, easy) for matrix in hard]
        if recipe.direction == "hard-easy":
            easy, hard = hard[0], [easy]
        return self._cut(batch.patches, easy), hard

    def _cut(self, patches: UInt8, matrix: Float64) -> Views:
        return warps.cut_view(patches, self.offset, matrix, spec=self.spec)

    def _teach(self, easy: Views, batch: Batch) -> list[Tensor]:
        """The teacher's maps for each student, in the easy view."""
        networks, recipe = self.networks, self.recipe
        if recipe.teacher == "ensemble":
            if batch.ensemble is None:
                raise AssertionError("the loop gives the ensemble's maps")
            return [batch.ensemble] * len(networks.students)
        teachers = {
            "self": networks.students[::-1],  # each is taught by the other; alone, by itself
            "ema": networks.averages[::-1],
            "pair": [*networks.students, *networks.averages],
            "frozen": [networks.source] * len(networks.students),
        }[recipe.teacher]
        with torch.set_grad_enabled(not recipe.stop_gradient):
            maps = [self._answer(teacher, easy).maps for teacher in teachers]
        if recipe.teacher == "pair":
            return [losses.nearest_pair(maps[0::2], maps[1::2])] * 2
        return maps

    def _target(
        self,
        maps: Tensor,
        matrix: Float64,
        taught: list[Tensor],
        *,
        disputed: Tensor | None = None,
    ) -> losses.Target:
        """A teacher's maps as a student should see them in its own view."""
        recipe, spec = self.recipe, self.spec
        height, cells = losses.peaks(maps.detach())
        trust = self._trust(height, taught)
        if disputed is not None:
            trust = trust * (1 + recipe.dispute * disputed)
        weight = warps.swap_sides(trust, matrix, spec)
        if recipe.target == "maps":
            carried, defined = warps.warp_maps(maps, matrix, spec)
            area = torch.from_numpy(np.abs(np.linalg.det(matrix[:, :, :2])).astype(np.float32))
            before = warps.swap_sides(maps, matrix, spec)
            seen = losses.in_view(before, carried, area.to(maps.device))
        else:  # drawn in the student's view: a carried Gaussian would lose height
            tall = height if recipe.target == "gaussian-height" else torch.ones_like(height)
            moved = self._moved(cells, matrix)
            carried = losses.rendered(
                moved, warps.swap_sides(tall, matrix, spec), maps, sigma=spec.sigma
            )
            last = torch.tensor(spec.heatmap_size, device=maps.device) - 1
            seen = ((moved >= 0) & (moved <= last)).all(2).float()
            defined = torch.ones_like(maps[:, :1])
        if recipe.mask:
            return losses.Target(carried, defined, weight * seen)
        return losses.Target(carried, torch.ones_like(defined), weight)

    def _trust(self, height: Tensor, taught: list[Tensor]) -> Tensor:
        """(B, K), how much a teacher's maps count, by their peaks' `height`, in its own view."""
        recipe, weight = self.recipe, torch.ones_like(height)
        if recipe.confidence:
            weight = weight * height.clamp_min(0.02) / self.networks.teacher_peak
        if recipe.keep < 1:
            weight = weight * (height >= torch.quantile(height, 1 - recipe.keep))
        if recipe.agree_px and len(taught) > 1:
            others = [losses.peaks(other)[1] for other in taught]
            apart = (others[0] - others[1]).norm(dim=2) * self.spec.map_scale[0]
            weight = weight * (apart <= recipe.agree_px)
        if self.known is not None:
            weight = weight * torch.from_numpy(self.known).to(weight.device)
        return weight

    def _moved(self, cells: Tensor, matrix: Float64) -> Tensor:
        """Cells (B, K, 2) of one view in another's, left and right exchanged by a mirror."""
        scale, offset = np.array(self.spec.map_scale), np.array(self.spec.map_offset)
        points = (cells.cpu().numpy() * scale + offset).astype(np.float32)
        moved = (warps.warp_points(points, matrix, self.spec) - offset) / scale
        return torch.from_numpy(moved.astype(np.float32)).to(cells.device)

    def _hard(
        self,
        batch: Batch,
        matrix: Float64,
        target: losses.Target,
    ) -> Views:
        strength = self.recipe.hard if self.recipe.direction == "easy-hard" else self.recipe.easy
        cells = losses.peaks(target.maps)[1].cpu().numpy()
        scale, offset = np.array(self.spec.map_scale), np.array(self.spec.map_offset)
        joints = (cells * scale + offset).astype(np.float32)
        if self.known is not None and not self.recipe.repeat_joints:  # X's code draws from all
            joints = joints[:, self.known]
        return warps.augment(
            batch.randoms,
            self._cut(batch.patches, matrix),
            joints,
            strength=strength,
            spec=self.spec,
            repeat_joints=self.recipe.repeat_joints,
        )

    def _answer(self, net: nn.Module, seen: Views) -> NetworkOutput:
        device = next(net.parameters()).device
        return network_output(net, warps.normalize(seen.crops, self.spec, device))

    def _loss(self, told: NetworkOutput, target: losses.Target) -> Tensor:
        recipe = self.recipe
        match recipe.loss:
            case "mse":
                loss = losses.mse(told.maps, target)
            case "bce":
                loss = losses.bce(told.maps, target)
            case "kl":
                loss = losses.spatial_kl(told.logits, target, recipe.power)
                if recipe.amplitude:
                    ratio = self.networks.source_peak / self.networks.teacher_peak
                    height = (target.maps.amax((2, 3)) * ratio).clamp(0, 0.95)
                    amplitude = losses.amplitude(told.maps, target, height, power=recipe.power)
                    loss = loss + recipe.amplitude * amplitude
        if recipe.aim and told.aim is not None:
            loss = loss + recipe.aim * losses.aim(told.aim, target)
        return loss

    def _supervised(self, labels: Labels) -> Tensor:
        """MSE with ideal maps on an easy view; the paper's labelled augmentation is A30 too."""
        matrix = warps.draw_warps(labels.randoms, self.recipe.easy, self.spec)
        seen = self._cut(labels.patches, matrix)
        points = warps.warp_points(labels.points, matrix, self.spec)
        weight = torch.from_numpy(labels.weight)
        mirrored = torch.from_numpy(seen.mirrored)
        swapped = weight[:, list(self.spec.skeleton.mirror)]
        weight = torch.where(mirrored[:, None], swapped, weight)
        wanted = torch.from_numpy(codecs.encode(points, self.spec))
        total = torch.zeros(())
        for student in self.networks.students:
            maps = self._answer(student, seen).maps
            target = losses.Target(
                wanted.to(maps.device),
                torch.ones_like(maps[:, :1]),
                weight.to(maps.device),
            )
            total = total.to(maps.device) + losses.mse(maps, target)
        return total
