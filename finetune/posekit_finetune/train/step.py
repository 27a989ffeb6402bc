"""The method: one step of easy-hard consistency, in the paper's order.

Source: Xie et al., An Empirical Study of the Collapsing Problem in Semi-Supervised 2D Human Pose
Estimation, ICCV 2021, Algorithm 1 of its supplement, with the choices of `Recipe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posekit.types import Float32, ModelSpec, UInt8
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import losses
from posekit_finetune.train.networks import NetworkOutput, network_output
from posekit_finetune.train.target import TargetBuilder, cell_points, labeled_target
from posekit_finetune.views import out_of_domain, warps
from posekit_finetune.views.warps import PairOptions, Random, Views


@dataclass(frozen=True, eq=False)
class Labels:
    """Labeled persons: patches uint8 (B, PH, PW, 3), points (B, K, 2) canonical crop px, and
    weight (B, K), 0 where a keypoint is not labeled; one generator per person.
    """

    randoms: Sequence[Random]
    patches: UInt8
    points: Float32
    weight: Float32


@dataclass(frozen=True, eq=False)
class Batch:
    """The persons of one step; `randoms` draw the views, one generator per person.

    patches: uint8 (B, PH, PW, 3).  ensemble: the teacher's maps in the canonical crop, float32
    (B, K, h, w), where the recipe's teacher is the ensemble.
    disputed: (B, K), 1 where it is confident and the source predicts another place, or None.
    """

    randoms: Sequence[Random]
    patches: UInt8
    ensemble: Tensor | None = None
    disputed: Tensor | None = None
    labels: Labels | None = None


@dataclass(frozen=True, eq=False)
class Networks:
    """students: one or two that learn.  averages: moving averages of their weights, or empty.
    source: the network before training.
    teacher_peak, source_peak: mean peak heights of teacher and source on all persons.
    """

    students: list[nn.Module]
    averages: list[nn.Module]
    source: nn.Module
    teacher_peak: float = 1.0
    source_peak: float = 1.0


@dataclass(frozen=True)
class StepReport:
    """Losses by name, and mean peak heights of teachers and students in their own views."""

    losses: dict[str, float]
    teacher_peak: float = 0.0
    student_peak: float = 0.0


@dataclass(eq=False)
class Step:
    """One training step: call it with a batch, and the students' weights are updated.

    offset: of the crop in a patch.  backward: of the loss (Fabric's).
    known: bool (K,), joints that consistency teaches, None for all.
    """

    networks: Networks
    recipe: Recipe
    spec: ModelSpec
    offset: tuple[float, float]
    optimizer: torch.optim.Optimizer
    backward: Callable[[Tensor], None] = field(default=torch.Tensor.backward)
    known: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.target = TargetBuilder(recipe, self.spec, self.networks.teacher_peak, self.known)
        self.pair = PairOptions(
            recipe.easy,
            recipe.hard,
            recipe.hard_views,
            hard_from_easy=recipe.hard_from_easy,
            crop_teaches=recipe.teacher == "ensemble",
            swap=recipe.direction == "hard-easy",
        )

    def __call__(self, batch: Batch, *, consistency: bool = True) -> StepReport:
        """Algorithm 1, lines 1 to 7; without `consistency` only line 1 contributes to the loss."""
        recipe, peaks = self.recipe, (0.0, 0.0)
        terms: dict[str, Tensor] = {}
        if batch.labels is not None:  # line 1: labeled persons
            terms["supervised"] = recipe.supervised * self._supervised(batch.labels)
        if consistency and recipe.consistency:
            easy, hard_views = warps.draw_pair(  # line 2: an easy view and hard ones
                batch.randoms, batch.patches, self.offset, options=self.pair, spec=self.spec
            )
            teacher_maps = self._teach(easy, batch)  # line 3: maps on the easy view, no gradient
            pair_losses, heights = [], []
            for view in hard_views:
                for student, maps in zip(self.networks.students, teacher_maps, strict=True):
                    target = self.target(  # the teacher's maps, resampled in the hard view
                        maps,
                        easy.matrix,
                        view.matrix,
                        teacher_maps=teacher_maps,
                        disputed=batch.disputed,
                    )
                    hard = self._augment(view, target, batch.randoms)  # line 4: cutout, RandAugment
                    output = network_output(student, hard.crops, self.spec)  # line 5
                    pair_losses.append(self._loss(output, target))  # line 6
                    heights.append(_mean_peak(output.maps))
            terms["consistency"] = recipe.consistency * _total(pair_losses)
            peaks = _mean_peak(torch.stack(teacher_maps)), float(np.mean(heights))
        if consistency and recipe.retain:  # beyond the paper: limits catastrophic forgetting
            terms["retained"] = recipe.retain * self._retained(batch)
        if terms:
            self._update(_total(terms.values()))  # line 7
        return StepReport({name: float(v.detach()) for name, v in terms.items()}, *peaks)

    def _supervised(self, labels: Labels) -> Tensor:
        """MSE with ideal maps on an easy view; the paper's labeled augmentation is A30 too."""
        views = warps.draw_view(
            labels.randoms, labels.patches, self.offset, strength=self.recipe.easy, spec=self.spec
        )
        target = labeled_target(labels.points, labels.weight, views.matrix, spec=self.spec)
        maps = [network_output(net, views.crops, self.spec).maps for net in self.networks.students]
        return _total(losses.mse(each, target.to(each.device)) for each in maps)

    def _teach(self, easy: Views, batch: Batch) -> list[Tensor]:
        """The teacher's maps for each student, in the easy view."""
        networks, recipe = self.networks, self.recipe
        if recipe.teacher == "ensemble":
            if batch.ensemble is None:
                raise AssertionError("the loop provides the ensemble's maps")
            return [batch.ensemble] * len(networks.students)
        teachers = {
            "self": networks.students[::-1],  # each learns from the other; one alone from itself
            "ema": networks.averages[::-1],
            "pair": [*networks.students, *networks.averages],
            "frozen": [networks.source] * len(networks.students),
        }[recipe.teacher]
        with torch.set_grad_enabled(not recipe.stop_gradient):
            maps = [network_output(net, easy.crops, self.spec).maps for net in teachers]
        if recipe.teacher == "pair":
            return [losses.nearest_pair(maps[0::2], maps[1::2])] * 2
        return maps

    def _augment(self, views: Views, target: losses.Target, randoms: Sequence[Random]) -> Views:
        """Joint Cutout at the target's joints, and photometric operations."""
        recipe = self.recipe
        joints = cell_points(losses.peaks(target.maps)[1], self.spec)
        if self.known is not None and not recipe.repeat_joints:  # the paper's code draws from all
            joints = joints[:, self.known]
        return warps.augment(
            randoms,
            views,
            joints,
            strength=recipe.hard if recipe.direction == "easy-hard" else recipe.easy,
            spec=self.spec,
            repeat_joints=recipe.repeat_joints,
        )

    def _loss(self, output: NetworkOutput, target: losses.Target) -> Tensor:
        recipe = self.recipe
        match recipe.loss:
            case "mse":
                loss = losses.mse(output.maps, target)
            case "bce":
                loss = losses.bce(output.maps, target)
            case "kl":
                loss = losses.spatial_kl(output.logits, target, recipe.power)
                if recipe.amplitude:
                    ratio = self.networks.source_peak / self.networks.teacher_peak
                    height = (target.maps.amax((2, 3)) * ratio).clamp(0, 0.95)
                    amplitude = losses.amplitude(output.maps, target, height, power=recipe.power)
                    loss = loss + recipe.amplitude * amplitude
        if recipe.aim and output.aim is not None:
            loss = loss + recipe.aim * losses.aim(output.aim, target)
        return loss

    def _retained(self, batch: Batch) -> Tensor:
        """Divergence of the students from their source on out-of-domain views of half the batch.

        Both sides are maps to the power, normalized alike, so the source itself has no loss.
        """
        recipe, half = self.recipe, slice(0, None, 2)
        views = out_of_domain.out_of_domain_views(
            batch.randoms[half],
            batch.patches[half],
            self.offset,
            strength=recipe.far,
            spec=self.spec,
        )
        with torch.no_grad():
            source = network_output(self.networks.source, views.crops, self.spec).maps
        height = source.amax((2, 3))
        weight = height.clamp_min(0.02) / self.networks.source_peak
        target = losses.Target(source, torch.ones_like(source[:, :1]), weight)
        terms = []
        for student in self.networks.students:
            maps = network_output(student, views.crops, self.spec).maps
            logits = recipe.power * maps.clamp_min(1e-8).log()
            terms.append(losses.spatial_kl(logits, target, recipe.power))
            amplitude = losses.amplitude(maps, target, height, power=recipe.power)
            terms.append(recipe.amplitude * amplitude)
        return _total(terms)

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.backward(loss)
        if self.recipe.clip:
            for student in self.networks.students:
                nn.utils.clip_grad_norm_(student.parameters(), self.recipe.clip)
        self.optimizer.step()


def _total(terms: Iterable[Tensor]) -> Tensor:
    return sum(terms, torch.zeros(()))


def _mean_peak(maps: Tensor) -> float:
    """Mean height of the peaks of maps (..., h, w)."""
    return float(maps.detach().amax((-2, -1)).mean())
