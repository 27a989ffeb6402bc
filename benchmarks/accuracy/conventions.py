"""Evidence for the embedded specs: `python -m benchmarks conventions [--images 60]`.

1. Equivariance, on unlabeled images (lspet/adapt): where a map cell lies in the crop. A joint at x
   of a crop must be found at W - 1 - x in its mirror image, which gives b, and move by d px when
   the crop does, which gives a. No label and no convention of the source is used.
2. Accuracy on COCO persons (ground-truth boxes) and consistency on those unlabeled images for
   paddings, gates and refinements: the share of the 12 limb joints that a rotated, scaled or moved
   crop puts within 0.2 torso of where the upright one has them.

LSPET check is not used. Writes results/conventions.json.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.accuracy.persons import (
    NAMES,
    Array,
    Persons,
    coco_persons,
    estimate,
    large,
    read_image,
    recall,
    similarity,
)
from benchmarks.exported import exported_runtime
from benchmarks.results_file import ASSETS, ROOT, command, save
from posekit import Boxes, Bundle, ModelSpec, Warp
from posekit.bundle import embedded
from posekit.inference.runtime import Runtime
from posekit.nets import build
from posekit.types import UInt8

MIN_SCORE = 0.4  # of a keypoint that counts
SHIFT_PX = 28.0  # how far crops are moved to measure a: 7 cells
# Turn in degrees, scale, move as a share of the crop.
VIEWS = ((20, 1.0, 0.0), (-20, 1.0, 0.0), (0, 0.88, 0.0), (0, 1.0, 0.035))
VARIANTS = (
    {"padding": 1.1},
    {"padding": 1.25},
    {"gate": 0.0},
    {"gate": 1.0},
    {"blur": 1},
    {"decode": "quarter"},
)


def variant(bundle: Bundle, *, flip: bool, **changes: Any) -> Runtime:
    """The bundle's network with another spec."""
    spec = dataclasses.replace(bundle.pose_spec, **changes)
    needed = build(spec).state_dict()  # without the gate there is one head less
    weights = {name: value for name, value in bundle.weights.items() if name in needed}
    return exported_runtime(spec, weights, flip=flip)


def sampled_images(folder: Path, count: int) -> list[UInt8]:
    """Every n-th image, RGB."""
    paths = sorted(folder.glob("*.jpg"))
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [read_image(path) for path in chosen]


def found_boxes(runtime: Runtime, images: list[UInt8]) -> list[Boxes]:
    """A box per image: the whole of it, then twice around the confident keypoints and a margin."""
    boxes = []
    for image in images:
        box = np.array([0, 0, image.shape[1], image.shape[0]], np.float32)
        for _ in range(2):
            warp = Warp.from_boxes(Boxes(box[None]), runtime.spec)
            points, scores = runtime.infer(runtime.crop(image, warp))
            present = warp.to_frame(points)[0][scores[0] > 0.15]
            if len(present) > 5:
                low, high = present.min(0), present.max(0)
                margin = 0.1 * (high - low).max()
                box = np.concatenate([low - margin, high + margin])
        boxes.append(Boxes(box[None]))
    return boxes


def crops_of(runtime: Runtime, images: list[UInt8], warps: list[Warp]) -> UInt8:
    pairs = zip(images, warps, strict=True)
    return np.concatenate([runtime.crop(image, warp) for image, warp in pairs])


def moved(warp: Warp, spec: ModelSpec, turn: float, scale: float, move_px: float) -> Warp:
    """`warp`, then turned and scaled about the crop's center and moved right and down."""
    width, height = spec.input_size
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, scale)
    matrix[:, 2] += move_px
    linear = matrix[:, :2] @ warp.matrix[0]
    linear[:, 2] += matrix[:, 2]
    return Warp(linear[None])


def equivariance(runtime: Runtime, images: list[UInt8], boxes: list[Boxes]) -> dict[str, Any]:
    """a, b (x axis) with its standard error, and the flip shift that they imply."""
    spec = runtime.spec
    warps = [Warp.from_boxes(box, spec) for box in boxes]
    crops = crops_of(runtime, images, warps)
    points, scores = runtime.infer(crops)
    mirrored, _ = runtime.infer(np.ascontiguousarray(crops[:, :, ::-1]))
    there = mirrored[:, list(spec.skeleton.mirror)]
    total = points[..., 0] + there[..., 0]
    agree = (np.abs(total - spec.input_size[0] + 1) < 8) & (scores > MIN_SCORE)
    agree &= np.abs(points[..., 1] - there[..., 1]) < 8
    b = spec.map_offset[0] + (spec.input_size[0] - 1 - total[agree]) / 2
    away = [moved(warp, spec, 0, 1, SHIFT_PX) for warp in warps]
    shifted, _ = runtime.infer(crops_of(runtime, images, away))
    distance = (shifted - points)[
        (scores > MIN_SCORE) & (np.abs(shifted - points - SHIFT_PX) < 8).all(2)
    ]
    scale = SHIFT_PX / distance.mean(0) * spec.map_scale
    middle = float(b.mean())
    implied = (spec.input_size[0] - 1 - 2 * middle) / 4 - (spec.heatmap_size[0] - 1)
    return {
        "keypoints": int(agree.sum()),
        "a": [round(float(value), 3) for value in scale],
        "b_px": round(middle, 3),
        "b_standard_error_px": round(float(b.std() / np.sqrt(b.size)), 3),
        "flip_shift_cells": round(implied, 3),
    }


def consistency(runtime: Runtime, images: list[UInt8], boxes: list[Boxes]) -> float:
    """Share of limb joints that stay where they are when the crop is rotated, scaled or moved."""
    spec = runtime.spec
    upright = [Warp.from_boxes(box, spec) for box in boxes]

    def predict(warps: list[Warp]) -> Array:
        points, _ = runtime.infer(crops_of(runtime, images, warps))
        back = [warp.to_frame(person[None]) for warp, person in zip(warps, points, strict=True)]
        return np.concatenate(back)

    base = predict(upright)
    sides = [np.linalg.norm(base[:, a] - base[:, b], axis=1) for a, b in ((5, 12), (6, 11))]
    heights = np.array([np.ptp(box.xyxy[0].reshape(2, 2), axis=0).max() for box in boxes])
    size = np.maximum(np.maximum(*sides), 0.1 * heights)
    shares = []
    for turn, scale, move in VIEWS:
        pixels = move * spec.input_size[0]
        points = predict([moved(warp, spec, turn, scale, pixels) for warp in upright])
        far = np.linalg.norm(points - base, axis=2)[:, 5:]
        shares.append((far < 0.2 * size[:, None]).mean())
    return round(float(np.mean(shares)), 3)


def rows(
    bundle: Bundle, coco: Persons, images: list[UInt8], boxes: list[Boxes]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The embedded spec's figures with and without the flip test, each variant's without."""
    for changes in ({}, *VARIANTS):
        for flip in (False,) if changes else (False, True):
            runtime = variant(bundle, flip=flip, **changes)
            values = similarity(estimate(runtime, coco, coco.boxes), coco)
            name = ", ".join(f"{key} {value}" for key, value in changes.items()) or "as embedded"
            name = name if changes else f"{name}, padding {bundle.pose_spec.padding:g}"
            yield (
                f"{name}{', flip' if flip else ''}",
                {
                    "coco": recall(values),
                    "coco_large": recall(values[large(coco)]),
                    "consistency": consistency(runtime, images, boxes),
                },
            )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--images", type=int, default=60, help="number of unlabeled images")
    parser.add_argument("--models", nargs="+", default=NAMES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    coco = coco_persons(options.assets)
    images = sampled_images(options.assets / "lspet" / "adapt", options.images)
    figures: dict[str, Any] = {}
    for name in options.models:
        bundle = Bundle.open(embedded()[name])
        boxes = found_boxes(variant(bundle, flip=True), images)
        figures[name] = {
            "equivariance": {
                f"gate {gate:g}": equivariance(
                    variant(bundle, flip=False, gate=gate), images, boxes
                )
                for gate in (0.0, bundle.pose_spec.gate)
            }
        }
        print(name, figures[name]["equivariance"], flush=True)
        for row, values in rows(bundle, coco, images, boxes):
            figures[name][row] = values
            print(f"  {row:24}", values, flush=True)
    run_as = command("conventions", "--images", str(options.images))
    path = save("conventions", run_as, 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
