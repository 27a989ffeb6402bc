"""The steps of an adaptation: find persons, predict pseudo-labels, train, apply the gate."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import AdaptError, CollapsedError, DivergedError
from posekit.types import Int64
from posekit_finetune.assess import gate
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.held_out import HeldOut, train
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.budget import EVALUATIONS, TimeBudget, duration, measure_costs
from posekit_finetune.data.find import find_persons
from posekit_finetune.data.persons import Persons, split
from posekit_finetune.recipe import Recipe
from posekit_finetune.report.provenance import networks, provenance, run_cost, run_facts
from posekit_finetune.run_options import AdaptHooks, RunOptions
from posekit_finetune.targets import content_key, training_targets
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import Start, start_networks
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import with_rotated_views

MAX_AGREEMENT = 0.95
"""Where the source agrees with its own test-time augmentation on more of the body's joints, there
is nothing to learn: 0.97 on a domain where adaptation changed nothing, 0.80 on LSPET."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of an adaptation.

    adapted: the model, or None where nothing was learned.  verdict: the gate's, or None where
    training did not finish.  reason: one sentence.  before, after: indicators of source and adapted
    model on the held-out persons.  history: readings during training.  facts: of data, time and
    machine, for the report.  error: CollapsedError or DivergedError, where training was stopped.
    """

    adapted: Bundle | None
    verdict: Verdict | None
    reason: str
    before: Indicators
    after: Indicators | None
    history: tuple[MonitorReading, ...]
    facts: Mapping[str, Any]
    persons: Persons
    recipe: Recipe
    error: AdaptError | None = None


def adapt(source: Bundle, options: RunOptions, hooks: AdaptHooks = AdaptHooks()) -> Outcome:
    """Adapt `source` to unlabeled images, select the best weights, and compare them with it.

    Raises DataError and InputError before training; a refusal is in the verdict, a collapse in
    `error`.
    """
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    budget = functools.cache(lambda: _budget(source, options, started, hooks=hooks))
    checked = None if options.resume else budget()  # the first run of a resumed one has checked it
    persons, (rows, held) = _find(source, options, checked, hooks=hooks)
    data, held_out = _with_teacher(source, persons, (rows, held), options=options, hooks=hooks)
    hooks.on_stage(f"evaluating {source.name} on the {len(held):,} held-out persons")
    before = held_out.measure(source.weights, None, progress=hooks.on_count)
    agreement = before.mean("teacher")
    facts = run_facts(source, persons, options, agreement=agreement)
    facts = {**facts, "held_out": len(held), "steps_of_recipe": options.recipe.steps}
    outcome = Outcome(None, None, "", before, None, (), facts, persons, options.recipe)
    if options.teacher is None and options.labeled is None and agreement > MAX_AGREEMENT:
        reason = (
            f"the model agrees with its own test-time augmentation on {agreement:.1%} of the "
            "joints; nothing was written"
        )
        return dataclasses.replace(outcome, reason=reason, facts={**facts, **run_cost(started)})
    loop = _loop(source, data, options, budget=budget, hooks=hooks)
    if loop.step:
        outcome = dataclasses.replace(outcome, facts={**facts, "resumed_at_step": loop.step})
    hooks.on_stage(f"training, {loop.recipe.steps:,} steps; networks: {networks(source, options)}")
    outcome = _trained(outcome, loop, held_out, on_reading=hooks.on_reading)
    if outcome.error is None:
        hooks.on_stage(f"comparing with {source.name} on the held-out persons")
        outcome = _judged(outcome, loop, held_out, checks=options.checks, hooks=hooks)
    return dataclasses.replace(outcome, facts={**outcome.facts, **run_cost(started, loop)})


def _budget(
    source: Bundle, options: RunOptions, started: float, *, hooks: AdaptHooks
) -> TimeBudget | None:
    """The budget, if there is one. Raises InputError where it is too short for any persons."""
    if options.budget_s is None:
        return None
    hooks.on_stage(f"timing each part of a run, for the budget of {duration(options.budget_s)}")
    costs = measure_costs(source, options)
    budget = TimeBudget(options.budget_s, started, costs, options.recipe)
    budget.check_at_start()
    return budget


def _find(
    source: Bundle, options: RunOptions, budget: TimeBudget | None, *, hooks: AdaptHooks
) -> tuple[Persons, tuple[Int64, Int64]]:
    """The persons, and the rows to train on and those held out. Raises DataError, InputError."""

    def count(done: int, total: int) -> None:
        hooks.on_count(done, total)
        if budget is not None:
            budget.check_search(done, total)

    hooks.on_stage("searching the images for persons")
    find = dataclasses.replace(options.find, threads=options.threads)
    persons = find_persons(
        options.unlabeled, source.pose_spec, find, work=options.work, progress=count
    )
    rows, held = split(persons, seed=options.seed)
    if budget is not None:
        budget.check(len(persons), len(held))
    return persons, (rows, held)


def _with_teacher(
    source: Bundle,
    persons: Persons,
    parts: tuple[Int64, Int64],
    *,
    options: RunOptions,
    hooks: AdaptHooks,
) -> tuple[TrainingData, HeldOut]:
    """The training data and what the held-out persons are evaluated with."""
    rows, held = parts
    hooks.on_stage(f"{len(rows):,} persons to train on, {len(held):,} held out")
    data, teacher = training_targets(source, persons, parts, options=options, hooks=hooks)
    if options.teacher is None:  # another model's views are not biased towards the source
        hooks.on_stage(f"running the teacher's rotated views of the {len(held):,} held-out persons")
        teacher = with_rotated_views(
            teacher,
            persons,
            held,
            bundle=source,
            threads=options.threads,
            progress=hooks.on_count,
        )
    return data, HeldOut(source, persons, held, teacher, options.threads)


def _trained(
    outcome: Outcome,
    loop: Loop,
    held_out: HeldOut,
    *,
    on_reading: Callable[[MonitorReading, float], None],
) -> Outcome:
    """The outcome with the best weights, or with the error that stopped the training."""
    monitor = Monitor(outcome.before, labeled=loop.data.labeled is not None)
    outcome = dataclasses.replace(outcome, recipe=loop.recipe)
    try:
        best = train(loop, monitor, held_out, on_reading=on_reading)
    except (CollapsedError, DivergedError) as error:
        return dataclasses.replace(
            outcome, reason=str(error), error=error, history=tuple(monitor.history)
        )
    # A calibration and a GPU's engines are valid for the weights that they were made of only.
    source = held_out.source
    extras = {
        name: part
        for name, part in source.extras.items()
        if name != "calibration.json" and not name.startswith("engines/")
    }
    adapted = dataclasses.replace(source, weights=best, extras=extras, sha256="")
    return dataclasses.replace(outcome, adapted=adapted, history=tuple(monitor.history))


def _judged(
    outcome: Outcome,
    loop: Loop,
    held_out: HeldOut,
    *,
    checks: Sequence[Checker],
    hooks: AdaptHooks,
) -> Outcome:
    """The outcome with the gate's verdict."""
    if outcome.adapted is None:
        raise AssertionError("a verdict needs trained weights")
    adapted, source = outcome.adapted, held_out.source
    after = held_out.measure(adapted.weights, outcome.before, progress=hooks.on_count)
    checked = [check(source, adapted) for check in checks]
    verdict = gate.judge(outcome.before, after, checks=checked)
    origin = provenance(source, outcome.facts, loop.recipe, verdict=verdict)
    return dataclasses.replace(
        outcome,
        adapted=dataclasses.replace(adapted, provenance=origin),
        verdict=verdict,
        reason="; ".join(verdict.reasons),
        after=after,
        facts={**outcome.facts, **held_out.member_figures(loop, checks)},
    )


def _inputs(data: TrainingData, options: RunOptions) -> str:
    """Everything that decides the weights of a run, beside the source."""
    models = [content_key("", each, 0) for each in (options.teacher, options.second) if each]
    labeled = options.labeled.persons.fingerprint if options.labeled else ""
    numbers = [options.recipe.to_dict(), options.seed, options.budget_s]
    return data.persons.fingerprint + json.dumps([numbers, models, labeled], sort_keys=True)


def _start(source: Bundle, options: RunOptions) -> Start:
    return start_networks(source, *([options.second] if options.second else []))


def _loop(
    source: Bundle,
    data: TrainingData,
    options: RunOptions,
    *,
    budget: Callable[[], TimeBudget | None],
    hooks: AdaptHooks,
) -> Loop:
    """The loop, within the budget; resumed where a state is stored."""
    key = content_key(_inputs(data, options), source, 0)
    state = options.work / f"state-{key}.pt"
    if not options.resume:
        state.unlink(missing_ok=True)
    recipe = options.recipe
    if options.budget_s is not None:
        path = options.work / f"steps-{key}.txt"
        recipe = _within_budget(data, options, budget, path=path)
    fabric = Fabric(accelerator="auto", devices=1)
    start = _start(source, options)
    loop = Loop(start, data, recipe, seed=options.seed, fabric=fabric, state=state)

    def stopped() -> bool:
        hooks.on_count(loop.step, recipe.steps)
        return hooks.stopped()

    loop.stopped, loop.deferred = stopped, hooks.deferred
    return loop


def _within_budget(
    data: TrainingData,
    options: RunOptions,
    budget: Callable[[], TimeBudget | None],
    *,
    path: Path,
) -> Recipe:
    """The recipe with the number of steps that fit; stored, so that a resumed run has the same."""
    recipe = options.recipe
    if options.resume and path.exists():
        steps = int(path.read_text())
    elif (measured := budget()) is not None:
        steps = measured.steps(len(data.persons) - len(data.rows))
        write_atomic(path, str(steps), shared=True)
    else:
        return recipe
    watch = min(recipe.watch_every, math.ceil(steps / (EVALUATIONS - 1)))
    return dataclasses.replace(recipe, steps=steps, watch_every=watch)
