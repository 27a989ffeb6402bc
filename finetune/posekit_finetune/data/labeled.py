"""Labeled persons for semi-supervised training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.types import Float32, Skeleton
from posekit_finetune.data.persons import Persons


@dataclass(frozen=True, eq=False)
class LabeledPersons:
    """N labeled persons, with the joints of a network's skeleton.

    persons: their patches.  points: float32 (N, K, 2), crop px.  weights: float32 (N, K), 1 where
    the joint is labeled, hidden ones too, else 0.  known: bool (K,), joints that the data set has.
    notes: what was assumed or left out of the file.
    """

    persons: Persons
    points: Float32
    weights: Float32
    known: NDArray[np.bool_]
    skeleton: Skeleton
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.persons), len(self.skeleton))
        got = (self.points.shape, self.weights.shape, self.known.shape)
        if got != ((*shape, 2), shape, shape[1:]):
            raise InputError(
                f"labeled persons: points, weights, known of {got}; wanted {(*shape, 2)}, {shape}, "
                f"{shape[1:]}"
            )

    def __len__(self) -> int:
        return len(self.persons)
