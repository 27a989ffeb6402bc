"""The steps of an adaptation: find persons, predict pseudo-labels, train, apply the gate."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import AdaptError, CollapsedError, DivergedError
from posekit_finetune.assess import gate
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.held_out import HeldOut, train
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.monitor import Monitor, MonitorReading
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
    hooks.on_stage("searching for persons")
    find = dataclasses.replace(options.find, threads=options.threads)
    persons = find_persons(
        options.unlabeled, source.pose_spec, find, work=options.work, progress=hooks.on_count
    )
    rows, held = split(persons, seed=options.seed)
    hooks.on_stage(f"{len(rows)} persons to train on, {len(held)} held out; running the teacher")
    data, teacher = training_targets(source, persons, (rows, held), options=options, hooks=hooks)
    if options.teacher is None:  # another model's views are not biased towards the source
        teacher = with_rotated_views(teacher, persons, held, bundle=source, threads=options.threads)
    held_out = HeldOut(source, persons, held, teacher, options.threads)
    before = held_out.measure(source.weights, None)
    agreement = before.mean("teacher")
    facts = run_facts(source, persons, options, agreement=agreement)
    outcome = Outcome(None, None, "", before, None, (), facts, persons, options.recipe)
    if options.teacher is None and options.labeled is None and agreement > MAX_AGREEMENT:
        reason = (
            f"the model agrees with its own test-time augmentation on {agreement:.1%} of the "
            "joints; nothing was written"
        )
        return dataclasses.replace(outcome, reason=reason)
    hooks.on_stage(f"training; networks: {networks(source, options)}")
    loop = _loop(source, data, options)
    loop.stopped, loop.deferred = hooks.stopped, hooks.deferred
    outcome = _trained(outcome, loop, held_out, on_reading=hooks.on_reading)
    if outcome.error is None:
        hooks.on_stage("comparing with the source")
        outcome = _judged(outcome, loop, held_out, checks=options.checks)
    return dataclasses.replace(outcome, facts={**outcome.facts, **run_cost(started, loop)})


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
    outcome: Outcome, loop: Loop, held_out: HeldOut, *, checks: Sequence[Checker]
) -> Outcome:
    """The outcome with the gate's verdict."""
    if outcome.adapted is None:
        raise AssertionError("a verdict needs trained weights")
    adapted, source = outcome.adapted, held_out.source
    after = held_out.measure(adapted.weights, outcome.before)
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


def _loop(source: Bundle, data: TrainingData, options: RunOptions) -> Loop:
    """The loop, within the budget; resumed where a state is stored."""
    key = content_key(_inputs(data, options), source, 0)
    state = options.work / f"state-{key}.pt"
    if not options.resume:
        state.unlink(missing_ok=True)
    recipe = options.recipe
    fabric = Fabric(accelerator="auto", devices=1)
    if options.budget_s is not None:
        recipe = _within_budget(source, data, options, budget_s=options.budget_s)
    start = _start(source, options)
    return Loop(start, data, recipe, seed=options.seed, fabric=fabric, state=state)


def _within_budget(
    source: Bundle, data: TrainingData, options: RunOptions, *, budget_s: float
) -> Recipe:
    """The recipe with the number of steps that fit; stored, so that a resumed run has the same."""
    recipe = options.recipe
    path = options.work / f"steps-{content_key(_inputs(data, options), source, 0)}.txt"
    if options.resume and path.exists():
        steps = int(path.read_text())
    else:
        trial = dataclasses.replace(recipe, steps=6, watch_every=6)
        loop = Loop(_start(source, options), data, trial, seed=options.seed)
        list(loop)
        steps = max(1, int(0.8 * budget_s / (loop.seconds / loop.step)))
        write_atomic(path, str(steps), shared=True)
    watch = min(recipe.watch_every, max(1, steps // 3))
    return dataclasses.replace(recipe, steps=steps, watch_every=watch)
