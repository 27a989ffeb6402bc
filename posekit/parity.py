"""How far keypoints lie from those of a source: what parity reports and `verify` count in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from posekit.errors import ParityError
from posekit.types import Float32

SURE = 0.3
"""Keypoints scored below this by the source are no keypoints: their argmax may be anywhere."""


@dataclass(frozen=True)
class Parity:
    """The shift of the keypoints that the source is sure of, and of all scores.

    mean_px, p99_px, max_px: crop pixels.  max_score: largest difference of a score.
    points: how many keypoints were compared.  crops: on how many pictures.
    """

    mean_px: float
    p99_px: float
    max_px: float
    max_score: float
    points: int
    crops: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def check(self, budget_px: float, what: str) -> None:
        """Raises ParityError where the mean shift is above `budget_px` or is no number."""
        if not self.mean_px <= budget_px:
            raise ParityError(
                f"{what}: strays {self.mean_px:.3f} px on average from the source network on "
                f"{self.crops} check crops; wanted at most {budget_px}: the export is not written",
                self.mean_px,
            )


def compare(
    points: Float32, scores: Float32, source: tuple[Float32, Float32], *, crops: int
) -> Parity:
    """Points (N, K, 2) and scores (N, K) against the source's."""
    sure = source[1] > SURE
    shift = np.linalg.norm(points - source[0], axis=2)[sure]
    if not shift.size:
        shift = np.zeros(1)
    return Parity(
        mean_px=round(float(shift.mean()), 6),
        p99_px=round(float(np.percentile(shift, 99)), 6),
        max_px=round(float(shift.max()), 6),
        max_score=round(float(np.abs(scores - source[1]).max()), 6),
        points=int(sure.sum()),
        crops=crops,
    )
