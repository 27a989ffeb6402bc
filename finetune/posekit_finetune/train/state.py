"""What there is to learn from."""

from __future__ import annotations

from dataclasses import dataclass

from posekit.types import Int64
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.data.persons import Persons
from posekit_finetune.train.teacher import PseudoLabels


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What there is to learn from.

    persons, rows: those that are learned from.  taught: what the ensemble says of all `persons`,
    with a teacher that needs it.  source_points: (N, K, 2) crop px, what the source says of them.
    labelled: labelled persons, or None.
    """

    persons: Persons
    rows: Int64
    taught: PseudoLabels | None = None
    source: PseudoLabels | None = None
    labelled: LabeledPersons | None = None
