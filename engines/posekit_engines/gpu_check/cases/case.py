"""The cases that each kernel must pass: inputs, and how far it may stray from its numpy twin.

Tests run them on this CPU in emulation, `posekit gpu-check` on the GPU: the same cases. Those of a
kernel stand in `decode_cases`, `crop_cases` and `fuse_cases`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from posekit_engines.cuda.device import Device


@dataclass(frozen=True)
class Case:
    """One input, or a few alike.

    run: how far the kernel strays from its twin on a device, in `unit`; inf where something is
    wrong that has no size.  bound: the most that rounding can explain.
    """

    kernel: str
    name: str
    run: Callable[[Device], float]
    bound: float
    unit: str

    def __str__(self) -> str:
        return f"{self.kernel}: {self.name}"


@dataclass(frozen=True)
class Finding:
    """What became of a case.  error: why it ended before there was an answer, or ""."""

    case: Case
    off: float
    error: str = ""

    @property
    def fine(self) -> bool:
        """Whether the answer is the twin's, within the bound."""
        return not self.error and bool(self.off <= self.case.bound)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; what is no number is text."""
        off = round(self.off, 6) if np.isfinite(self.off) else str(self.off)
        case = self.case
        told = {"case": str(case), "off": off, "bound": case.bound, "unit": case.unit}
        return {**told, "error": self.error} if self.error else told
