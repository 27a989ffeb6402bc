"""Everything around the step that a reader of the paper would skip: batches, devices, saving.

What a step learns from depends on the seed and its number only, so a run that was cut off goes on
exactly where it was, and several processes share a batch out without changing it.
"""

from __future__ import annotations

import copy
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
from posekit.types import Float32, Int64
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import optimizer
from posekit_finetune.train.networks import (
    Start,
    frozen_copy,
    mode,
    perturb_head,
    start_networks,
    trainable_parameters,
    unwrap,
)
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.step import Batch, Labels, Networks, Step, StepReport

_SAVE_S = 60.0
"""Between two savings of the state."""

_BEFORE_READING_S = 10.0
"""The same before a reading: it takes long, and an interruption does not wait for its end."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a run is after `step` steps; `net` is what would be handed out."""

    step: int
    net: nn.Module
    networks: Networks
    report: StepReport
    seconds: float


class Loop:
    """Iterate over it: it learns, and yields a Reached every `recipe.watch_every` steps.

    state: file for going on after a kill, or None.  `stopped`, which may be replaced, is called
    after each step: where it is true the state is saved and KeyboardInterrupt raised. A step runs
    within `deferred()`, in which nothing may be interrupted. `kept` is the caller's: tensors and
    plain values that are saved with the state.  Raises DivergedError.
    """

    def __init__(
        self,
        bundle: Bundle | Start,
        material: TrainingData,
        recipe: Recipe,
        *,
        seed: int = 0,
        fabric: Fabric | None = None,
        state: Path | None = None,
    ) -> None:
        self.recipe, self.material, self.seed = recipe, material, seed
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
        twins = len(sources) < 2
        sources = (sources * 2)[: recipe.networks] if twins else sources
        nets = [copy.deepcopy(source) for source in sources[: recipe.networks]]
        if recipe.head_noise and twins:
            for n, net in enumerate(nets[1:]):
                perturb_head(net, recipe.head_noise, self.seed + n)
        chosen = [trainable_parameters(net, recipe.learn) for net in nets]
        parameters = [parameter for group in chosen for parameter in group]
        adam: torch.optim.Optimizer = (
            optimizer.RelativeAdam(parameters, recipe.rate)
            if recipe.optimizer == "relative"
            else torch.optim.Adam(parameters, recipe.rate)
        )
        averages = [frozen_copy(net).to(fabric.device) for net in nets if recipe.ema]
        # No slower on a CPU (benchmarks/step.py), and what tensor cores take as it is.
        nets = [net.to(memory_format=torch.channels_last) for net in nets]  # type: ignore[call-overload]
        students: list[nn.Module] = [fabric.setup_module(net) for net in nets]
        self.optimizer: torch.optim.Optimizer = fabric.setup_optimizers(adam)  # type: ignore[assignment]
        peaks = [
            1.0 if seen is None else seen.peak(self.material.rows)
            for seen in (self.material.taught, self.material.source)
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
            self.material.persons.offset,
            self.optimizer,
            fabric.backward,
            self._known(),
        )

    def _known(self) -> NDArray[np.bool_] | None:
        """Keypoints that consistency teaches, (K,): those that the teacher has; None for all.

        A frozen ensemble has its own. Any other teacher learned from the labels: in a union of
        skeletons it knows what their data set has (X).
        """
        taught, labelled = self.material.taught, self.material.labelled
        if self.recipe.teacher == "ensemble":
            return None if taught is None else taught.known
        return None if labelled is None else labelled.known

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
                    report = self._one(batch)
                    self.seconds += time.perf_counter() - started
                    if not due:
                        self._save_or_stop()
                if due:
                    yield Snapshot(self.step, self.handed(), self.networks, report, self.seconds)
                    with self.deferred():
                        self._save_or_stop()

    def _is_read(self, step: int) -> bool:
        return step % self.recipe.watch_every == 0 or step == self.recipe.steps

    def _one(self, batch: Batch) -> StepReport:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = optimizer.learning_rate(self.step, recipe)
        for student in self.networks.students:
            mode(student, recipe.batch_norm)
        torch.set_flush_denormal(True)  # a dying map's gradients are so small that they crawl
        try:
            report = self._step(batch, consistency=self.step >= recipe.alone_steps)
        finally:
            torch.set_flush_denormal(False)  # it holds for the whole thread
        if not all(np.isfinite(value) for value in report.losses.values()):
            raise DivergedError(
                f"step {self.step}: the loss is {report.losses}; the old weights stand. Try a "
                f"smaller rate than {recipe.rate:g} (--set rate=…)"
            )
        self.step += 1
        if recipe.anchor:
            self._pull()
        for average, student in zip(self.networks.averages, self.networks.students, strict=False):
            optimizer.update_ema(average, student, decay=recipe.ema, count=self.step)
        return report

    def _pull(self) -> None:
        """Weights decay towards the source's, decoupled from Adam as in AdamW."""
        share = self.optimizer.param_groups[0]["lr"] * self.recipe.anchor
        with torch.no_grad():
            for student, source in zip(self.networks.students, self._sources, strict=False):
                for name, parameter in unwrap(student).named_parameters():
                    if parameter.requires_grad:
                        parameter.lerp_(source[name], share)

    def handed(self, index: int = 0) -> nn.Module:
        """The network as it would be handed out now: averaged, blended with the source."""
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
        """This process's share of the batch of a step."""
        recipe, material = self.recipe, self.material
        places = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        places = places[self.fabric.global_rank :: self.fabric.world_size]
        rows = self._rows(places)
        ensemble = None
        if material.taught is not None and recipe.teacher == "ensemble":
            maps = np.asarray(material.taught.maps[rows], np.float32)
            ensemble = torch.from_numpy(maps).to(self.fabric.device)
        randoms = [np.random.default_rng((self.seed, 1, int(place))) for place in places]
        return Batch(
            randoms,
            material.persons.patches[rows],
            ensemble,
            self._disputed(rows),
            self._labels(step),
        )

    def _disputed(self, rows: Int64) -> torch.Tensor | None:
        """Where the ensemble is as sure as usual and the source's answer lies elsewhere."""
        taught, source = self.material.taught, self.material.source
        if not self.recipe.dispute or taught is None or source is None:
            return None
        far = np.linalg.norm(taught.points[rows] - source.points[rows], axis=2)
        apart = far > 0.05 * max(self.spec.input_size)
        sure = taught.scores[rows] > 0.75 * self.networks.teacher_peak
        return torch.from_numpy((apart & sure).astype(np.float32)).to(self.fabric.device)

    def _rows(self, places: Int64) -> Int64:
        """Persons at these places of an endless sequence that shuffles the set again and again."""
        rows, share = self.material.rows, self._shares()
        epochs = places // len(rows)
        orders = {}
        for epoch in set(epochs.tolist()):
            random = np.random.default_rng((self.seed, 2, epoch))
            if share is None:
                orders[epoch] = random.permutation(len(rows))
            else:
                orders[epoch] = random.choice(len(rows), len(rows), p=share)
        picked = [orders[e][p % len(rows)] for e, p in zip(epochs.tolist(), places, strict=True)]
        return rows[np.array(picked, np.int64)]

    def _shares(self) -> Float32 | None:
        """How often each person is drawn, where the recipe prefers those in dispute."""
        taught, source = self.material.taught, self.material.source
        if not self.recipe.focus or taught is None or source is None:
            return None
        rows = self.material.rows
        far = np.linalg.norm(taught.points[rows] - source.points[rows], axis=2)
        dispute = (far > 0.05 * max(self.spec.input_size)).mean(1)
        share = 1 + self.recipe.focus * dispute
        return np.asarray(share / share.sum())

    def _labels(self, step: int) -> Labels | None:
        labelled, recipe = self.material.labelled, self.recipe
        if labelled is None or not recipe.supervised:
            return None
        places = np.arange(step * recipe.labelled_batch, (step + 1) * recipe.labelled_batch)
        places = places[self.fabric.global_rank :: self.fabric.world_size]
        epochs = places // len(labelled)
        rows = [
            np.random.default_rng((self.seed, 3, e)).permutation(len(labelled))[p % len(labelled)]
            for e, p in zip(epochs.tolist(), places.tolist(), strict=True)
        ]
        randoms = [np.random.default_rng((self.seed, 4, int(place))) for place in places]
        index = np.array(rows, np.int64)
        return Labels(
            randoms,
            labelled.persons.patches[index],
            labelled.points[index],
            labelled.weights[index],
        )

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on."""
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
        """Write the state, atomically; for Ctrl-C."""
        if self._path is None:
            return
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_atomic(self._path, buffer.getvalue(), shared=True)
        self._saved = time.perf_counter()
