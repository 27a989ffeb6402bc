"""The facts of a run for its report: data, labels, networks, cost; and a model's provenance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from posekit.bundle import Bundle
from posekit.diagnostics.bench import peak_memory_mb
from posekit.version import __version__
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.data.persons import Persons
from posekit_finetune.recipe import Recipe
from posekit_finetune.run_options import RunOptions
from posekit_finetune.train.loop import Loop

_OWN = ("parents", "adapted", "engines")
"""Entries of a source's provenance that do not hold for the model adapted from it."""


def run_facts(
    source: Bundle, persons: Persons, options: RunOptions, *, agreement: float
) -> dict[str, Any]:
    """The facts before training.  agreement: of the source with the frozen teacher."""
    return {
        "labels used": labels_used(options),
        "model": source.name,
        "model_sha256": source.sha256,
        "persons": len(persons),
        "found": dataclasses.asdict(persons.counts),
        "notes": list(persons.notes),
        "data_fingerprint": persons.fingerprint,
        "agreement_with_views" if options.teacher is None else "agreement_with_teacher": agreement,
        "recipe": options.recipe_name,
        "numbers": options.recipe.to_dict(),
        "teacher": options.teacher.name if options.teacher else "own views",
        "networks": networks(source, options),
        "seed": options.seed,
        "posekit": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def labels_used(options: RunOptions) -> str:
    """Which labels were used, in a few words, and what was left out of their files."""
    parts: list[str] = []
    notes: list[str] = []
    if options.labeled is not None:
        known = int(options.labeled.known.sum())
        parts.append(f"{len(options.labeled)} persons, {known} keypoints, to learn from")
        notes += options.labeled.notes
    if options.checks:
        parts.append("some to judge by")
        notes += [note for check in options.checks for note in check.notes]
    return "; ".join([*parts, *dict.fromkeys(notes)]) or "none"


def networks(source: Bundle, options: RunOptions) -> str:
    """One network, or two and how they differ."""
    recipe = options.recipe
    if recipe.networks == 1:
        return f"one, {source.name}"
    if options.second is not None:
        return f"two, {source.name} and {options.second.name}; the first is written"
    if recipe.head_noise:
        return (
            f"two, both initialized as {source.name}, the second with noise of "
            f"{recipe.head_noise:g} of its rms on the head; the first is written"
        )
    return (
        f"two, both initialized as {source.name}, which differ in their own cutouts only: "
        "effectively a single network; pass another by --second, or noise by --set head_noise=0.05"
    )


def run_cost(started: float, loop: Loop | None = None) -> dict[str, Any]:
    """Steps, seconds since `started` (time.perf_counter), and memory; no loop: no training."""
    return {
        "steps": loop.step if loop else 0,
        "steps_planned": loop.recipe.steps if loop else 0,
        "learning_s": round(loop.seconds, 1) if loop else 0.0,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def provenance(
    source: Bundle, facts: Mapping[str, Any], recipe: Recipe, *, verdict: Verdict
) -> dict[str, Any]:
    """Provenance of an adapted bundle: its source is the last of its parents."""
    parents = [*source.provenance.get("parents", []), source.sha256]
    inherited = {k: v for k, v in source.provenance.items() if k not in _OWN}
    names = ("recipe", "seed", "data_fingerprint", "labels used", "teacher", "networks", "posekit")
    return {
        **inherited,
        "parents": parents,
        "adapted": {
            **{name: facts[name] for name in names},
            "numbers": recipe.to_dict(),
            "passed": verdict.passed,
            "reasons": list(verdict.reasons),
        },
    }
