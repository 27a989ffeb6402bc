"""The pseudo-labels of an adaptation: which network predicts them, and for which persons."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from posekit.bundle import Bundle
from posekit.types import Int64
from posekit_finetune.data.persons import Persons
from posekit_finetune.recipe import Recipe
from posekit_finetune.run_options import AdaptHooks, RunOptions
from posekit_finetune.train import teacher_transfer
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels


def training_targets(
    source: Bundle,
    persons: Persons,
    parts: tuple[Int64, Int64],
    *,
    options: RunOptions,
    hooks: AdaptHooks,
) -> tuple[TrainingData, PseudoLabels]:
    """The training data, and the frozen teacher's pseudo-labels for the monitor and the gate.

    parts: rows to train on, rows held out.
    """
    (rows, held), recipe = parts, options.recipe

    def predict(bundle: Bundle, crops: Persons, views: int) -> PseudoLabels:
        count = f"{views} views" if views > 1 else "one view"
        hooks.on_stage(f"predicting {count} of each of {len(crops):,} persons by {bundle.name}")
        path = options.work / f"maps-{content_key(crops.fingerprint, bundle, views)}.npy"
        return predict_pseudo_labels(
            crops, bundle, views=views, threads=options.threads, path=path, progress=hooks.on_count
        )

    if not needs_all_persons(recipe):
        hooks.on_stage(f"running the teacher on the {len(held):,} held-out persons")
        held_labels = _predict_held_out(source, persons, held, options=options, hooks=hooks)
        return TrainingData(persons, rows, labeled=options.labeled), held_labels
    single_view = predict(source, persons, 1)
    teacher = options.teacher or source
    if teacher_transfer.same_crops(teacher.pose_spec, source.pose_spec):
        labels = predict(teacher, persons, recipe.ensemble_views)
    else:
        crops = _crop_for(teacher, persons, options=options, hooks=hooks)
        key = content_key(crops.fingerprint, teacher, 0)
        labels = teacher_transfer.remap(
            predict(teacher, crops, recipe.ensemble_views),
            crops,
            persons,
            path=options.work / f"maps-{key}-remapped.npy",
        )
    return TrainingData(persons, rows, labels, single_view, options.labeled), labels


def _crop_for(
    teacher: Bundle, persons: Persons, *, options: RunOptions, hooks: AdaptHooks
) -> Persons:
    """The same persons, cropped again as this teacher takes them."""
    hooks.on_stage(f"cropping the persons again for {teacher.name}")
    return teacher_transfer.recrop(
        persons,
        options.unlabeled,
        teacher.pose_spec,
        options=options.find,
        work=options.work,
        progress=hooks.on_count,
    )


def needs_all_persons(recipe: Recipe) -> bool:
    """Whether a step uses the frozen ensemble; the monitor needs it for the held-out persons."""
    weighted = recipe.confidence or recipe.dispute or recipe.focus
    return bool(recipe.teacher == "ensemble" or weighted or recipe.loss == "kl")


def _predict_held_out(
    source: Bundle, persons: Persons, held: Int64, *, options: RunOptions, hooks: AdaptHooks
) -> PseudoLabels:
    """The source's own views of the held-out persons; points of the others are NaN."""
    views = options.recipe.ensemble_views
    labels = predict_pseudo_labels(
        persons.select(held),
        source,
        views=views,
        threads=options.threads,
        progress=hooks.on_count,
    )
    points = np.full((len(persons), *labels.points.shape[1:]), np.nan, np.float32)
    scores = np.zeros(points.shape[:2], np.float32)
    points[held], scores[held] = labels.points, labels.scores
    return PseudoLabels(labels.maps, points, scores)


def content_key(fingerprint: str, bundle: Bundle, views: int) -> str:
    """16 hex digits of persons, weights, views and spec: names an intermediate file."""
    digest = hashlib.sha256()
    for name, value in sorted(bundle.weights.items()):
        digest.update(name.encode() + value.tobytes())
    spec = json.dumps(bundle.spec.to_dict(), sort_keys=True)
    digest.update(f"{fingerprint} {views} {spec}".encode())
    return digest.hexdigest()[:16]
