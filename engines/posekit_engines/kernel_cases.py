"""The cases that each kernel must pass: inputs, and how far it may stray from its numpy twin.

Tests run them on this CPU in emulation, `posekit gpu-check` on the GPU: the same cases. Those of a
kernel stand in `decode_cases`, `crop_cases` and `fuse_cases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from posekit.errors import DeviceError, EngineError
from posekit_engines.cuda import Device


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


def cases(*, brief: bool = False) -> list[Case]:
    """All of them; `brief`: one of each way through a kernel, for tools that slow a GPU down."""
    from posekit_engines import crop_cases, decode_cases, fuse_cases

    kernels = (decode_cases, crop_cases, fuse_cases)
    return [case for each in kernels for case in (each.brief() if brief else each.cases())]


def examine(device: Device, chosen: Iterable[Case]) -> list[Finding]:
    """Run cases on a device; after one that CUDA ends, none is run: its context is lost."""
    found = []
    for case in chosen:
        try:
            found.append(Finding(case, case.run(device)))
        except (EngineError, DeviceError) as error:
            found.append(Finding(case, np.inf, str(error)))
            break
    return found
