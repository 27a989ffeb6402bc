"""What a report says of a run beside its figures: data, labels, networks, time, descent."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from posekit.bundle import Bundle
from posekit.version import __version__
from posekit_finetune.assess.gate import Verdict
from posekit_finetune.data.persons import Persons
from posekit_finetune.recipe import Recipe
from posekit_finetune.train.loop import Loop

if TYPE_CHECKING:
    from posekit_finetune.options import AdaptOptions

_OWN = ("parents", "adapted", "engines")
"""Of a source's provenance, what does not hold for the model that was made of it."""


def run_facts(
    source: Bundle, persons: Persons, options: AdaptOptions, *, signal: float
) -> dict[str, Any]:
    """What is known before learning.  signal: agreement with the frozen teacher."""
    return {
        "labels used": labels_used(options),
        "model": source.name,
        "model_sha256": source.sha256,
        "persons": len(persons),
        "found": dataclasses.asdict(persons.counts),
        "data_fingerprint": persons.fingerprint,
        "agreement_with_views" if options.teacher is None else "agreement_with_teacher": signal,
        "recipe": options.recipe_name,
        "numbers": options.recipe.to_dict(),
        "teacher": options.teacher.name if options.teacher else "own views",
        "networks": networks(source, options),
        "seed": options.seed,
        "posekit": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def labels_used(options: AdaptOptions) -> str:
    """Which labels took part, in a few words, and what was left out of their files."""
    parts: list[str] = []
    if options.labeled is not None:
        known = int(options.labeled.known.sum())
        parts.append(f"{len(options.labeled)} persons, {known} keypoints, to learn from")
    if options.checks:
        parts.append("some to judge by")
    files = (options.labeled, *(getattr(check, "labeled", None) for check in options.checks))
    parts += dict.fromkeys(note for file in files if file is not None for note in file.notes)
    return "; ".join(parts) or "none"


def networks(source: Bundle, options: AdaptOptions) -> str:
    """One network, or two, and what makes them differ."""
    recipe = options.recipe
    if recipe.networks == 1:
        return f"one, {source.name}"
    if options.second is not None:
        return f"two, {source.name} and {options.second.name}; the first is handed out"
    if recipe.head_noise:
        return (
            f"two that begin as {source.name}, the second with noise of {recipe.head_noise:g} of "
            "its rms on the head; the first is handed out"
        )
    return (
        f"two that begin as {source.name} with nothing but their own cutouts to tell them apart: "
        "effectively a single network; give another by --second, or noise by --set head_noise=0.05"
    )


def run_cost(started: float, loop: Loop) -> dict[str, Any]:
    """Steps, seconds since `started` (time.perf_counter), and memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps": loop.step,
        "learning_s": round(loop.seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mb": round(peak / 1e6),
    }


def provenance(
    source: Bundle, told: Mapping[str, Any], recipe: Recipe, *, verdict: Verdict
) -> dict[str, Any]:
    """Where an adapted bundle comes from; the chain of parents grows by one."""
    parents = [*source.provenance.get("parents", []), source.sha256]
    kept = {k: v for k, v in source.provenance.items() if k not in _OWN}
    names = ("recipe", "seed", "data_fingerprint", "labels used", "teacher", "networks", "posekit")
    return {
        **kept,
        "parents": parents,
        "adapted": {
            **{name: told[name] for name in names},
            "numbers": recipe.to_dict(),
            "passed": verdict.passed,
            "reasons": list(verdict.reasons),
        },
    }
