"""A model and unlabelled pictures in; a better model, or a reason why not, out."""

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
from posekit.errors import AdaptError, CollapsedError, DivergedError, RecipeError
from posekit_finetune.assess import gate
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.assess.held_out import HeldOut, learn
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.label_check import Checker
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.data.find import find_persons
from posekit_finetune.data.persons import Persons, split
from posekit_finetune.options import AdaptOptions, Hooks
from posekit_finetune.recipe import Recipe
from posekit_finetune.report.provenance import networks, provenance, run_cost, run_facts
from posekit_finetune.targets import content_key, training_targets
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import Start, start_networks
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import with_rotated_views

AGREED = 0.95
"""Where the source agrees with the multi-view teacher on more of the body's joints than this,
there is nothing to learn: 0.97 on a domain where adaptation changed nothing, 0.80 on LSPET."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    adapted: the model, or None where nothing was learned.  verdict: the gate's, or None where it
    was not asked.  reason: one sentence.  before, after: what was measured on the held-out persons.
    history: readings during learning.  facts: what the report says of data, time and machine.
    error: CollapsedError or DivergedError, where learning was stopped.
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


def adapt(source: Bundle, options: AdaptOptions, hooks: Hooks = Hooks()) -> Outcome:
    """Learn from unlabelled pictures, keep the best weights, and let the gate judge them.

    Raises DataError, InputError and RecipeError, before learning; a refusal is in the verdict, a
    collapse in `error`.
    """
    started = time.perf_counter()
    _agreeing(options)
    torch.set_num_threads(options.threads)
    hooks.on_stage("looking for persons")
    find = dataclasses.replace(options.find, threads=options.threads)
    persons = find_persons(
        options.unlabeled, source.pose_spec, find, work=options.work, progress=hooks.on_count
    )
    rows, held = split(persons, seed=options.seed)
    hooks.on_stage(f"{len(rows)} persons to learn from, {len(held)} held out; asking the teacher")
    material, teacher = training_targets(
        source, persons, (rows, held), options=options, hooks=hooks
    )
    if options.teacher is None:  # another model's views do not flatter the source
        teacher = with_rotated_views(teacher, persons, held, bundle=source, threads=options.threads)
    watched = HeldOut(source, persons, held, teacher, options.threads)
    before = watched.measure(source.weights, None)
    agreed = before.mean("teacher")
    told = run_facts(source, persons, options, signal=agreed)
    outcome = Outcome(None, None, "", before, None, (), told, persons, options.recipe)
    if options.teacher is None and options.labeled is None and agreed > AGREED:
        reason = (
            f"the model agrees with its own multi-view answer on {agreed:.1%} of the joints; "
            "nothing was written"
        )
        return dataclasses.replace(outcome, reason=reason)
    hooks.on_stage(f"learning; networks: {networks(source, options)}")
    loop = _loop(source, material, options)
    loop.stopped, loop.deferred = hooks.stopped, hooks.deferred
    learned = _learned(outcome, loop, watched, on_reading=hooks.on_reading)
    if learned.error is None:
        hooks.on_stage("judging")
        learned = _judged(learned, loop, watched, checks=options.checks)
    return dataclasses.replace(learned, facts={**learned.facts, **run_cost(started, loop)})


def _agreeing(options: AdaptOptions) -> None:
    """Raises RecipeError where the recipe has no use for a model that was given."""
    recipe = options.recipe
    if options.second is not None and recipe.networks == 1:
        raise RecipeError(
            f"--second {options.second.name}: the recipe {options.recipe_name} trains one network; "
            "take one of two, such as --recipe dual, or --set networks=2"
        )
    if options.teacher is not None and recipe.teacher != "ensemble":
        raise RecipeError(
            f"--teacher {options.teacher.name}: in the recipe {options.recipe_name} the teacher is "
            f"{recipe.teacher}; take --recipe default, or --set teacher=ensemble"
        )


def _learned(
    outcome: Outcome,
    loop: Loop,
    watched: HeldOut,
    *,
    on_reading: Callable[[MonitorReading, float], None],
) -> Outcome:
    """The outcome with the best weights in it, or with why learning was stopped."""
    monitor = Monitor(outcome.before, labeled=loop.data.labeled is not None)
    told = dataclasses.replace(outcome, recipe=loop.recipe)
    try:
        best = learn(loop, monitor, watched, on_reading=on_reading)
    except (CollapsedError, DivergedError) as error:
        return dataclasses.replace(
            told, reason=str(error), error=error, history=tuple(monitor.history)
        )
    # A calibration and a GPU's plans hold for the weights that they were made of.
    source = watched.source
    extras = {
        name: part
        for name, part in source.extras.items()
        if name != "calibration.json" and not name.startswith("engines/")
    }
    adapted = dataclasses.replace(source, weights=best, extras=extras, sha256="")
    return dataclasses.replace(told, adapted=adapted, history=tuple(monitor.history))


def _judged(
    outcome: Outcome, loop: Loop, watched: HeldOut, *, checks: Sequence[Checker]
) -> Outcome:
    """The outcome with the gate's verdict."""
    if outcome.adapted is None:
        raise AssertionError("only what was learned is judged")
    adapted, source = outcome.adapted, watched.source
    after = watched.measure(adapted.weights, outcome.before)
    made = [check(source, adapted) for check in checks]
    verdict = gate.judge(outcome.before, after, checks=made)
    descent = provenance(source, outcome.facts, loop.recipe, verdict=verdict)
    told = {**outcome.facts, **watched.networks(loop, checks)}
    return dataclasses.replace(
        outcome,
        adapted=dataclasses.replace(adapted, provenance=descent),
        verdict=verdict,
        reason="; ".join(verdict.reasons),
        after=after,
        facts=told,
    )


def _told(material: TrainingData, options: AdaptOptions) -> str:
    """All that decides what a run learns, beside the source."""
    models = [content_key("", each, 0) for each in (options.teacher, options.second) if each]
    labeled = options.labeled.persons.fingerprint if options.labeled else ""
    numbers = [options.recipe.to_dict(), options.seed, options.budget_s]
    return material.persons.fingerprint + json.dumps([numbers, models, labeled], sort_keys=True)


def _start(source: Bundle, options: AdaptOptions) -> Start:
    return start_networks(source, *([options.second] if options.second else []))


def _loop(source: Bundle, material: TrainingData, options: AdaptOptions) -> Loop:
    """The loop, as long as the budget allows; a resumed one goes on."""
    key = content_key(_told(material, options), source, 0)
    state = options.work / f"state-{key}.pt"
    if not options.resume:
        state.unlink(missing_ok=True)
    recipe = options.recipe
    fabric = Fabric(accelerator="auto", devices=1)
    if options.budget_s is not None:
        recipe = _within(source, material, options, budget_s=options.budget_s)
    start = _start(source, options)
    return Loop(start, material, recipe, seed=options.seed, fabric=fabric, state=state)


def _within(
    source: Bundle, material: TrainingData, options: AdaptOptions, *, budget_s: float
) -> Recipe:
    """The recipe with as many steps as fit; remembered, so that a resumed run has as many."""
    recipe = options.recipe
    path = options.work / f"steps-{content_key(_told(material, options), source, 0)}.txt"
    if options.resume and path.exists():
        return dataclasses.replace(recipe, steps=int(path.read_text()))
    trial = dataclasses.replace(recipe, steps=6, watch_every=6)
    loop = Loop(_start(source, options), material, trial, seed=options.seed)
    list(loop)
    steps = max(1, int(0.8 * budget_s / (loop.seconds / loop.step)))
    write_atomic(path, str(steps), shared=True)
    watch = min(recipe.watch_every, max(1, steps // 3))
    return dataclasses.replace(recipe, steps=steps, watch_every=watch)
