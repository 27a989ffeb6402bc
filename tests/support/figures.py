"""Drawn persons whose joints are discs of pure colors, and a model that finds the discs.

The two joints of a pair have one color, as real ones do: which is left must be found from the
image. The model is right in every view by construction, so every deviation is a test's own.
"""

from __future__ import annotations

import cv2
import numpy as np

from posekit.types import Float32, ModelSpec, Skeleton, UInt8
from posekit_finetune.assess.predict import Predict
from posekit_finetune.data.persons import Persons, offset_of, patch_size

PAIRS = ("shoulder", "elbow", "hip", "knee")
SKELETON = Skeleton(
    name="figure_9",
    keypoints=("head", *(f"{side}_{name}" for name in PAIRS for side in ("left", "right"))),
    bones=((1, 3), (2, 4), (1, 5), (2, 6), (5, 7), (6, 8), (1, 2), (5, 6)),
    mirror=(0, 2, 1, 4, 3, 6, 5, 8, 7),
    sigmas=(0.08,) * 9,
)
SPEC = ModelSpec(
    architecture="drawn",
    input_size=(96, 96),
    heatmap_size=(24, 24),
    skeleton=SKELETON,
    map_offset=(1.5, 1.5),
    flip_shift=0.0,
    crop_center=0.5,
    sigma=1.0,
    blur=3,
)
COLORS = ((255, 0, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
# Rows of an upright figure, and how far each pair is from the middle: shares of the crop.
_HEIGHTS = np.array([-0.3, -0.2, -0.02, 0.08, 0.3])
_WIDTHS = np.array([0.0, 0.13, 0.22, 0.1, 0.12])


def figures(count: int, *, per_group: int = 1, seed: int = 0) -> tuple[Persons, Float32]:
    """`count` drawn persons, and their joints (N, 9, 2) in crop px."""
    random = np.random.default_rng(seed)
    joints = np.stack([_joints(random) for _ in range(count)]).astype(np.float32)
    patches = np.stack([_draw(points, random) for points in joints])
    persons = Persons(
        patches=patches,
        offset=offset_of(SPEC),
        boxes=np.tile(np.array([10, 20, 90, 100], np.float32), (count, 1)),
        sources=tuple(f"{n}.png" for n in range(count)),
        groups=np.arange(count) // per_group,
        times_s=np.full(count, np.nan),
        tracks=np.full(count, -1),
        spec=SPEC,
        fingerprint="drawn",
    )
    return persons, joints


def _joints(random: np.random.Generator) -> Float32:
    side = SPEC.input_size[0]
    middle = (side - 1) / 2 + random.uniform(-0.08, 0.08, 2) * side
    heights = _HEIGHTS + random.uniform(-0.04, 0.04, 5)
    points = [middle + side * np.array([0.0, heights[0]])]
    for n in range(1, 5):
        for sign in (1, -1):  # a person who faces us has the left hand on the image's right
            width = sign * (_WIDTHS[n] + random.uniform(-0.02, 0.02))
            points.append(middle + side * np.array([width, heights[n] + random.normal(0, 0.01)]))
    return np.array(points, np.float32)


def _draw(points: Float32, random: np.random.Generator) -> UInt8:
    width, height = patch_size(SPEC)
    patch = np.full((height, width, 3), 128, np.uint8)
    patch += random.integers(0, 20, patch.shape, np.uint8)
    places = np.rint((points + offset_of(SPEC)) * 16).astype(int)
    for k, (x, y) in enumerate(places.tolist()):
        color = COLORS[(k + 1) // 2]
        cv2.circle(patch, (x, y), 4 * 16, color, -1, cv2.LINE_AA, 4)
    return patch


def drawn_model(crops: UInt8) -> Float32:
    """The model: heatmaps (n, 9, 24, 24) of where each color is, left and right apart."""
    return np.stack([_maps(crop) for crop in crops])


def _maps(crop: UInt8) -> Float32:
    width, height = SPEC.heatmap_size
    maps = np.zeros((len(SKELETON), height, width), np.float32)
    for n, color in enumerate(COLORS):
        far = np.max(cv2.absdiff(crop, np.full_like(crop, color)), 2)
        near = 100 - np.minimum(far, np.uint8(100))
        cells = cv2.resize(near, (width, height), interpolation=cv2.INTER_AREA) / np.float32(100)
        if n == 0:
            maps[0] = cells
            continue
        total = cells.sum()
        middle = (cells.sum(0) * np.arange(width)).sum() / total if total > 0 else 0.0
        right = np.arange(width) > middle
        maps[2 * n - 1], maps[2 * n] = np.where(right, cells, 0), np.where(right, 0, cells)
    return maps


def unsteady(share: float, *, seed: int = 0) -> Predict:
    """The model, but of each joint in each image a `share` is elsewhere, at random."""

    def predict(crops: UInt8) -> Float32:
        maps = drawn_model(crops)
        for crop, each in zip(crops, maps, strict=True):
            # by the image, so that the same one always gives the same output
            random = np.random.default_rng((seed, int(crop[::5, ::5].sum())))
            for k in np.flatnonzero(random.random(len(each)) < share):
                each[k] = np.roll(each[k], tuple(random.integers(6, 18, 2)), (0, 1))
        return maps

    return predict
