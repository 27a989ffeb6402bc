"""A model and unlabelled pictures in; a better model, or a reason why not, out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import AdaptError, CollapsedError, DivergedError, RecipeError
from posekit.types import Int64
from posekit_finetune import foreign, gate
from posekit_finetune.data import FindOptions, find_persons
from posekit_finetune.facts import facts, networks, provenance, spent
from posekit_finetune.gate import Verdict
from posekit_finetune.indicators import Indicators
from posekit_finetune.labelled import Labelled
from posekit_finetune.loop import Loop, Material, Start, start_of
from posekit_finetune.monitor import Monitor, Reading
from posekit_finetune.persons import Persons, split
from posekit_finetune.recipe import Recipe
from posekit_finetune.teacher import Taught, look, with_turned
from posekit_finetune.watched import Checker, Watched, learn

AGREED = 0.95
"""Where the source agrees with the multi-view teacher on more of the body's joints than this,
there is nothing to learn: 0.97 on a domain where adaptation changed nothing, 0.80 on LSPET."""


@dataclass(frozen=True)
class AdaptOptions:
    """What is learned from, how, and within what.

    unlabeled: images, folders, patterns, videos.  work: a folder for what can be made again.
    find: which persons of the pictures.  budget_s: of wall time for learning, or None for the
    recipe's steps.  teacher: another model that teaches instead of the source's own views.
    second: what the second of two networks begins as.  labelled: persons to learn from as well.
    resume: go on where a run with the same inputs stopped.  threads: CPU threads.
    checks: compare source and adapted with labels; they decide too.
    """

    unlabeled: tuple[str, ...]
    work: Path
    recipe: Recipe = Recipe()
    recipe_name: str = "default"
    find: FindOptions = FindOptions()
    seed: int = 0
    budget_s: float | None = None
    teacher: Bundle | None = None
    second: Bundle | None = None
    labelled: Labelled | None = None
    resume: bool = False
    threads: int = 1
    checks: tuple[Checker, ...] = ()


@dataclass(frozen=True)
class Hooks:
    """How a caller follows a run: `on_stage` with a sentence, `on_count` with done and all,
    `on_reading` after each look at the held-out persons; `stopped` is asked between the steps of
    learning, which run within `deferred()`: anything else may be interrupted at any time.
    """

    on_stage: Callable[[str], None] = lambda _: None
    on_count: Callable[[int, int], None] = lambda _done, _all: None
    on_reading: Callable[[Reading, float], None] = lambda _reading, _seconds: None
    stopped: Callable[[], bool] = lambda: False
    deferred: Callable[[], AbstractContextManager[None]] = nullcontext


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
    history: tuple[Reading, ...]
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
    material, teacher = _taught(source, persons, (rows, held), options=options, hooks=hooks)
    if options.teacher is None:  # another model's views do not flatter the source
        teacher = with_turned(teacher, persons, held, bundle=source, threads=options.threads)
    watched = Watched(source, persons, held, teacher, options.threads)
    before = watched.measure(source.weights, None)
    agreed = before.mean("teacher")
    told = facts(source, persons, options, signal=agreed)
    outcome = Outcome(None, None, "", before, None, (), told, persons, options.recipe)
    if options.teacher is None and options.labelled is None and agreed > AGREED:
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
    return dataclasses.replace(learned, facts={**learned.facts, **spent(started, loop)})


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
    outcome: Outcome, loop: Loop, watched: Watched, *, on_reading: Callable[[Reading, float], None]
) -> Outcome:
    """The outcome with the best weights in it, or with why learning was stopped."""
    monitor = Monitor(outcome.before, labelled=loop.material.labelled is not None)
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
    outcome: Outcome, loop: Loop, watched: Watched, *, checks: Sequence[Checker]
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


def _taught(
    source: Bundle,
    persons: Persons,
    parts: tuple[Int64, Int64],
    *,
    options: AdaptOptions,
    hooks: Hooks,
) -> tuple[Material, Taught]:
    """What is learned from, and the frozen teacher's answer, which the monitor and the gate ask.

    parts: rows to learn from, rows held out.
    """
    (rows, held), recipe = parts, options.recipe

    def asked(bundle: Bundle, whom: Persons, views: int) -> Taught:
        path = options.work / f"maps-{_key(whom.fingerprint, bundle, views)}.npy"
        return look(
            whom, bundle, views=views, threads=options.threads, path=path, progress=hooks.on_count
        )

    if not _all_are_taught(recipe):
        few = _asked_few(source, persons, held, options=options)
        return Material(persons, rows, labelled=options.labelled), few
    plain = asked(source, persons, 1)
    teacher = options.teacher or source
    if foreign.same_crops(teacher.pose_spec, source.pose_spec):
        taught = asked(teacher, persons, recipe.ensemble_views)
    else:
        theirs = foreign.recut(
            persons,
            options.unlabeled,
            teacher.pose_spec,
            options=options.find,
            work=options.work,
            progress=hooks.on_count,
        )
        told = asked(teacher, theirs, recipe.ensemble_views)
        taught = foreign.retold(
            told,
            theirs,
            persons,
            path=options.work / f"maps-{_key(theirs.fingerprint, teacher, 0)}-retold.npy",
        )
    return Material(persons, rows, taught, plain, options.labelled), taught


def _all_are_taught(recipe: Recipe) -> bool:
    """Whether a step needs the frozen ensemble's answer; the monitor asks it of few persons."""
    weighs = recipe.confidence or recipe.dispute or recipe.focus
    return bool(recipe.teacher == "ensemble" or weighs or recipe.loss == "kl")


def _asked_few(source: Bundle, persons: Persons, held: Int64, *, options: AdaptOptions) -> Taught:
    """The source's own views on the held-out persons; points of the others are NaN."""
    views = options.recipe.ensemble_views
    seen = look(persons.select(held), source, views=views, threads=options.threads)
    points = np.full((len(persons), *seen.points.shape[1:]), np.nan, np.float32)
    scores = np.zeros(points.shape[:2], np.float32)
    points[held], scores[held] = seen.points, seen.scores
    return Taught(seen.maps, points, scores)


def _key(fingerprint: str, bundle: Bundle, views: int) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(bundle.weights.items()):
        digest.update(name.encode() + value.tobytes())
    spec = json.dumps(bundle.spec.to_dict(), sort_keys=True)
    digest.update(f"{fingerprint} {views} {spec}".encode())
    return digest.hexdigest()[:16]


def _told(material: Material, options: AdaptOptions) -> str:
    """All that decides what a run learns, beside the source."""
    models = [_key("", each, 0) for each in (options.teacher, options.second) if each]
    labelled = options.labelled.persons.fingerprint if options.labelled else ""
    numbers = [options.recipe.to_dict(), options.seed, options.budget_s]
    return material.persons.fingerprint + json.dumps([numbers, models, labelled], sort_keys=True)


def _start(source: Bundle, options: AdaptOptions) -> Start:
    return start_of(source, *([options.second] if options.second else []))


def _loop(source: Bundle, material: Material, options: AdaptOptions) -> Loop:
    """The loop, as long as the budget allows; a resumed one goes on."""
    key = _key(_told(material, options), source, 0)
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
    source: Bundle, material: Material, options: AdaptOptions, *, budget_s: float
) -> Recipe:
    """The recipe with as many steps as fit; remembered, so that a resumed run has as many."""
    recipe = options.recipe
    path = options.work / f"steps-{_key(_told(material, options), source, 0)}.txt"
    if options.resume and path.exists():
        return dataclasses.replace(recipe, steps=int(path.read_text()))
    trial = dataclasses.replace(recipe, steps=6, watch_every=6)
    loop = Loop(_start(source, options), material, trial, seed=options.seed)
    list(loop)
    steps = max(1, int(0.8 * budget_s / (loop.seconds / loop.step)))
    write_atomic(path, str(steps), shared=True)
    watch = min(recipe.watch_every, max(1, steps // 3))
    return dataclasses.replace(recipe, steps=steps, watch_every=watch)
