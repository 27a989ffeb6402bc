"""Source and adapted network compared with labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.bundle import Bundle
from posekit.evaluate.metrics import errors
from posekit.geometry import Float64
from posekit.types import Int64
from posekit_finetune.assess import predict
from posekit_finetune.data.labeled import LabeledPersons


@dataclass(frozen=True, eq=False)
class Check:
    """Labels that decide too: a figure of each person, before and after, NaN where unlabelled.

    name: such as "PCK@0.2".  before, after: (N,) or (N, K).  groups: (N,), the person's image.
    decides: False for what is only shown, such as forgetting on the source domain.
    """

    name: str
    before: NDArray[Any]
    after: NDArray[Any]
    groups: Int64
    decides: bool = True


SHARE = 0.1
"""Of a person's longer side within which a keypoint is right, where labels are given."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Which labeled keypoints a network puts within SHARE of the person's longer side.

    decides: False where it is only shown, such as forgetting on the source domain.
    """

    name: str
    labeled: LabeledPersons
    decides: bool

    def __call__(self, before: Bundle, after: Bundle) -> Check:
        """Source and adapted, person by person."""
        old, new = (self.hits(predict.of_bundle(model)) for model in (before, after))
        return Check(self.name, old, new, self.labeled.persons.groups, decides=self.decides)

    def share(self, asked: predict.Predict) -> float:
        """Share of the labeled keypoints that one network has right."""
        return float(np.nanmean(self.hits(asked)))

    def hits(self, asked: predict.Predict) -> Float64:
        """(N, K): 1 where right, 0 where wrong, NaN where not labeled."""
        labeled = self.labeled
        seen = np.where(labeled.weights[..., None] > 0, labeled.points, np.nan)
        spans = np.nanmax(np.nanmax(seen, 1) - np.nanmin(seen, 1), 1)
        maps = asked(labeled.persons.crops(slice(None)))
        points, _ = codecs.decode(maps, labeled.persons.spec)
        far = errors(
            points, labeled.points, labeled.weights, reference_lengths=np.maximum(spans, 1.0)
        )
        return np.where(np.isnan(far), np.nan, far < SHARE)


class Checker(Protocol):
    """Labeled persons: compares the source with the adapted model on them."""

    @property
    def name(self) -> str:
        """Such as "PCK@0.1"."""
        ...

    def __call__(self, before: Bundle, after: Bundle) -> Check:
        """What both say, person by person."""
        ...

    def share(self, asked: predict.Predict) -> float:
        """How much of it one network has right."""
        ...
