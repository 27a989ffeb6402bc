"""Whose heatmaps are the targets of an adaptation."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from posekit.bundle import Bundle
from posekit.types import Int64
from posekit_finetune.data.persons import Persons
from posekit_finetune.options import AdaptOptions, Hooks
from posekit_finetune.recipe import Recipe
from posekit_finetune.train import teacher_transfer
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels


def training_targets(
    source: Bundle,
    persons: Persons,
    parts: tuple[Int64, Int64],
    *,
    options: AdaptOptions,
    hooks: Hooks,
) -> tuple[TrainingData, PseudoLabels]:
    """What is learned from, and the frozen teacher's answer, which the monitor and the gate ask.

    parts: rows to learn from, rows held out.
    """
    (rows, held), recipe = parts, options.recipe

    def asked(bundle: Bundle, whom: Persons, views: int) -> PseudoLabels:
        path = options.work / f"maps-{content_key(whom.fingerprint, bundle, views)}.npy"
        return predict_pseudo_labels(
            whom, bundle, views=views, threads=options.threads, path=path, progress=hooks.on_count
        )

    if not _all_are_taught(recipe):
        few = _asked_few(source, persons, held, options=options)
        return TrainingData(persons, rows, labeled=options.labeled), few
    plain = asked(source, persons, 1)
    teacher = options.teacher or source
    if teacher_transfer.same_crops(teacher.pose_spec, source.pose_spec):
        taught = asked(teacher, persons, recipe.ensemble_views)
    else:
        theirs = teacher_transfer.recrop(
            persons,
            options.unlabeled,
            teacher.pose_spec,
            options=options.find,
            work=options.work,
            progress=hooks.on_count,
        )
        told = asked(teacher, theirs, recipe.ensemble_views)
        taught = teacher_transfer.remap(
            told,
            theirs,
            persons,
            path=options.work / f"maps-{content_key(theirs.fingerprint, teacher, 0)}-retold.npy",
        )
    return TrainingData(persons, rows, taught, plain, options.labeled), taught


def _all_are_taught(recipe: Recipe) -> bool:
    """Whether a step needs the frozen ensemble's answer; the monitor asks it of few persons."""
    weighs = recipe.confidence or recipe.dispute or recipe.focus
    return bool(recipe.teacher == "ensemble" or weighs or recipe.loss == "kl")


def _asked_few(
    source: Bundle, persons: Persons, held: Int64, *, options: AdaptOptions
) -> PseudoLabels:
    """The source's own views on the held-out persons; points of the others are NaN."""
    views = options.recipe.ensemble_views
    seen = predict_pseudo_labels(persons.select(held), source, views=views, threads=options.threads)
    points = np.full((len(persons), *seen.points.shape[1:]), np.nan, np.float32)
    scores = np.zeros(points.shape[:2], np.float32)
    points[held], scores[held] = seen.points, seen.scores
    return PseudoLabels(seen.maps, points, scores)


def content_key(fingerprint: str, bundle: Bundle, views: int) -> str:
    """16 hex digits of persons, weights, views and spec: names what can be made again."""
    digest = hashlib.sha256()
    for name, value in sorted(bundle.weights.items()):
        digest.update(name.encode() + value.tobytes())
    spec = json.dumps(bundle.spec.to_dict(), sort_keys=True)
    digest.update(f"{fingerprint} {views} {spec}".encode())
    return digest.hexdigest()[:16]
