"""Whether a time budget is enough to learn something, and how many steps fit into it.

A budget covers the whole run: searching for persons, the teacher, training, evaluations, the
verdict. What each costs is timed on generated persons before anything is read, so that a budget
that is too short is refused within seconds.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.types import ModelSpec
from posekit_finetune.assess import indicators, predict
from posekit_finetune.data.find import MIN_PERSONS
from posekit_finetune.data.persons import Persons, offset_of, patch_size
from posekit_finetune.recipe import Recipe
from posekit_finetune.run_options import RunOptions
from posekit_finetune.targets import needs_all_persons
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import start_networks
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels

MIN_STEPS = 100
"""Least number of steps that a budget must allow; see MIN_SHARE."""

MIN_SHARE = 0.1
"""Least share of the recipe's steps. Measured with Lightning on 300 persons of LSPET, 100 held out:
after 140 steps the gate passed the model (flip equivariance +2.6 points, 95 % 0.2 to 5.2; labels
+2.0, 0.5 to 3.5), after 40 nothing was significant (+0.9, -1.0 to 3.2; labels +1.1, 0.0 to 2.3)."""

EVALUATIONS = 4
"""Evaluations during training, at most, of a run that is shortened by its budget."""

_MARGIN = 0.15
"""Share of the remaining time that stays free: a machine in use slows down."""

_SUGGESTED = 1.35
"""A suggested budget is larger than the estimate by this factor, so that it is not refused too."""

_FINISH_S, _OPENING_S = 10.0, 5.0
"""Seconds to write and verify the adapted model, and to open the networks of the teacher."""

_TIMED_PERSONS, _TIMED_STEPS, _TIMED_IMAGES = 6, 3, 20


def minimum_steps(recipe: Recipe) -> int:
    """Fewer steps than this change too little to be measured."""
    return min(recipe.steps, max(MIN_STEPS, math.ceil(MIN_SHARE * recipe.steps)))


@dataclass(frozen=True)
class Costs:
    """Seconds of each part of a run on this machine.

    step_s: a training step.  teacher_s: the pseudo-labels of a person.  held_out_s: the rotated
    views of a held-out person.  evaluation_s: one evaluation of a held-out person.
    """

    step_s: float
    teacher_s: float
    held_out_s: float
    evaluation_s: float

    def before_training(self, persons: int, held: int) -> float:
        """Seconds from the end of the search to the first step."""
        return persons * self.teacher_s + held * (self.held_out_s + self.evaluation_s)

    def training(self, steps: int, held: int) -> float:
        """Seconds of the training, its evaluations, and the verdict."""
        return steps * self.step_s + held * self.evaluation_s * (EVALUATIONS + 1) + _FINISH_S


@dataclass(eq=False)
class TimeBudget:
    """A budget of `limit_s` seconds that began at `started` (time.perf_counter)."""

    limit_s: float
    started: float
    costs: Costs
    recipe: Recipe
    _searched_s: float = 0.0
    _expected_s: float = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self.started

    def check_at_start(self) -> None:
        """Raise InputError where the least number of persons would already be too many."""
        where = f"even with {MIN_PERSONS} persons"
        self._require(MIN_PERSONS, MIN_PERSONS // 4, spent_s=0.0, where=where)

    def check_search(self, done: int, total: int) -> None:
        """Raise InputError where too little time remains after the search for persons."""
        if done >= min(total, _TIMED_IMAGES):
            where = f"after searching {total:,} images for persons"
            expected_s = self.spent_s * total / done
            self._require(MIN_PERSONS, MIN_PERSONS // 4, spent_s=expected_s, where=where)

    def check(self, persons: int, held: int) -> None:
        """Raise InputError where too little time remains after the teacher."""
        self._require(persons, held, spent_s=self.spent_s, where=f"with {persons:,} persons")
        self._searched_s = self.spent_s
        self._expected_s = self.costs.before_training(persons, held)

    def steps(self, held: int) -> int:
        """How many steps fit into the remaining time: the minimum to the recipe's.

        The teacher has run: where it took longer than expected, so will the steps.
        """
        slower = 1.0
        if self._expected_s:
            elapsed_s = self.spent_s - self._searched_s - _OPENING_S
            slower = max(1.0, elapsed_s / self._expected_s)
        fitting = int(self._fitting(self.limit_s - self.spent_s, held) / slower)
        return min(self.recipe.steps, max(fitting, minimum_steps(self.recipe)))

    def _fitting(self, seconds: float, held: int) -> int:
        fixed_s = self.costs.training(0, held)
        return max(0, int(((1 - _MARGIN) * seconds - fixed_s) / self.costs.step_s))

    def _require(self, persons: int, held: int, *, spent_s: float, where: str) -> None:
        spent_s += self.costs.before_training(persons, held)
        fitting = self._fitting(self.limit_s - spent_s, held)
        least, planned = minimum_steps(self.recipe), self.recipe.steps
        if fitting >= least:
            return
        needed, whole = (
            60 * math.ceil(_SUGGESTED * (spent_s + self.costs.training(steps, held)) / 60)
            for steps in (least, planned)
        )
        raise InputError(
            f"--budget {duration(self.limit_s)} allows about {fitting:,} of the recipe's "
            f"{planned:,} steps {where}; wanted at least {least:,}, since fewer change too little "
            f"to be measured. Pass --budget {duration(needed)} or more ({duration(whole)} for all "
            f"steps){self._fewer_persons(persons)}"
        )

    def _fewer_persons(self, persons: int) -> str:
        """A hint at a number of persons that fits, or nothing."""
        least = minimum_steps(self.recipe)
        for limit in range(persons // 2 // 50 * 50, MIN_PERSONS, -50):
            held = max(limit // 10, min(100, limit * 3 // 10))
            spent_s = self.spent_s + self.costs.before_training(limit, held)
            if self._fitting(self.limit_s - spent_s, held) >= 1.1 * least:
                return f", or use fewer persons: --limit {limit}"
        return ""


def duration(seconds: float) -> str:
    """Such as 45s, 2min10s, 12min, 2h5min, as --budget takes it; whole minutes from ten on."""
    whole = math.ceil(seconds)
    if whole >= 600:
        whole = 60 * math.ceil(seconds / 60)
    elif whole < 120:
        return f"{whole}s"
    parts = {"h": whole // 3600, "min": whole // 60 % 60, "s": whole % 60}
    return "".join(f"{count}{unit}" for unit, count in parts.items() if count)


def measure_costs(source: Bundle, options: RunOptions) -> Costs:
    """Time every part of a run on a few generated persons. Raises BundleError."""
    recipe, spec = options.recipe, source.pose_spec
    persons = _generated(spec)
    network = predict.of_bundle(source, threads=options.threads)
    started = time.perf_counter()
    indicators.measure(network, persons, np.arange(len(persons)))
    evaluation_s = (time.perf_counter() - started) / len(persons)
    views = recipe.ensemble_views
    teacher_s = 0.0
    if needs_all_persons(recipe):
        teacher = options.teacher or source
        teacher_s = _teacher_s(teacher, views, options.threads) + evaluation_s / 6
    return Costs(
        step_s=_step_s(source, options, persons),
        teacher_s=teacher_s,
        held_out_s=_teacher_s(source, 14, options.threads) if options.teacher is None else 0.0,
        evaluation_s=evaluation_s * recipe.networks,
    )


def _teacher_s(teacher: Bundle, views: int, threads: int) -> float:
    """Seconds of the pseudo-labels of one person."""
    moments: list[tuple[int, float]] = []
    predict_pseudo_labels(
        _generated(teacher.pose_spec),
        teacher,
        views=views,
        threads=threads,
        progress=lambda done, _: moments.append((done, time.perf_counter())),
    )
    (first, started), (last, ended) = moments[0], moments[-1]
    return (ended - started) / (last - first)


def _step_s(source: Bundle, options: RunOptions, persons: Persons) -> float:
    """Seconds of a step: the median, without the first, which is slower."""
    moments: list[float] = []

    def count() -> bool:
        moments.append(time.perf_counter())
        return False

    steps = 1 + _TIMED_STEPS
    trial = dataclasses.replace(options.recipe, steps=steps, watch_every=2 * steps, alone_steps=0)
    labels = _generated_labels(persons.spec) if needs_all_persons(trial) else None
    data = TrainingData(persons, np.arange(len(persons)), labels, labels, options.labeled)
    second = [options.second] if options.second else []
    loop = Loop(start_networks(source, *second), data, trial, seed=options.seed)
    loop.stopped = count
    list(loop)
    return float(np.median(np.diff(moments)))


def _generated(spec: ModelSpec) -> Persons:
    """Persons of noise: what is timed does not depend on what an image shows."""
    width, height = patch_size(spec)
    random, count = np.random.default_rng(0), _TIMED_PERSONS
    return Persons(
        patches=random.integers(0, 256, (count, height, width, 3), np.uint8),
        offset=offset_of(spec),
        boxes=np.tile(np.array([0, 0, width, height], np.float32), (count, 1)),
        sources=("generated",) * count,
        groups=np.arange(count),
        times_s=np.full(count, np.nan),
        tracks=np.full(count, -1),
        spec=spec,
        fingerprint="generated",
    )


def _generated_labels(spec: ModelSpec) -> PseudoLabels:
    """Maps in which every keypoint is found with a peak of 1."""
    random, keypoints = np.random.default_rng(1), len(spec.skeleton)
    size = (_TIMED_PERSONS, keypoints, *spec.heatmap_size[::-1])
    maps: NDArray[np.float16] = random.random(size).astype(np.float16)
    points = random.uniform(0, min(spec.input_size), (*size[:2], 2)).astype(np.float32)
    return PseudoLabels(maps, points, np.ones(size[:2], np.float32))
