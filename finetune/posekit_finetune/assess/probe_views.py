"""The views in which the gate looks at a person, and a network's answers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.geometry import Float64
from posekit.types import Float32, Int64, ModelSpec, UInt8
from posekit_finetune.assess.predict import Predict
from posekit_finetune.data.persons import Persons
from posekit_finetune.views.warps import Random, cut_view, identity, relative_warp, warp_points

LOOKS = ("flip", "turn", "zoom", "move", "odd")
"""Beside the plain one."""

TURN_DEG = 30.0
ZOOM = 0.8
MOVE = 1 / 19
"""Of the crop's sides, at most: 10 px of 192, in whole px, so off the grid of the cells."""
SHEAR = 0.25
GAMMA = (0.6, 1.6)
JPEG_QUALITY = 35

_BLOCK = 32
"""Persons at a time."""


@dataclass(frozen=True, eq=False)
class ProbeMaps:
    """A network's answers on n persons in the plain view and in V others.

    points, scores: (n, K, 2) crop px and (n, K).  cells: (n, K), flat index of the peak.
    histogram: (n, 5), share of the maps' values in fifths of [0, 1], what lies beyond in the outer
    ones.  carried: (n, V, K, 2), the other views' points in the plain crop.
    inside: (n, V, K), whether the view shows the plain view's point at all.
    """

    points: Float32
    scores: Float32
    cells: Int64
    histogram: Float64
    carried: Float32
    inside: NDArray[np.bool_]


def probe_maps(predict: Predict, persons: Persons, rows: Int64, *, seed: int) -> ProbeMaps:
    """Look at the persons `rows`; a person's views depend on `seed` and its row alone."""
    blocks = [
        _block(predict, persons, rows[start : start + _BLOCK], seed=seed)
        for start in range(0, len(rows), _BLOCK)
    ]
    names = ProbeMaps.__dataclass_fields__
    return ProbeMaps(**{n: np.concatenate([getattr(block, n) for block in blocks]) for n in names})


def _block(predict: Predict, persons: Persons, rows: Int64, *, seed: int) -> ProbeMaps:
    spec = persons.spec
    patches: UInt8 = np.asarray(persons.patches[rows])
    randoms = [np.random.default_rng((seed, int(row))) for row in rows]
    maps = predict(persons.crops(rows))
    points, scores = codecs.decode(maps, spec)
    carried, inside = [], []
    for name, matrix in zip(LOOKS, warps(randoms, spec), strict=True):
        crops = cut_view(patches, persons.offset, matrix, spec=spec).crops
        crops = degraded(randoms, crops) if name == "odd" else crops
        found, _ = codecs.decode(predict(crops), spec)
        back = relative_warp(matrix, identity(len(rows)))
        carried.append(warp_points(found, back, spec))
        inside.append(_inside(points, matrix, spec))
    flat = maps.reshape(*maps.shape[:2], -1)
    return ProbeMaps(
        points=points,
        scores=scores,
        cells=flat.argmax(2).astype(np.int64),
        histogram=_histogram(maps),
        carried=np.stack(carried, 1),
        inside=np.stack(inside, 1),
    )


def warps(randoms: Sequence[Random], spec: ModelSpec) -> list[Float64]:
    """(n, 2, 3) from crop px to view px for each of LOOKS, all about the crop's middle."""
    width, height = spec.input_size
    middle = np.array([width - 1, height - 1]) / 2
    signs = np.array([random.choice((-1.0, 1.0), 2) for random in randoms])
    reach = np.floor(np.array([width, height]) * MOVE)
    steps = np.array([np.rint(random.uniform(-1, 1, 2) * reach) for random in randoms])
    angle = np.deg2rad(TURN_DEG) * signs[:, 0]
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.repeat(np.eye(2)[None], 5 * len(randoms), 0).reshape(5, -1, 2, 2)
    linear[0, :, 0, 0] = -1
    linear[1] = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    linear[2] *= ZOOM
    linear[4, :, 0, 1] = SHEAR * signs[:, 1]
    shift = middle - linear @ middle
    shift[3] = steps
    return list(np.concatenate([linear, shift[..., None]], 3))


def degraded(randoms: Sequence[Random], crops: UInt8) -> UInt8:
    """Pictures (n, H, W, 3) with another gamma, after coarse JPEG: no recipe has either."""
    values = np.arange(256) / 255
    result = np.empty_like(crops)
    for random, crop, out in zip(randoms, crops, result, strict=True):
        table = np.rint(255 * values ** random.choice(GAMMA)).astype(np.uint8)
        coded = cv2.imencode(".jpg", cv2.LUT(crop, table), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        out[:] = cv2.imdecode(coded[1], cv2.IMREAD_UNCHANGED)
    return result


def _inside(points: Float32, matrix: Float64, spec: ModelSpec) -> NDArray[np.bool_]:
    """Which points of the crop the view shows, (n, K)."""
    seen = np.einsum("nij,nkj->nki", matrix[:, :, :2], points) + matrix[:, None, :, 2]
    last = np.array(spec.input_size) - 0.5
    # a point is told apart by its place alone, so a mirrored channel's is the same
    return np.asarray(((seen >= -0.5) & (seen <= last)).all(2))


def _histogram(maps: Float32) -> Float64:
    """Share of the values in fifths of [0, 1], (n, 5)."""
    flat = np.clip(np.nan_to_num(maps.reshape(len(maps), -1)), 0, 1)
    above = np.stack([(flat >= edge).mean(1) for edge in (0.0, 0.2, 0.4, 0.6, 0.8)], 1)
    return np.asarray(above - np.concatenate([above[:, 1:], np.zeros((len(maps), 1))], 1))
