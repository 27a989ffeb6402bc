"""What test-time augmentation gains and costs: `python -m benchmarks views [MODEL ...]`.

With boxes given, through posekit's own runtimes: one plain view, the flip test, aligned views (each
person again, turned upright by its own prediction), and fixed rotations and flips.

- LSPET check: PCK@0.2 as in the program `accuracy`, of all, of those whose head is above their hips
  and of the others; the difference from the plain view with its paired 95 % interval over images.
  Never used to choose anything.
- COCO: AR as in the program `accuracy`, and its difference from the flip test.
- Milliseconds a person on one thread, crop and decode included, as a ratio to the plain view; the
  runtimes take turns.

Writes results/views.json; existing rows are kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.accuracy.persons import (
    THRESHOLDS,
    Array,
    Persons,
    coco_persons,
    estimate,
    hits,
    lspet_persons,
    read_image,
    similarity,
    tight_boxes,
)
from benchmarks.results_file import ASSETS, command, figures_of, save
from posekit import Boxes, Bundle, Warp
from posekit.bundle import embedded
from posekit.inference.aligned import AlignedRuntime
from posekit.inference.runtime import PoseRuntime, Runtime
from posekit.inference.tta import TtaRuntime
from posekit.stats.bootstrap import paired_bootstrap

NAMES = ("movenet-lightning", "movenet-thunder")
PLAIN, FLIP = "plain", "flip test"
HEAD, HIPS = 13, (2, 3)  # LSPET's head top and hips
TURNS, PERSONS = 7, 16


def runtimes(bundle: Bundle) -> dict[str, PoseRuntime]:
    """Each kind of augmentation, by name."""
    on = {"device": "cpu", "threads": 1}
    return {
        PLAIN: Runtime(bundle, flip=False, **on),
        FLIP: Runtime(bundle, **on),
        "aligned": AlignedRuntime(bundle, **on),
        "aligned-flip": AlignedRuntime(bundle, views="aligned-flip", **on),
        **{f"{count} fixed views": TtaRuntime(bundle, views=count, **on) for count in (4, 8, 16)},
    }


def upright(persons: Persons) -> Array:
    """Whose head is above their hips, (N,) bool."""
    vertical = persons.joints[:, :, 1]
    return np.asarray(vertical[:, HEAD] < vertical[:, HIPS].mean(1))


def change(before: Array, after: Array) -> list[float]:
    """Mean paired difference and its 95 % interval; one person an image (LSPET) or a row."""
    found = paired_bootstrap(before, after, np.arange(len(before)))
    return [round(float(value), 4) for value in found]


def figures(points: dict[str, tuple[Array, Array]], lspet: Persons, coco: Persons) -> Any:
    """A row for each kind, of its points on LSPET and on COCO."""
    right = {name: hits(each[0], lspet.joints) for name, each in points.items()}
    close = {
        name: np.mean([similarity(each[1], coco) > t for t in THRESHOLDS], 0)
        for name, each in points.items()
    }
    stands = upright(lspet)
    return {
        name: {
            "lspet": round(float(np.nanmean(right[name])), 4),
            "upright": round(float(np.nanmean(right[name][stands])), 4),
            "not upright": round(float(np.nanmean(right[name][~stands])), 4),
            "change": change(right[PLAIN], right[name]),
            "coco_ar": round(float(close[name].mean()), 4),
            "coco_change_to_flip": change(close[FLIP][:, None], close[name][:, None]),
        }
        for name in points
    }


def cost(kinds: dict[str, PoseRuntime], persons: Persons) -> dict[str, float]:
    """Time a person by kind, as a ratio to the plain view: the median over TURNS."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    images = [read_image(path) for path in persons.images[:PERSONS]]
    boxes = persons.boxes[:PERSONS].astype(np.float32)
    for _ in range(TURNS + 1):
        for name, runtime in kinds.items():
            start = time.process_time()
            for image, box in zip(images, boxes, strict=True):
                warp = Warp.from_boxes(Boxes(box[None]), runtime.spec)
                warp.to_frame(runtime.infer(runtime.crop(image, warp))[0])
            times[name].append(time.process_time() - start)
    plain = times[PLAIN][1:]  # the first turn warms up
    ratios = {
        name: statistics.median(a / b for a, b in zip(each[1:], plain, strict=True))
        for name, each in times.items()
    }
    plain_ms = 1e3 * statistics.median(plain) / PERSONS
    return {"plain_ms": round(plain_ms, 2), **{k: round(v, 2) for k, v in ratios.items()}}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("models", nargs="*", default=list(NAMES), help="none: both")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    lspet, coco = lspet_persons(options.assets), coco_persons(options.assets)
    boxes = tight_boxes(lspet.joints)
    for model in options.models:
        kinds = runtimes(Bundle.open(embedded()[model]))
        points = {
            name: (estimate(each, lspet, boxes), estimate(each, coco, coco.boxes))
            for name, each in kinds.items()
        }
        found = figures(points, lspet, coco)
        seconds = cost(kinds, lspet)
        for name, row in found.items():
            row["time"] = seconds[name]
            print(f"{model:18} {name:14} {row}", flush=True)
        rows = {**figures_of("views"), model: {"plain_ms": seconds["plain_ms"], "kinds": found}}
        save("views", command("views"), 1, rows)


if __name__ == "__main__":
    main()
