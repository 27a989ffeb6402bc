"""A case that a kernel must pass: an input, and a bound on the deviation from numpy.

Tests run the cases of `crop`, `decode` and `fuse` in emulation on the CPU, `posekit gpu-check` runs
the same ones on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from posekit_engines.cuda.device import Device


@dataclass(frozen=True)
class Case:
    """One input, or a few similar ones.

    run: the kernel's deviation from the numpy reference on a device, in `unit`; inf for an error
    that has no size.  bound: the largest deviation due to rounding.
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
    """The result of a case.  deviation: in the case's unit.  error: why it has no output, or ""."""

    case: Case
    deviation: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the output is the reference's within the bound."""
        return not self.error and bool(self.deviation <= self.case.bound)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; NaN and infinity as text."""
        off = round(self.deviation, 6) if np.isfinite(self.deviation) else str(self.deviation)
        case = self.case
        row = {"case": str(case), "off": off, "bound": case.bound, "unit": case.unit}
        return {**row, "error": self.error} if self.error else row
