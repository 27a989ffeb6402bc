"""Label-free adaptation: unlabeled images and videos in, better weights out.

`posekit.adapt` does all of it. The names here are its parts, for experiments with the method:
persons and views, a step of Algorithm 1, the loop around it, and the figures that judge a network.
They are imported when they are first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP reads it when torch is loaded. Threads then sleep while they wait for the others of an
# operation, instead of spinning: on 2 CPUs that other processes used as well, a step took 0.2 to
# 0.5 s, and 1.5 to 18 s without it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from posekit_finetune import recipe
    from posekit_finetune.assess.compare import MetricChange
    from posekit_finetune.assess.ensemble import Member, predict_members
    from posekit_finetune.assess.gate import Verdict, decide, judge
    from posekit_finetune.assess.indicators import measure
    from posekit_finetune.assess.predict import Predict, of_bundle, of_network
    from posekit_finetune.data.find import FindOptions, find_persons
    from posekit_finetune.data.labeled import LabeledPersons
    from posekit_finetune.data.persons import Persons, offset_of
    from posekit_finetune.train.loop import Loop, Snapshot
    from posekit_finetune.train.networks import (
        Start,
        frozen_copy,
        load_network,
        set_train_mode,
        trainable_parameters,
        unwrap,
    )
    from posekit_finetune.train.optimizer import RelativeAdam
    from posekit_finetune.train.state import TrainingData
    from posekit_finetune.train.step import Batch, Networks, Step
    from posekit_finetune.train.teacher import (
        PseudoLabels,
        predict_pseudo_labels,
        with_rotated_views,
    )
    from posekit_finetune.views import warps

__all__ = [
    "Batch",
    "FindOptions",
    "LabeledPersons",
    "Loop",
    "Member",
    "MetricChange",
    "Networks",
    "Persons",
    "Predict",
    "PseudoLabels",
    "RelativeAdam",
    "Snapshot",
    "Start",
    "Step",
    "TrainingData",
    "Verdict",
    "decide",
    "find_persons",
    "frozen_copy",
    "judge",
    "load_network",
    "measure",
    "of_bundle",
    "of_network",
    "offset_of",
    "predict_members",
    "predict_pseudo_labels",
    "recipe",
    "set_train_mode",
    "trainable_parameters",
    "unwrap",
    "warps",
    "with_rotated_views",
]

_HOME = {
    "Batch": "train.step",
    "FindOptions": "data.find",
    "LabeledPersons": "data.labeled",
    "Loop": "train.loop",
    "Member": "assess.ensemble",
    "MetricChange": "assess.compare",
    "Networks": "train.step",
    "Persons": "data.persons",
    "Predict": "assess.predict",
    "PseudoLabels": "train.teacher",
    "RelativeAdam": "train.optimizer",
    "Snapshot": "train.loop",
    "Start": "train.networks",
    "Step": "train.step",
    "TrainingData": "train.state",
    "Verdict": "assess.gate",
    "decide": "assess.gate",
    "find_persons": "data.find",
    "frozen_copy": "train.networks",
    "judge": "assess.gate",
    "load_network": "train.networks",
    "measure": "assess.indicators",
    "of_bundle": "assess.predict",
    "of_network": "assess.predict",
    "offset_of": "data.persons",
    "predict_members": "assess.ensemble",
    "predict_pseudo_labels": "train.teacher",
    "set_train_mode": "train.networks",
    "trainable_parameters": "train.networks",
    "unwrap": "train.networks",
    "with_rotated_views": "train.teacher",
    "warps": "views.warps",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: they load torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'posekit_finetune' has no attribute {name!r}")
    module = importlib.import_module(f"posekit_finetune.{_HOME[name]}")
    return module if name == "warps" else getattr(module, name)
