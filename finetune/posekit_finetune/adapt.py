"""A model and unlabelled pictures in; a better model, or a reason why not, out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from posekit import __version__
from posekit.bundle import Bundle, Weights
from posekit.errors import AdaptError, CollapsedError, DivergedError, InputError
from posekit.types import Int64
from posekit_finetune import gate, indicators, predict
from posekit_finetune.data import FindOptions, find_persons
from posekit_finetune.gate import Check, Verdict
from posekit_finetune.indicators import Indicators
from posekit_finetune.loop import Loop, Material
from posekit_finetune.monitor import Monitor, Reading
from posekit_finetune.persons import Persons, split
from posekit_finetune.recipe import Recipe
from posekit_finetune.teacher import Taught, look

AGREED = 0.95
"""Where the source agrees with the multi-view teacher on more of the body's joints than this,
there is nothing to learn: 0.97 on a domain where adaptation changed nothing, 0.80 on LSPET."""


Checker = Callable[[Bundle, Bundle], Check]
"""Compares the source with the adapted model on labelled persons."""


@dataclass(frozen=True)
class AdaptOptions:
    """What is learned from, how, and within what.

    unlabeled: images, folders, patterns, videos.  work: a folder for what can be made again.
    find: which persons of the pictures.  budget_s: of wall time for learning, or None for the
    recipe's steps.  teacher: another model that teaches instead of the source's own views.
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
    resume: bool = False
    threads: int = 1
    checks: tuple[Checker, ...] = ()


@dataclass(frozen=True)
class Hooks:
    """How a caller follows a run: `on_stage` with a sentence, `on_count` with done and all,
    `on_reading` after each look at the held-out persons; `stopped` is asked between them.
    """

    on_stage: Callable[[str], None] = lambda _: None
    on_count: Callable[[int, int], None] = lambda _done, _all: None
    on_reading: Callable[[Reading, float], None] = lambda _reading, _seconds: None
    stopped: Callable[[], bool] = lambda: False


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

    Raises DataError and InputError, before learning; a refusal is in the verdict, a collapse in
    `error`.
    """
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    hooks.on_stage("looking for persons")
    find = dataclasses.replace(options.find, threads=options.threads)
    persons = find_persons(
        options.unlabeled, source.pose_spec, find, work=options.work, progress=hooks.on_count
    )
    rows, held = split(persons, seed=options.seed)
    hooks.on_stage(f"{len(rows)} persons to learn from, {len(held)} held out; asking the teacher")
    material, own = _taught(source, persons, rows, options=options, hooks=hooks)
    watched = Watched(source, persons, held, own, options.threads)
    before = watched.measure(source.weights, None)
    facts = _facts(source, persons, options, signal=before.mean("teacher"))
    outcome = Outcome(None, None, "", before, None, (), facts, persons, options.recipe)
    if options.teacher is None and before.mean("teacher") > AGREED:
        reason = (
            f"the model agrees with its own multi-view answer on {before.mean('teacher'):.1%} of "
            "the joints; nothing was written"
        )
        return dataclasses.replace(outcome, reason=reason)
    hooks.on_stage("learning")
    loop = _loop(source, material, options)
    loop.stopped = hooks.stopped
    learned = _learned(outcome, loop, watched, on_reading=hooks.on_reading)
    if learned.error is None:
        hooks.on_stage("judging")
        learned = _judged(learned, loop, watched, checks=options.checks)
    return dataclasses.replace(learned, facts={**facts, **_spent(started, loop)})


def _learned(
    outcome: Outcome, loop: Loop, watched: Watched, *, on_reading: Callable[[Reading, float], None]
) -> Outcome:
    """The outcome with the best weights in it, or with why learning was stopped."""
    monitor = Monitor(outcome.before)
    told = dataclasses.replace(outcome, recipe=loop.recipe)
    try:
        best = _learn(loop, monitor, watched, on_reading=on_reading)
    except (CollapsedError, DivergedError) as error:
        return dataclasses.replace(
            told, reason=str(error), error=error, history=tuple(monitor.history)
        )
    # A calibration holds for the weights that it was fitted to.
    source = watched.source
    extras = {k: v for k, v in source.extras.items() if k != "calibration.json"}
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
    provenance = _provenance(source, outcome.facts, loop.recipe, verdict=verdict)
    return dataclasses.replace(
        outcome,
        adapted=dataclasses.replace(adapted, provenance=provenance),
        verdict=verdict,
        reason="; ".join(verdict.reasons),
        after=after,
    )


@dataclass(frozen=True, eq=False)
class Watched:
    """The held-out persons, and what is asked of them."""

    source: Bundle
    persons: Persons
    held: Int64
    teacher: Taught
    threads: int

    def measure(self, weights: Weights, before: Indicators | None) -> Indicators:
        """The network with these weights; `before` is the source's, None for the source itself."""
        asked = predict.of_bundle(self.source, weights=weights, threads=self.threads)
        return indicators.measure(
            asked, self.persons, self.held, teacher=self.teacher, source=before
        )


def _taught(
    source: Bundle, persons: Persons, rows: Int64, *, options: AdaptOptions, hooks: Hooks
) -> tuple[Material, Taught]:
    """What is learned from, and the source's own multi-view answer, which the gate asks."""

    def asked(bundle: Bundle, views: int) -> Taught:
        name = _key(persons.fingerprint, bundle, views)
        path = options.work / f"maps-{name}.npy"
        return look(
            persons,
            bundle,
            views=views,
            threads=options.threads,
            path=path,
            progress=hooks.on_count,
        )

    if options.teacher is not None:
        _fits(options.teacher, source)
    own = asked(source, options.recipe.ensemble_views)
    plain = asked(source, 1)
    other = own if options.teacher is None else asked(options.teacher, 8)
    return Material(persons, rows, other, plain), own


def _fits(teacher: Bundle, student: Bundle) -> None:
    """Raises InputError where the teacher's maps are not those of the student, cell for cell."""
    theirs, ours = teacher.pose_spec, student.pose_spec
    shared = ("input_size", "heatmap_size", "map_scale", "map_offset", "padding", "skeleton")
    differ = [name for name in shared if getattr(theirs, name) != getattr(ours, name)]
    if differ:
        raise InputError(
            f"--teacher {teacher.name}: its {', '.join(differ)} differ from {student.name}'s; only "
            "a teacher with the same crop, heatmaps and skeleton can teach yet"
        )


def _key(fingerprint: str, bundle: Bundle, views: int) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(bundle.weights.items()):
        digest.update(name.encode() + value.tobytes())
    spec = json.dumps(bundle.spec.to_dict(), sort_keys=True)
    digest.update(f"{fingerprint} {views} {spec}".encode())
    return digest.hexdigest()[:16]


def _loop(source: Bundle, material: Material, options: AdaptOptions) -> Loop:
    """The loop, as long as the budget allows; a resumed one goes on."""
    told = json.dumps([options.recipe.to_dict(), options.seed, options.budget_s], sort_keys=True)
    key = _key(material.persons.fingerprint + told, source, 0)
    state = options.work / f"state-{key}.pt"
    if not options.resume:
        state.unlink(missing_ok=True)
    recipe = options.recipe
    fabric = Fabric(accelerator="auto", devices=1)
    if options.budget_s is not None:
        recipe = _within(source, material, options, budget_s=options.budget_s)
    return Loop(source, material, recipe, seed=options.seed, fabric=fabric, state=state)


def _within(
    source: Bundle, material: Material, options: AdaptOptions, *, budget_s: float
) -> Recipe:
    """The recipe with as many steps as fit; remembered, so that a resumed run has as many."""
    recipe = options.recipe
    path = options.work / f"steps-{_key(str(budget_s) + str(recipe), source, 0)}.txt"
    if options.resume and path.exists():
        return dataclasses.replace(recipe, steps=int(path.read_text()))
    trial = dataclasses.replace(recipe, steps=6, watch_every=6)
    loop = Loop(source, material, trial, seed=options.seed)
    list(loop)
    steps = max(1, int(0.8 * budget_s / (loop.seconds / loop.step)))
    path.write_text(str(steps))
    watch = min(recipe.watch_every, max(1, steps // 3))
    return dataclasses.replace(recipe, steps=steps, watch_every=watch)


def _learn(
    loop: Loop, monitor: Monitor, watched: Watched, *, on_reading: Callable[[Reading, float], None]
) -> Weights:
    """Run the loop to its end; the weights at the best look, as a bundle stores them.

    Where no look was better than the start, the last one's: the gate says what it thinks of them.
    """
    best: Weights = watched.source.weights
    for reached in loop:
        weights = stored(reached.net, watched.source)
        seen = watched.measure(weights, monitor.baseline)
        reading = monitor.watch(reached.step, seen, reached.report.losses)
        on_reading(reading, reached.seconds)
        if monitor.best is None or monitor.best is reading:
            best = weights
    return best


def stored(net: nn.Module, source: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """A network's weights under the bundle's names, in the bundle's type."""
    state = net.state_dict()
    return {
        name: np.ascontiguousarray(state[name].detach().cpu().numpy(), value.dtype)
        for name, value in source.weights.items()
    }


def _facts(
    source: Bundle, persons: Persons, options: AdaptOptions, *, signal: float
) -> dict[str, Any]:
    return {
        "labels used": "none to learn from; some to judge by" if options.checks else "none",
        "model": source.name,
        "model_sha256": source.sha256,
        "persons": len(persons),
        "found": dataclasses.asdict(persons.found),
        "data_fingerprint": persons.fingerprint,
        "agreement_with_views": signal,
        "recipe": options.recipe_name,
        "numbers": options.recipe.to_dict(),
        "teacher": options.teacher.name if options.teacher else "own views",
        "seed": options.seed,
        "posekit": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _spent(started: float, loop: Loop) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps": loop.step,
        "learning_s": round(loop.seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mb": round(peak / 1e6),
    }


def _provenance(
    source: Bundle, facts: Mapping[str, Any], recipe: Recipe, *, verdict: Verdict
) -> dict[str, Any]:
    """Where an adapted bundle comes from; the chain of parents grows by one."""
    parents = [*source.provenance.get("parents", []), source.sha256]
    kept = {k: v for k, v in source.provenance.items() if k not in ("parents", "adapted")}
    told = {key: facts[key] for key in ("recipe", "seed", "data_fingerprint", "posekit")}
    return {
        **kept,
        "parents": parents,
        "adapted": {
            **told,
            "numbers": recipe.to_dict(),
            "passed": verdict.passed,
            "reasons": list(verdict.reasons),
        },
    }
