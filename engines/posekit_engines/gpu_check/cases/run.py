"""Runs the kernels' cases and collects the findings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from posekit.errors import DeviceError, EngineError
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check.cases.case import Case, Finding


def cases(*, brief: bool = False) -> list[Case]:
    """All cases; `brief`: one for each path through a kernel, for tools that slow a GPU down."""
    from posekit_engines.gpu_check.cases import crop, decode, fuse

    kernels = (decode, crop, fuse)
    return [case for each in kernels for case in (each.brief() if brief else each.cases())]


def examine(device: Device, chosen: Iterable[Case]) -> list[Finding]:
    """Run cases on a device; stops after an error, which makes the CUDA context unusable."""
    found = []
    for case in chosen:
        try:
            found.append(Finding(case, case.run(device)))
        except (EngineError, DeviceError) as error:
            found.append(Finding(case, np.inf, str(error)))
            break
    return found
