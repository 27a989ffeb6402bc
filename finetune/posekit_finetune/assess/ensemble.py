"""The predictions of each network of a run, and of their ensemble: the mean of the heatmaps.

Source: Xie et al., ICCV 2021, whose code reports network 1, network 2 and the mean of their maps
separately. An ensemble costs twice as much, so its figures do not compare with a network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from posekit import codecs
from posekit.geometry import Float64
from posekit.types import Float32, Int64, ModelSpec, UInt8
from posekit_finetune.assess.indicators import body_keypoints, clipped_distance
from posekit_finetune.assess.predict import Predict, of_network
from posekit_finetune.data.persons import Persons

_BLOCK = 64
"""Persons per block."""


@dataclass(frozen=True, eq=False)
class Member:
    """The predictions of one network, or of the ensemble, for n persons.

    name: "net 1", "net 2" or "ensemble".  points: float32 (n, K, 2), crop px.  scores: (n, K).
    histogram: (5,), share of the maps' values in fifths of [0, 1], clipped to it.
    """

    name: str
    points: Float32
    scores: Float32
    histogram: Float64

    @property
    def response(self) -> float:
        """Mean peak height, which falls when a network collapses."""
        return float(self.scores.mean())


def predict_members(
    nets: Sequence[nn.Module], persons: Persons, rows: Int64 | None = None
) -> list[Member]:
    """Each network on the persons `rows` (None: all), and their ensemble where there are two."""
    predicts = [of_network(net, persons.spec) for net in nets]
    rows = np.arange(len(persons)) if rows is None else rows
    blocks = [
        _block(predicts, persons.crops(rows[start : start + _BLOCK]), persons.spec)
        for start in range(0, len(rows), _BLOCK)
    ]
    names = [f"net {n + 1}" for n in range(len(nets))] + ["ensemble"] * (len(nets) > 1)
    return [_concatenated(name, [block[n] for block in blocks]) for n, name in enumerate(names)]


def mean_maps(first: Predict, second: Predict) -> Predict:
    """The ensemble: the mean of two networks' maps."""
    return lambda crops: np.mean([first(crops), second(crops)], 0, dtype=np.float32)


def mean_distance(first: Float32, second: Float32, spec: ModelSpec) -> float:
    """Mean clipped distance of two networks' points (n, K, 2), crop px, over the body's joints.

    A share of the crop's longer side; 0 for equal networks.
    """
    part, side = body_keypoints(spec.skeleton), float(max(spec.input_size))
    return float(clipped_distance(first[:, part], second[:, part], side).mean())


BlockOutput = tuple[Float32, Float32, Float64]
"""Points, scores and histogram of a block."""


def _block(predicts: Sequence[Predict], crops: UInt8, spec: ModelSpec) -> list[BlockOutput]:
    """The output of each member."""
    maps = [predict(crops) for predict in predicts]
    if len(maps) > 1:
        maps.append(np.mean(maps, 0, dtype=np.float32))
    return [(*codecs.decode(each, spec), _histogram(each)) for each in maps]


def _histogram(maps: Float32) -> Float64:
    fifths = np.clip((maps * 5).astype(np.int64), 0, 4)
    return np.bincount(fifths.reshape(-1), minlength=5).astype(np.float64)


def _concatenated(name: str, blocks: Sequence[BlockOutput]) -> Member:
    points, scores, counts = zip(*blocks, strict=True)
    total = np.sum(counts, 0)
    return Member(name, np.concatenate(points), np.concatenate(scores), total / total.sum())
