"""From heatmap peaks to probabilities: P(keypoint nearer than a share of the person's size)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from posekit.errors import InputError
from posekit.inputs.parsing import number, numbers, shown
from posekit.types import Float32

TOLERANCE = 0.1
"""A keypoint counts as right nearer than this share of the person's size, sqrt(box area)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """One rising curve a keypoint from its score to a probability, for one graph of a model.

    knots: float32 (M,), scores, rising.  probabilities: float32 (K, M) in [0, 1], never falling;
    between knots on a line, beyond them constant.  tolerance: what right means, see TOLERANCE.
    """

    knots: Float32
    probabilities: Float32
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        knots, curves = (np.asarray(each, np.float32) for each in (self.knots, self.probabilities))
        if knots.ndim != 1 or curves.ndim != 2 or curves.shape[1:] != knots.shape:
            raise InputError(
                f"calibration: knots {knots.shape}, probabilities {curves.shape} disagree"
            )
        rising = len(knots) > 1 and np.isfinite(knots).all() and (np.diff(knots) > 0).all()
        if not rising:
            raise InputError("calibration: wanted two knots or more, finite, that rise")
        if not ((curves >= 0) & (curves <= 1)).all() or (np.diff(curves, axis=1) < 0).any():
            raise InputError("calibration: wanted probabilities in [0, 1] that never fall")
        number(self.tolerance, name="calibration: tolerance", low=1e-6, high=1)
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "probabilities", curves)

    def __call__(self, scores: Float32) -> Float32:
        """Scores (N, K) to probabilities float32 (N, K); a score that is not a number gets 0.

        Raises InputError.
        """
        if scores.ndim != 2 or scores.shape[1] != len(self.probabilities):
            raise InputError(
                f"scores {scores.shape}: calibrated for (N, {len(self.probabilities)})"
            )
        columns = [
            np.interp(scores[:, k], self.knots, curve) for k, curve in enumerate(self.probabilities)
        ]
        probabilities: Float32 = np.nan_to_num(np.stack(columns, 1)).astype(np.float32)
        return probabilities

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            "tolerance": self.tolerance,
            "knots": np.round(self.knots.astype(np.float64), 5).tolist(),
            "chances": np.round(self.probabilities.astype(np.float64), 4).tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises InputError."""
        wanted = {"knots", "chances", "tolerance"}
        if not isinstance(data, Mapping) or not wanted <= set(data):
            raise InputError(f"calibration: wanted {sorted(wanted)}, got {shown(data)}")
        knots = numbers(data["knots"], name="calibration: knots")
        rows = data["chances"]
        if not isinstance(rows, list):
            raise InputError(f"calibration: chances: wanted a list of curves, got {shown(rows)}")
        curves = [
            numbers(row, name="calibration: chances", count=len(knots), low=0, high=1)
            for row in rows
        ]
        probabilities = np.array(curves, np.float32).reshape(len(rows), len(knots))
        tolerance = number(data["tolerance"], name="calibration: tolerance")
        return cls(np.array(knots, np.float32), probabilities, tolerance)
