"""The probe views of a person, and a network's predictions in them."""

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

UNTRAINED = "odd"
"""Name in reports of the view that no recipe trains on."""

PROBE_VIEWS = ("flip", "turn", "zoom", "move", UNTRAINED)
"""The views beside the plain one."""

TURN_DEG = 30.0
ZOOM = 0.8
MOVE = 1 / 19
"""Largest shift as a share of the crop's sides: 10 px of 192, in whole px, so off the cell grid."""
SHEAR = 0.25
GAMMA = (0.6, 1.6)
JPEG_QUALITY = 35

_BLOCK = 32
"""Persons per block."""


@dataclass(frozen=True, eq=False)
class ProbeMaps:
    """A network's predictions for n persons in the plain view and in V probe views.

    points, scores: (n, K, 2) crop px and (n, K), plain view.  cells: (n, K), flat index of the
    peak.  histogram: (n, 5), share of the maps' values in fifths of [0, 1], clipped to it.
    view_points: (n, V, K, 2), the probe views' points, warped back to the plain crop.
    visible: (n, V, K), whether the plain view's point lies inside the probe view.
    """

    points: Float32
    scores: Float32
    cells: Int64
    histogram: Float64
    view_points: Float32
    visible: NDArray[np.bool_]


def probe_maps(predict: Predict, persons: Persons, rows: Int64, *, seed: int) -> ProbeMaps:
    """Predict the persons `rows`; a person's views depend on `seed` and its row alone."""
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
    view_points, visible = [], []
    for name, matrix in zip(PROBE_VIEWS, draw_probe_warps(randoms, spec), strict=True):
        crops = cut_view(patches, persons.offset, matrix, spec=spec).crops
        crops = degrade(randoms, crops) if name == UNTRAINED else crops
        predicted, _ = codecs.decode(predict(crops), spec)
        back = relative_warp(matrix, identity(len(rows)))
        view_points.append(warp_points(predicted, back, spec))
        visible.append(_visible(points, matrix, spec))
    flat = maps.reshape(*maps.shape[:2], -1)
    return ProbeMaps(
        points=points,
        scores=scores,
        cells=flat.argmax(2).astype(np.int64),
        histogram=_histogram(maps),
        view_points=np.stack(view_points, 1),
        visible=np.stack(visible, 1),
    )


def draw_probe_warps(randoms: Sequence[Random], spec: ModelSpec) -> list[Float64]:
    """(n, 2, 3) from crop px to view px for each of PROBE_VIEWS, about the crop's center."""
    width, height = spec.input_size
    center = np.array([width - 1, height - 1]) / 2
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
    shift = center - linear @ center
    shift[3] = steps
    return list(np.concatenate([linear, shift[..., None]], 3))


def degrade(randoms: Sequence[Random], crops: UInt8) -> UInt8:
    """Crops (n, H, W, 3) with another gamma and strong JPEG compression, which no recipe has."""
    values = np.arange(256) / 255
    result = np.empty_like(crops)
    for random, crop, out in zip(randoms, crops, result, strict=True):
        table = np.rint(255 * values ** random.choice(GAMMA)).astype(np.uint8)
        coded = cv2.imencode(".jpg", cv2.LUT(crop, table), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        out[:] = cv2.imdecode(coded[1], cv2.IMREAD_UNCHANGED)
    return result


def _visible(points: Float32, matrix: Float64, spec: ModelSpec) -> NDArray[np.bool_]:
    """Which points of the crop lie inside the view, (n, K); a mirror exchanges no channels here."""
    warped = np.einsum("nij,nkj->nki", matrix[:, :, :2], points) + matrix[:, None, :, 2]
    last = np.array(spec.input_size) - 0.5
    return np.asarray(((warped >= -0.5) & (warped <= last)).all(2))


def _histogram(maps: Float32) -> Float64:
    """Share of the values in fifths of [0, 1], (n, 5)."""
    flat = np.clip(np.nan_to_num(maps.reshape(len(maps), -1)), 0, 1)
    above = np.stack([(flat >= edge).mean(1) for edge in (0.0, 0.2, 0.4, 0.6, 0.8)], 1)
    return np.asarray(above - np.concatenate([above[:, 1:], np.zeros((len(maps), 1))], 1))
