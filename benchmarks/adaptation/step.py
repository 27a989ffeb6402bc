"""Time of a step of adaptation, and what shortens it: `python -m benchmarks step`.

The default recipe, 16 persons a step, on noise: only time counts. The variants alternate in one
run; a figure is the median over the turns of its time over that of the first variant in the same
turn. A variant that takes more than FAR times as long is timed in two turns only.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.results_file import command, save
from posekit import Bundle
from posekit.bundle import embedded
from posekit_finetune import (
    Batch,
    Networks,
    RelativeAdam,
    Step,
    frozen_copy,
    load_network,
    offset_of,
    recipe,
    set_train_mode,
    trainable_parameters,
)

BASE = "channels last"
FAR = 5.0


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a step is computed.  bf16: by torch's autocast."""

    channels_last: bool = True
    bf16: bool = False


VARIANTS = {
    BASE: Variant(),
    "contiguous": Variant(channels_last=False),
    "channels last, bfloat16": Variant(bf16=True),
}


def step_of(source: Bundle, variant: Variant) -> Step:
    """A step with a new student of the source."""
    chosen = recipe.load("default")
    nets = [load_network(source) for _ in range(2)]
    if variant.channels_last:
        nets[0] = nets[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = RelativeAdam(trainable_parameters(nets[0], chosen.learn), chosen.rate)
    set_train_mode(nets[0], chosen.batch_norm)
    networks = Networks(nets[:1], [], frozen_copy(nets[1]), 0.5, 0.5)
    return Step(networks, chosen, source.pose_spec, offset_of(source.pose_spec), optimizer)


def batch_of(source: Bundle, persons: int) -> Batch:
    """Noise, with noise as the teacher's maps."""
    spec, random = source.pose_spec, np.random.default_rng(0)
    (width, height), margin = spec.input_size, np.array(offset_of(spec)).astype(int)
    shape = (persons, height + 2 * margin[1], width + 2 * margin[0], 3)
    patches = random.integers(0, 256, shape, np.uint8)
    maps = random.random((persons, len(spec.skeleton), *spec.heatmap_size[::-1]), np.float32)
    randoms = [np.random.default_rng(n) for n in range(persons)]
    return Batch(randoms, patches, torch.from_numpy(maps))


def timed(source: Bundle, threads: int, turns: int) -> dict[str, dict[str, float]]:
    """Of each variant: seconds per step, and ratio to the first, medians."""
    torch.set_num_threads(threads)
    batch = batch_of(source, recipe.load("default").batch)
    works = {
        name: functools.partial(_one, step_of(source, variant), variant)
        for name, variant in VARIANTS.items()
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            if turn > 2 and min(found[name]) > FAR * min(found[BASE]):
                continue
            seconds = work(batch)
            if turn:  # the first warms up
                found[name].append(seconds)
    base = np.array(found[BASE])
    return {
        name: {
            "seconds": round(float(np.median(each)), 4),
            "times": round(float(np.median(np.array(each) / base[: len(each)])), 3),
            "turns": len(each),
        }
        for name, each in found.items()
    }


def _one(step: Step, variant: Variant, batch: Batch) -> float:
    low = torch.autocast("cpu", torch.bfloat16) if variant.bf16 else contextlib.nullcontext()
    torch.set_flush_denormal(True)
    start = time.perf_counter()
    with low:
        step(batch)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=["movenet-lightning"])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {}
    for model in options.models:
        source = Bundle.open(embedded()[model])
        for threads in options.threads:
            rows = timed(source, threads, options.turns)
            figures[f"{model}, {threads} thread{'s' * (threads > 1)}"] = rows
            print(f"{model}, {threads} threads, s per step, ratio to the first")
            for name, row in rows.items():
                print(f"  {name:24} {row['seconds']:7.3f} {row['times']:6.2f}", flush=True)
    print(save("step", command("step"), max(options.threads), figures))


if __name__ == "__main__":
    main()
