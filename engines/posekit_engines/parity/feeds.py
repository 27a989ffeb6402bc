"""The inputs of an exported graph for check crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.geometry import Warp
from posekit.types import ModelSpec
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import CheckCrops
from posekit_engines.parity.source import normalize

Feed = dict[str, NDArray[Any]]


def feeds(checks: CheckCrops, spec: ModelSpec, options: ExportOptions) -> list[Feed]:
    """The graph's inputs for each check crop, N = 1."""
    return [feed(checks, [n], spec, options=options) for n in range(len(checks))]


def feed(
    checks: CheckCrops, rows: Sequence[int], spec: ModelSpec, *, options: ExportOptions
) -> Feed:
    """The graph's inputs for the check crops `rows`."""
    crops = checks.crops[list(rows)]
    if options.outputs == "raw":
        return {"image": normalize(crops, spec)}
    if not options.affine:
        return {"crops": crops}
    warp = Warp(checks.warp.matrix[list(rows)]).inverse().matrix.astype(np.float32)
    return {"crops": crops, "warp": warp}
