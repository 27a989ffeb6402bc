"""Heatmaps to points, numpy, one thread: `OMP_NUM_THREADS=1 python -m benchmarks decode`.

1. Against the necessary minimum: decode with flip merge over the addition and np.argmax alone,
   N = 8 persons, 17 maps of 64 x 48.
2. Against the decoders of other libraries (scripts/baselines), which have no flip test: first
   whether the points are equal, then the time per person. mmpose does not install beside a current
   Python.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import command, save
from benchmarks.runtime.baselines.baseline_steps import (
    MISSING,
    bare_decode,
    best_times,
    run_baselines,
)
from posekit.codecs import decode, encode
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec

PERSONS = 8
SPEC = ModelSpec("none", (192, 256), (48, 64), COCO_17, flip_shift=0.0, decode="udp")
# In cells, for comparisons.
CELLS = dataclasses.replace(SPEC, map_scale=(1.0, 1.0))
WHY = {
    "rtmlib": "it reflects the map at its border where mmpose and posekit take zeros",
    "transformers": "it blurs with sigma 0.8 instead of 2.0, so more of the noise comes through",
}


def maps(noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Noisy Gaussians of joints in a crop, their mirror image's, and the joints in cells."""
    random = np.random.default_rng(0)
    crop = random.uniform([20, 20], [170, 235], (PERSONS, 17, 2))
    upright = encode(crop, SPEC)
    mirrored = np.ascontiguousarray(upright[:, list(COCO_17.mirror), :, ::-1])
    noisy = [m + random.normal(0, noise, m.shape).astype(np.float32) for m in (upright, mirrored)]
    return noisy[0], noisy[1], (crop / 4).astype(np.float32)


def ours(upright: NDArray[Any], mirrored: NDArray[Any]) -> dict[str, dict[str, float]]:
    """Microseconds per person and ratio to the bare calls, for each refinement and shift."""
    works: dict[str, Any] = {"bare": lambda: bare_decode(upright, mirrored)}
    for name in ("argmax", "quarter", "dark", "udp"):
        for shift in (0.0, 1.0, 0.75):
            spec = dataclasses.replace(SPEC, decode=name, flip_shift=shift)
            works[f"{name}, flip, shift {shift:g}"] = partial(decode, upright, spec, mirrored)
        works[f"{name}, no flip"] = partial(decode, upright, spec)
    times = best_times(works, 20.0)
    return {
        key: {"us_a_person": 1e6 * t / PERSONS, "times_bare": t / times["bare"]}
        for key, t in times.items()
    }


def against_baselines(
    upright: NDArray[Any], mirrored: NDArray[Any], places: NDArray[Any]
) -> dict[str, dict[str, float]]:
    """Difference to our UDP points in cells, error against the truth, and time."""
    outputs = run_baselines("decode", {"maps": upright, "mirrored": mirrored})
    points = decode(upright, CELLS)[0]
    inside = ((places > 6) & (places < [41, 57])).all(2)
    rows = {"posekit": {"error_cells": float(np.abs(points - places).mean())}}
    for name in WHY if outputs else ():
        far = np.linalg.norm(outputs[name] - points, axis=2)
        rows[name] = {
            "error_cells": float(np.abs(outputs[name] - places).mean()),
            "mean_difference_cells": float(far.mean()),
            "largest_difference_cells": float(far.max()),
            "largest_difference_inside_cells": float(far[inside].max()),
            "us_a_person": 1e6 * float(outputs[f"{name}_s"]) / PERSONS,
            "times_bare": float(outputs[f"{name}_s"] / outputs["bare_s"]),
        }
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("run with OMP_NUM_THREADS=1: numpy's matrix product would use all threads")
    upright, mirrored, places = maps(0.02)
    table = ours(upright, mirrored)
    for name, row in table.items():
        print(f"{name:24} {row['us_a_person']:7.1f} us per person {row['times_bare']:6.2f} x bare")
    baselines = against_baselines(upright, mirrored, places)
    print(f"error of our UDP points: {baselines['posekit']['error_cells']:.4f} cells")
    for name, row in list(baselines.items())[1:]:
        ratio = row["times_bare"] / table["udp, no flip"]["times_bare"]
        row["times_ours"] = ratio
        print(
            f"{name}: differs by {row['mean_difference_cells']:.4f} cells (at most "
            f"{row['largest_difference_cells']:.3f}, away from the border "
            f"{row['largest_difference_inside_cells']:.4f}), error {row['error_cells']:.4f}; "
            f"{row['us_a_person']:.0f} us per person, {ratio:.1f} x ours. {WHY[name]}"
        )
    if len(baselines) == 1:
        print(MISSING)
    figures = {"persons": PERSONS, "ours": table, "rivals": baselines}
    print(save("decode-cpu", f"OMP_NUM_THREADS=1 {command('decode')}", 1, figures))


if __name__ == "__main__":
    main()
