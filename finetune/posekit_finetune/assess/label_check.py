"""Source and adapted network compared with labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posekit import codecs
from posekit.bundle import Bundle
from posekit.evaluate.metrics import errors
from posekit.geometry import Float64
from posekit_finetune.assess.checks import Check
from posekit_finetune.assess.predict import Predict, of_bundle
from posekit_finetune.data.labeled import LabeledPersons

SHARE = 0.1
"""A keypoint within this share of the person's longer side is right."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """PCK: which labeled keypoints lie within SHARE of the person's longer side.

    decides: False where it is reported only, such as forgetting on the source domain.
    """

    name: str
    labeled: LabeledPersons
    decides: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or left out of the labels."""
        return self.labeled.notes

    def __call__(self, before: Bundle, after: Bundle) -> Check:
        """Source and adapted model, person by person."""
        old, new = (self.hits(of_bundle(model)) for model in (before, after))
        return Check(self.name, old, new, self.labeled.persons.groups, decides=self.decides)

    def share(self, predict: Predict) -> float:
        """Share of the labeled keypoints that one network has right."""
        return float(np.nanmean(self.hits(predict)))

    def hits(self, predict: Predict) -> Float64:
        """(N, K): 1 where right, 0 where wrong, NaN where not labeled."""
        labeled = self.labeled
        points = np.where(labeled.weights[..., None] > 0, labeled.points, np.nan)
        spans = np.nanmax(np.nanmax(points, 1) - np.nanmin(points, 1), 1)
        maps = predict(labeled.persons.crops(slice(None)))
        predicted, _ = codecs.decode(maps, labeled.persons.spec)
        relative = errors(
            predicted, labeled.points, labeled.weights, reference_lengths=np.maximum(spans, 1.0)
        )
        return np.where(np.isnan(relative), np.nan, relative < SHARE)
