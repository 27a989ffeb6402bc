"""How far keypoints deviate from those of a source network; parity reports and `verify` use it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from posekit.errors import ParityError
from posekit.types import Float32

HIGH_CONFIDENCE = 0.3
"""Keypoints that the source scores lower are not compared: their argmax may be anywhere."""


@dataclass(frozen=True)
class Parity:
    """Deviation of the source's high-confidence keypoints, and of all scores.

    mean_px, p99_px, max_px: distances, crop px.  max_score: largest difference of a score.
    points: how many keypoints were compared.  crops: on how many crops.
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
        """Raises ParityError where the mean deviation is above `budget_px` or NaN."""
        if not self.mean_px <= budget_px:
            raise ParityError(
                f"{what}: deviates {self.mean_px:.3f} px on average from the source network on "
                f"{self.crops} check crops; wanted at most {budget_px}; nothing is written",
                self.mean_px,
            )


def deviations_px(points: Float32, source: tuple[Float32, Float32]) -> Float32:
    """Distances (M,), crop px, of the keypoints above HIGH_CONFIDENCE in the source's scores.

    points: (N, K, 2).  source: its points (N, K, 2) and scores (N, K).
    """
    distances: Float32 = np.linalg.norm(points - source[0], axis=2)
    return distances[source[1] > HIGH_CONFIDENCE]


def compare(
    points: Float32, scores: Float32, source: tuple[Float32, Float32], *, crops: int
) -> Parity:
    """Points (N, K, 2) and scores (N, K) against the source's; 0 px where none is compared."""
    distances = deviations_px(points, source)
    count = len(distances)
    if not count:
        distances = np.zeros(1, np.float32)
    return Parity(
        mean_px=round(float(distances.mean()), 6),
        p99_px=round(float(np.percentile(distances, 99)), 6),
        max_px=round(float(distances.max()), 6),
        max_score=round(float(np.abs(scores - source[1]).max()), 6),
        points=count,
        crops=crops,
    )
