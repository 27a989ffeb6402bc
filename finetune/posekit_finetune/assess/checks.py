"""The interface of checks with labels, which the gate takes into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.types import Int64
from posekit_finetune.assess.predict import Predict


@dataclass(frozen=True, eq=False)
class Check:
    """A metric with labels, per person, before and after; NaN where not labeled.

    name: such as "PCK@0.2".  before, after: (N,) or (N, K).  groups: (N,), the person's image.
    decides: False where it is reported only, such as forgetting on the source domain.
    """

    name: str
    before: NDArray[Any]
    after: NDArray[Any]
    groups: Int64
    decides: bool = True


class Checker(Protocol):
    """Compares the source with the adapted model on labeled persons."""

    @property
    def name(self) -> str:
        """Such as "PCK@0.1"."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or left out of the labels."""
        ...

    def __call__(self, before: Bundle, after: Bundle) -> Check:
        """The metric of both, person by person."""
        ...

    def share(self, predict: Predict) -> float:
        """The metric of one network."""
        ...
