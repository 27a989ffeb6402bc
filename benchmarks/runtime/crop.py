"""Crops of persons from a 1080p frame, one thread: `python -m benchmarks crop`.

1. Runtime.crop over cv2.warpAffine alone.
2. Against the preprocessing of other libraries (scripts/baselines): first whether the normalized
   images are equal, then the time per person. Theirs ends with float images; ours with uint8 ones
   that the graph normalizes, so numpy's normalization is added to ours for that comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import command, save
from benchmarks.runtime.baselines.baseline_steps import (
    MISSING,
    bare_crop,
    best_times,
    run_baselines,
)
from posekit import Boxes, Bundle, ModelSpec, Warp
from posekit.bundle import embedded
from posekit.inference.runtime import Runtime
from posekit.skeletons import COCO_17

SPEC = ModelSpec("none", (192, 256), (48, 64), COCO_17, decode="udp")
UDP = dataclasses.replace(SPEC, crop_shrink=1.0, crop_center=0.5)
WHY = {
    "rtmlib": "the same MSRA crop (its decoder then takes it for UDP's)",
    "transformers": "beyond the frame's last pixel SciPy is black where OpenCV fades to black",
}


def runtime_of(spec: ModelSpec) -> Runtime:
    """A runtime that crops for `spec`; its graph, of another model, is not run."""
    model = Bundle.open(embedded()["movenet-lightning"])
    return Runtime(Bundle("bench", spec, model.weights, model.graphs), device="cpu", threads=1)


def scene(persons: int) -> tuple[NDArray[np.uint8], Boxes]:
    """A 1080p frame of soft noise, and boxes of 100 to 500 px, some across its border."""
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (135, 240, 3), np.uint8), (1920, 1080))
    corner = random.uniform([-50, -50], [1600, 700], (persons, 2))
    size = random.uniform([50, 100], [250, 500], (persons, 2))
    return image, Boxes(np.concatenate([corner, corner + size], 1).astype(np.float32))


def normalized(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalized as in the graph, a row of pixels at a time, but not transposed."""
    width = crops.shape[2]
    scale = np.float32(1) / np.float32(SPEC.std)
    images: NDArray[np.float32] = np.multiply(
        crops.reshape(*crops.shape[:2], -1), np.tile(scale, width), dtype=np.float32
    )
    images -= np.tile(np.float32(SPEC.mean) * scale, width)
    return images.reshape(crops.shape)


def against_baselines(image: NDArray[Any], boxes: Boxes) -> dict[str, dict[str, float]]:
    """Difference in gray levels and time of each baseline; {} where they are not installed."""
    matrices = Warp.from_boxes(boxes, SPEC).matrix
    outputs = run_baselines("crop", {"image": image, "boxes": boxes.xyxy, "matrices": matrices})
    rows = {}
    for name, spec in (("rtmlib", SPEC), ("transformers", UDP)) if outputs else ():
        own = normalized(runtime_of(spec).crop(image, Warp.from_boxes(boxes, spec)))
        far = np.abs(outputs[name] - own) * np.float32(SPEC.std)
        rows[name] = {
            "mean_difference_levels": float(far.mean()),
            "largest_difference_levels": float(far.max()),
            "us_a_person": 1e6 * float(outputs[f"{name}_s"]) / len(boxes),
            "times_bare": float(outputs[f"{name}_s"] / outputs["bare_s"]),
        }
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {}
    for persons in (1, 8):
        image, boxes = scene(persons)
        runtime, warp = runtime_of(SPEC), Warp.from_boxes(boxes, SPEC)
        works: dict[str, Any] = {
            "bare": lambda i=image, m=warp.matrix: bare_crop(i, m, SPEC.input_size),
            "crop": lambda r=runtime, i=image, w=warp: r.crop(i, w),
            "warp and crop": lambda r=runtime, i=image, b=boxes: r.crop(
                i, Warp.from_boxes(b, SPEC)
            ),
            "and normalise": lambda r=runtime, i=image, b=boxes: normalized(
                r.crop(i, Warp.from_boxes(b, SPEC))
            ),
        }
        times = best_times(works, 8.0)
        rows = {
            key: {"us_a_person": 1e6 * t / persons, "times_bare": t / times["bare"]}
            for key, t in times.items()
        }
        for name, row in rows.items():
            print(
                f"N = {persons} {name:14} {row['us_a_person']:7.1f} us per person "
                f"{row['times_bare']:5.2f} x bare cv2.warpAffine"
            )
        baselines = against_baselines(image, boxes)
        for name, row in baselines.items():
            row["times_ours"] = row["times_bare"] / rows["and normalise"]["times_bare"]
            print(
                f"N = {persons} {name}: differs by {row['mean_difference_levels']:.3f} gray levels "
                f"(at most {row['largest_difference_levels']:.2f}); {row['us_a_person']:.0f} us "
                f"per person, {row['times_ours']:.1f} x ours with normalization. {WHY[name]}"
            )
        figures[f"{persons} persons"] = {"ours": rows, "rivals": baselines}
    if not figures["8 persons"]["rivals"]:
        print(MISSING)
    print(save("crop-cpu", command("crop"), 1, figures))


if __name__ == "__main__":
    main()
