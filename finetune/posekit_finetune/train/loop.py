"""Everything around the step that a reader of the paper may skip: batches, devices, saving.

A step's batch depends on the seed and the step's number only, so an interrupted run resumes
exactly, and several processes divide a batch without changing it.
"""

from __future__ import annotations

import copy
import functools
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import DivergedError
from posekit.geometry import Float64
from posekit.types import Int64
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import optimizer
from posekit_finetune.train.networks import (
    Start,
    frozen_copy,
    perturb_head,
    set_train_mode,
    start_networks,
    trainable_parameters,
    unwrap,
)
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.step import Batch, Labels, Networks, Step, StepReport

_SAVE_S = 60.0
"""Seconds between two saved states."""

_DISPUTED = 0.05
"""Teacher and source differ on a joint beyond this share of the crop's longer side."""

_CONFIDENT = 0.75
"""A joint is disputed only where the ensemble's score exceeds this share of its mean peak."""

_BEFORE_READING_S = 10.0
"""The same before a reading: it takes long, and an interruption does not wait for its end."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run after `step` steps; `net`: the network that would be exported, see `export_network`."""

    step: int
    net: nn.Module
    networks: Networks
    report: StepReport
    seconds: float


class Loop:
    """Iterate over it to train; yields a Snapshot every `recipe.watch_every` steps.

    state: file to resume from, or None.  `stopped`, which may be replaced, is called after each
    step: where it is true the state is saved and KeyboardInterrupt raised. A step runs within
    `deferred()`, in which nothing may be interrupted. `kept` is the caller's: tensors and plain
    values that are saved with the state and restored with it.  Raises DivergedError.
    """

    def __init__(
        self,
        bundle: Bundle | Start,
        data: TrainingData,
        recipe: Recipe,
        *,
        seed: int = 0,
        fabric: Fabric | None = None,
        state: Path | None = None,
    ) -> None:
        self.recipe, self.data, self.seed = recipe, data, seed
        start = bundle if isinstance(bundle, Start) else start_networks(bundle)
        self.spec = start.spec
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self._path = state
        self.stopped: Callable[[], bool] = lambda: False
        self.deferred: Callable[[], AbstractContextManager[None]] = nullcontext
        self.kept: dict[str, Any] = {}
        self.step = 0
        self.seconds = 0.0
        self._saved = time.perf_counter()
        torch.manual_seed(seed)
        self._build(start.nets)
        if state is not None and state.exists():
            self._restore(torch.load(state, weights_only=True))

    def _build(self, sources: tuple[nn.Module, ...]) -> None:
        recipe, fabric = self.recipe, self.fabric
        copies = len(sources) < 2
        sources = (sources * 2)[: recipe.networks] if copies else sources
        nets = [copy.deepcopy(source) for source in sources[: recipe.networks]]
        if recipe.head_noise and copies:
            for n, net in enumerate(nets[1:]):
                perturb_head(net, recipe.head_noise, self.seed + n)
        groups = [trainable_parameters(net, recipe.learn) for net in nets]
        parameters = [parameter for group in groups for parameter in group]
        adam: torch.optim.Optimizer = (
            optimizer.RelativeAdam(parameters, recipe.rate)
            if recipe.optimizer == "relative"
            else torch.optim.Adam(parameters, recipe.rate)
        )
        averages = [frozen_copy(net).to(fabric.device) for net in nets if recipe.ema]
        # No slower on a CPU (benchmarks/adaptation/step.py), and the layout that tensor cores use.
        nets = [net.to(memory_format=torch.channels_last) for net in nets]  # type: ignore[call-overload]
        students: list[nn.Module] = [fabric.setup_module(net) for net in nets]
        self.optimizer: torch.optim.Optimizer = fabric.setup_optimizers(adam)  # type: ignore[assignment]
        peaks = [
            1.0 if labels is None else labels.mean_peak(self.data.rows)
            for labels in (self.data.teacher, self.data.source)
        ]
        frozen = [frozen_copy(source).to(fabric.device) for source in sources]
        self.networks = Networks(students, averages, frozen[0], *peaks)
        self._sources = [
            {name: value.clone() for name, value in net.state_dict().items()} for net in frozen
        ]
        self._step = Step(
            self.networks,
            recipe,
            self.spec,
            self.data.persons.offset,
            self.optimizer,
            fabric.backward,
            self._known(),
        )

    def _known(self) -> NDArray[np.bool_] | None:
        """Keypoints that consistency teaches, (K,): those that the teacher has; None for all.

        Those of a frozen ensemble are its own. Any other teacher learns from the labels: in a union
        of skeletons it has the keypoints of their data set (Xie et al.).
        """
        teacher, labeled = self.data.teacher, self.data.labeled
        if self.recipe.teacher == "ensemble":
            return None if teacher is None else teacher.known
        return None if labeled is None else labeled.known

    def __iter__(self) -> Iterator[Snapshot]:
        with ThreadPoolExecutor(1, "posekit-batch") as pool:
            ahead = pool.submit(self.batch, self.step)
            while self.step < self.recipe.steps:
                due = self._is_read(self.step + 1)
                with self.deferred():
                    if due:  # what reads the network may be interrupted
                        self._save(_BEFORE_READING_S)
                    started = time.perf_counter()
                    batch = ahead.result()
                    ahead = pool.submit(self.batch, self.step + 1)
                    report = self._take_step(batch)
                    self.seconds += time.perf_counter() - started
                    if not due:
                        self._save_or_stop()
                if due:
                    yield Snapshot(
                        self.step, self.export_network(), self.networks, report, self.seconds
                    )
                    with self.deferred():
                        self._save_or_stop()

    def _is_read(self, step: int) -> bool:
        return step % self.recipe.watch_every == 0 or step == self.recipe.steps

    def _take_step(self, batch: Batch) -> StepReport:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = optimizer.learning_rate(self.step, recipe)
        for student in self.networks.students:
            set_train_mode(student, recipe.batch_norm)
        torch.set_flush_denormal(True)  # a vanishing map's gradients are denormal, which is slow
        try:
            report = self._step(batch, consistency=self.step >= recipe.alone_steps)
        finally:
            torch.set_flush_denormal(False)  # it applies to the whole thread
        if not all(np.isfinite(value) for value in report.losses.values()):
            raise DivergedError(
                f"step {self.step}: the loss is {report.losses}, wanted finite numbers; the old "
                f"weights stand. Try a rate below {recipe.rate:g} (--set rate=…)"
            )
        self.step += 1
        if recipe.anchor:
            self._decay_to_source()
        for average, student in zip(self.networks.averages, self.networks.students, strict=False):
            optimizer.update_ema(average, student, decay=recipe.ema, count=self.step)
        return report

    def _decay_to_source(self) -> None:
        """Weight decay towards the source's weights, decoupled from Adam as in AdamW."""
        decay = self.optimizer.param_groups[0]["lr"] * self.recipe.anchor
        with torch.no_grad():
            for student, source in zip(self.networks.students, self._sources, strict=False):
                for name, parameter in unwrap(student).named_parameters():
                    if parameter.requires_grad:
                        parameter.lerp_(source[name], decay)

    def export_network(self, index: int = 0) -> nn.Module:
        """A copy of the network with averaged weights, blended with the source's."""
        net = copy.deepcopy(
            self.networks.averages[index]
            if self.networks.averages
            else unwrap(self.networks.students[index])
        )
        state = net.state_dict()
        for name, value in state.items():
            if value.is_floating_point():
                state[name] = torch.lerp(self._sources[index][name], value, self.recipe.blend)
        net.load_state_dict(state)
        return net.eval()

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        recipe, data = self.recipe, self.data
        places = self._places(step, recipe.batch)
        order = functools.partial(self._order, probabilities=self._probabilities())
        rows = data.rows[epoch_rows(places, len(data.rows), order)]
        ensemble = None
        if data.teacher is not None and recipe.teacher == "ensemble":
            maps = np.asarray(data.teacher.maps[rows], np.float32)
            ensemble = torch.from_numpy(maps).to(self.fabric.device)
        return Batch(
            [np.random.default_rng((self.seed, 1, place)) for place in places.tolist()],
            data.persons.patches[rows],
            ensemble,
            self._disputed(rows),
            self._labels(step),
        )

    def _places(self, step: int, size: int) -> Int64:
        """This process's places of a batch in the endless sequence of samples."""
        places = np.arange(step * size, (step + 1) * size)
        return places[self.fabric.global_rank :: self.fabric.world_size]

    def _order(self, epoch: int, probabilities: Float64 | None) -> Int64:
        """An epoch's order of the rows: a permutation, or drawn with replacement."""
        random, count = np.random.default_rng((self.seed, 2, epoch)), len(self.data.rows)
        if probabilities is None:
            return random.permutation(count)
        return random.choice(count, count, p=probabilities)

    def _differ(self, rows: Int64) -> NDArray[np.bool_] | None:
        """Joints (n, K) that teacher and source predict at different places; None without them."""
        teacher, source = self.data.teacher, self.data.source
        if teacher is None or source is None:
            return None
        distance = np.linalg.norm(teacher.points[rows] - source.points[rows], axis=2)
        differ: NDArray[np.bool_] = distance > _DISPUTED * max(self.spec.input_size)
        return differ

    def _disputed(self, rows: Int64) -> torch.Tensor | None:
        """Where the ensemble is confident and the source predicts another place, (n, K)."""
        teacher = self.data.teacher
        if not self.recipe.dispute or teacher is None or (differ := self._differ(rows)) is None:
            return None
        confident = teacher.scores[rows] > _CONFIDENT * self.networks.teacher_peak
        return torch.from_numpy((differ & confident).astype(np.float32)).to(self.fabric.device)

    def _probabilities(self) -> Float64 | None:
        """Probability of drawing each person, where the recipe prefers disputed ones."""
        if not self.recipe.focus or (differ := self._differ(self.data.rows)) is None:
            return None
        weights = 1 + self.recipe.focus * differ.mean(1)
        return np.asarray(weights / weights.sum())

    def _labels(self, step: int) -> Labels | None:
        labeled, recipe = self.data.labeled, self.recipe
        if labeled is None or not recipe.supervised:
            return None
        count = len(labeled)
        places = self._places(step, recipe.labelled_batch)
        rows = epoch_rows(
            places, count, lambda e: np.random.default_rng((self.seed, 3, e)).permutation(count)
        )
        return Labels(
            [np.random.default_rng((self.seed, 4, place)) for place in places.tolist()],
            labeled.persons.patches[rows],
            labeled.points[rows],
            labeled.weights[rows],
        )

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to resume."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "students": [unwrap(net).state_dict() for net in self.networks.students],
            "averages": [net.state_dict() for net in self.networks.averages],
            "optimizer": self.optimizer.state_dict(),
            "kept": self.kept,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        for net, values in zip(self.networks.students, state["students"], strict=True):
            unwrap(net).load_state_dict(values)
        for net, values in zip(self.networks.averages, state["averages"], strict=True):
            net.load_state_dict(values)
        self.optimizer.load_state_dict(state["optimizer"])
        self.kept = dict(state.get("kept", {}))

    def _save_or_stop(self) -> None:
        self._save(_SAVE_S if self.step < self.recipe.steps else 0.0)
        if self.stopped():
            self.save()
            raise KeyboardInterrupt

    def _save(self, after_s: float) -> None:
        if self._path is None or self.fabric.global_rank:
            return
        if time.perf_counter() - self._saved > after_s:
            self.save()

    def save(self) -> None:
        """Write the state, atomically."""
        if self._path is None:
            return
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_atomic(self._path, buffer.getvalue(), shared=True)
        self._saved = time.perf_counter()


def epoch_rows(places: Int64, count: int, order: Callable[[int], Int64]) -> Int64:
    """Rows (n,) at these places of an endless sequence of epochs of `count` samples.

    order: (count,), the rows of an epoch, by its number; called once for each epoch of `places`.
    """
    epochs = places // count
    orders = {epoch: order(epoch) for epoch in set(epochs.tolist())}
    rows = [orders[e][p % count] for e, p in zip(epochs.tolist(), places.tolist(), strict=True)]
    return np.array(rows, np.int64)
