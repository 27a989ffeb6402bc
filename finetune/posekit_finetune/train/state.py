"""The data that a training run learns from."""

from __future__ import annotations

from dataclasses import dataclass

from posekit.types import Int64
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.data.persons import Persons
from posekit_finetune.train.teacher import PseudoLabels


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The data that a training run learns from.

    persons: all of them; rows: those to train on.  teacher: pseudo-labels of the ensemble for all
    `persons`, where the recipe needs them.  source: those of the source's single view.
    labeled: labeled persons, or None.
    """

    persons: Persons
    rows: Int64
    teacher: PseudoLabels | None = None
    source: PseudoLabels | None = None
    labeled: LabeledPersons | None = None
