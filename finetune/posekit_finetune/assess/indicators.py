"""What can be told about a network without labels, on persons that it did not learn from.

Each person is seen plainly and in five more views (mirrored, turned, smaller, moved, and one that
no recipe trains on: sheared, with another gamma, through JPEG). Points of a view are carried back
through its own warp. Every figure is kept per person, so that two networks can be compared on the
same persons with an interval. Distances are shares of the crop's longer side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Float32, Int64, ModelSpec, Skeleton
from posekit_finetune.assess import probe_views
from posekit_finetune.assess.predict import Predict
from posekit_finetune.assess.probe_views import LOOKS, ProbeMaps
from posekit_finetune.data.persons import Persons

if TYPE_CHECKING:
    from posekit_finetune.train.teacher import PseudoLabels

Bools = NDArray[np.bool_]
Float64 = NDArray[np.float64]

NEAR = 0.05
"""Two answers this close agree: 9.6 px of 192; PCK@0.2 of a torso that fills half of the crop."""

FAR = 4 * NEAR
"""Distances are clipped here: how wrong a wrong answer is, is chance."""

FAINT = 0.1
"""A peak below this is no answer. Of MoveNet's, 38 % of those under 0.2 are right (LSPET)."""

BODY_SIGMA = 0.05
"""Keypoints with a larger OKS sigma are the body's; those of the face lie too close to tell."""

_RARE = 0.02
"""Share of the source's own bones that count as implausibly long or short."""

_LINK_S = 0.5
"""Two looks at a tracked person further apart than this may honestly differ."""

_JUMP = 0.25
"""A joint that moves so far within the box between two looks, beyond what the person does."""


@dataclass(frozen=True)
class Measure:
    """One figure per person.  better: 1 where larger is better, -1 where smaller, 0 neither."""

    name: str
    about: str
    better: Literal[-1, 0, 1]


MEASURES = (
    Measure("response", "mean height of the peaks", 0),
    Measure("faint", f"share of maps whose peak is below {FAINT}", -1),
    Measure("flip", "body joints that stay where they are in the mirror", 1),
    Measure("turn", "body joints that stay when the picture is turned by 30 degrees", 1),
    Measure("zoom", "body joints that stay when the person is a fifth smaller", 1),
    Measure("move", "body joints that stay when the picture is moved by a few px", 1),
    Measure(
        "odd",
        "body joints that stay when sheared, with another gamma, through JPEG (never trained)",
        1,
    ),
    Measure("away", "mean clipped distance between the views' answers, share of the crop", -1),
    Measure("teacher", "body joints that agree with the frozen teacher", 1),
    Measure("teacher_away", "mean clipped distance from the teacher, share of the crop", -1),
    Measure("turned", "body joints that agree with the frozen teacher's turned views alone", 1),
    Measure("source", "agreement with the source where it is sure and consistent", 1),
    Measure("source_away", "mean clipped distance from the source there, share of the crop", -1),
    Measure("swaps", "left/right pairs that change places between views", -1),
    Measure("crossed", "left/right pairs that lie crosswise to the source's sure ones", -1),
    Measure("bones", "bones longer or shorter than nearly all of the source's", -1),
    Measure("asymmetry", "difference of left and right bones, |log ratio|, clipped", -1),
    Measure("jumps", "joints of tracked persons that leap between frames", -1),
)
NAMES = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True, eq=False)
class Indicators:
    """What was measured on n persons.

    rows, groups: int (n,), which persons, and what is drawn together.  seed: of the views.
    values: float64 (n, M), a column for each of MEASURES, NaN where it cannot be told.
    points, scores: (n, K, 2) crop px and (n, K), the plain view's answer.
    histogram: (n, 5), share of heatmap values in fifths of [0, 1].  cells: (n, K), of the peaks.
    sure: bool (n, K), whether the answer is confident and the same in all views.
    drift: (n, K, 2), from the source's sure points, share of the crop, NaN elsewhere.
    limits: (B, 2), between which the source's bones lie.  skeleton: whose keypoints.
    side: the crop's longer one, px.
    """

    rows: Int64
    groups: Int64
    seed: int
    values: Float64
    points: Float32
    scores: Float32
    histogram: Float64
    cells: Int64
    sure: Bools
    drift: Float64
    limits: Float64
    skeleton: Skeleton
    side: float

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Indicators({len(self)} persons of {len(np.unique(self.groups))} groups)"

    def column(self, name: str) -> Float64:
        """One measure of each person, (n,)."""
        column: Float64 = self.values[:, NAMES.index(name)]
        return column

    def mean(self, name: str) -> float:
        """One measure over the persons for whom it can be told; NaN for none."""
        known = self.column(name)
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def distinct(self) -> float:
        """Mean number of different peak cells of a keypoint, as a share of the persons."""
        counts = [len(np.unique(self.cells[:, k])) for k in range(self.cells.shape[1])]
        return float(np.mean(counts)) / max(len(self), 1)

    @property
    def bias(self) -> float:
        """How far the body's keypoints moved all alike from the source, share of the crop."""
        moved = self.drift[:, body(self.skeleton)]
        known = [k[~np.isnan(k[:, 0])] for k in moved.transpose(1, 0, 2)]
        lengths = [np.hypot(*np.median(each, 0)) for each in known if len(each)]
        return float(np.mean(lengths)) if lengths else float("nan")

    def summary(self) -> dict[str, float]:
        """Means by name, for logs and tables."""
        bins = {f"bin_{n}": float(share) for n, share in enumerate(self.histogram.mean(0))}
        told = {name: self.mean(name) for name in NAMES}
        return {**told, "distinct": self.distinct, "bias": self.bias, **bins}


def measure(
    predict: Predict,
    persons: Persons,
    index: ArrayLike,
    *,
    teacher: PseudoLabels | None = None,
    source: Indicators | None = None,
    seed: int = 0,
) -> Indicators:
    """Look at the persons that `index` names; `predict` runs in evaluation mode.

    teacher: what a frozen network says of all `persons`.  source: what was measured of the network
    before it learned, on the same persons; None where this is that network.
    Raises InputError.
    """
    rows = _rows(persons, index, source, seed=seed)
    seen = probe_views.probe_maps(predict, persons, rows, seed=seed)
    spec = persons.spec
    side = float(max(spec.input_size))
    sure = _sure(seen, spec, side)
    reference = (seen.points, sure) if source is None else (source.points, source.sure)
    limits = _limits(seen.points, spec.skeleton) if source is None else source.limits
    drift = np.where(reference[1][..., None], (seen.points - reference[0]) / side, np.nan)
    columns = {
        **_strength(seen),
        **_consistency(seen, spec, side),
        **_teacher(seen, teacher, rows, spec=spec),
        **_source(seen.points, *reference, spec=spec),
        **_shape(seen.points, limits, spec.skeleton),
        "jumps": _jumps(seen.points, persons, rows),
    }
    return Indicators(
        rows=rows,
        groups=persons.groups[rows],
        seed=seed,
        values=np.stack([columns[name] for name in NAMES], 1),
        points=seen.points,
        scores=seen.scores,
        histogram=seen.histogram,
        cells=seen.cells,
        sure=sure,
        drift=drift,
        limits=limits,
        skeleton=spec.skeleton,
        side=side,
    )


def _rows(persons: Persons, index: ArrayLike, source: Indicators | None, *, seed: int) -> Int64:
    """Rows that `index` names, those of the source. Raises InputError."""
    rows = np.arange(len(persons))
    rows = rows[np.asarray(index) if np.size(index) else []]
    if not len(rows):
        raise InputError("indicators: wanted at least one held-out person, got none")
    if source is not None and (not np.array_equal(source.rows, rows) or source.seed != seed):
        raise InputError("indicators: the source was measured on other persons or other views")
    return rows


def gap(a: Indicators, b: Indicators) -> float:
    """Mean clipped distance between two networks' body joints, share of the crop: 0 for twins.

    Raises InputError.
    """
    if not np.array_equal(a.rows, b.rows):
        raise InputError("gap: the two networks were measured on other persons")
    part = body(a.skeleton)
    return float(_distance(a.points[:, part], b.points[:, part], a.side).mean())


@functools.lru_cache(16)
def body(skeleton: Skeleton) -> Int64:
    """Indices of the body's keypoints: all of them where the sigmas tell of fewer than four."""
    large = np.flatnonzero(np.array(skeleton.sigmas) >= BODY_SIGMA)
    return large if len(large) >= 4 else np.arange(len(skeleton))


@functools.lru_cache(16)
def pairs(skeleton: Skeleton) -> Int64:
    """(P, 2) indices of the body's mirror pairs."""
    part = set(body(skeleton).tolist())
    found = [(k, m) for k, m in enumerate(skeleton.mirror) if k < m and k in part]
    return np.array(found, np.int64).reshape(-1, 2)


@functools.lru_cache(16)
def _bones(skeleton: Skeleton) -> tuple[Int64, Int64]:
    """(B, 2) the body's bones, and (P, 2) which of them are left and right of each other."""
    part = set(body(skeleton).tolist())
    bones = [tuple(sorted(bone)) for bone in skeleton.bones if set(bone) <= part]
    mirrored = [tuple(sorted(skeleton.mirror[end] for end in bone)) for bone in bones]
    twins = [(b, bones.index(m)) for b, m in enumerate(mirrored) if m in bones]
    both = [(a, b) for a, b in twins if a < b]
    return np.array(bones, np.int64).reshape(-1, 2), np.array(both, np.int64).reshape(-1, 2)


def _distance(a: NDArray[np.floating], b: NDArray[np.floating], side: float) -> Float64:
    """Clipped distances of points (..., 2), share of `side`; NaN stays."""
    far = np.hypot(*np.moveaxis(a.astype(np.float64) - b, -1, 0)) / side
    clipped: Float64 = np.minimum(far, FAR)
    return clipped


def _mean(values: NDArray[np.floating] | Bools, known: Bools) -> Float64:
    """Mean over all but the first axis of what is known, (n,); NaN where nothing is."""
    around = tuple(range(1, values.ndim))
    count = known.sum(around)
    total = np.where(known, values, 0).sum(around, dtype=np.float64)
    out = np.full(len(values), np.nan)
    return np.asarray(np.divide(total, count, out=out, where=count > 0), np.float64)


def _strength(seen: ProbeMaps) -> dict[str, Float64]:
    response = seen.scores.mean(1, dtype=np.float64)
    return {"response": response, "faint": (seen.scores < FAINT).mean(1)}


def _between(seen: ProbeMaps, part: Int64, side: float) -> Float64:
    """Distance (n, V, K') of each view's answer from the plain one; NaN where out of view."""
    plain = seen.points[:, None, part]
    far = _distance(seen.carried[:, :, part], plain, side)
    return np.where(seen.inside[:, :, part], far, np.nan)


def _sure(seen: ProbeMaps, spec: ModelSpec, side: float) -> Bools:
    """Scored above the median of the body's joints, and near in every view that shows it."""
    far = _between(seen, np.arange(len(spec.skeleton)), side)
    steady = (np.isnan(far) | (far < NEAR)).all(1)
    usual = np.median(seen.scores[:, body(spec.skeleton)])
    return np.asarray(steady & (seen.scores >= usual))


def _consistency(seen: ProbeMaps, spec: ModelSpec, side: float) -> dict[str, Float64]:
    far = _between(seen, body(spec.skeleton), side)
    known = ~np.isnan(far)
    near = far < NEAR
    columns = {name: _mean(near[:, v], known[:, v]) for v, name in enumerate(LOOKS)}
    columns["away"] = _mean(far, known)
    ends = pairs(spec.skeleton)
    own = np.repeat(seen.points[:, None], len(LOOKS), 1)
    crossed, apart = _crossed(own, seen.carried, ends, side=side)
    apart &= seen.inside[:, :, ends].all(3)
    columns["swaps"] = _mean(crossed, apart)
    return columns


def _crossed(a: Float32, b: Float32, ends: Int64, *, side: float) -> tuple[Bools, Bools]:
    """Which pairs of `b` lie crosswise to `a`'s, and which lie apart in `a` at all; (..., P)."""
    left, right = ends.T
    straight = _raw(a, b, of_a=left, of_b=left) + _raw(a, b, of_a=right, of_b=right)
    cross = _raw(a, b, of_a=left, of_b=right) + _raw(a, b, of_a=right, of_b=left)
    apart = _raw(a, a, of_a=left, of_b=right) > NEAR * side
    return np.asarray(cross < 0.5 * straight), np.asarray(apart)


def _raw(a: Float32, b: Float32, *, of_a: Int64, of_b: Int64) -> Float64:
    offset = a[..., of_a, :].astype(np.float64) - b[..., of_b, :]
    return np.asarray(np.hypot(offset[..., 0], offset[..., 1]), np.float64)


def _teacher(
    seen: ProbeMaps, teacher: PseudoLabels | None, rows: Int64, *, spec: ModelSpec
) -> dict[str, Float64]:
    told = None if teacher is None else teacher.points[rows]
    turned = None if teacher is None or teacher.rotated is None else teacher.rotated[rows]
    near, away = _agreement(seen, told, spec)
    return {"teacher": near, "teacher_away": away, "turned": _agreement(seen, turned, spec)[0]}


def _agreement(seen: ProbeMaps, told: Float32 | None, spec: ModelSpec) -> tuple[Float64, Float64]:
    """Of each person, the share of joints near what was told, and their mean distance from it."""
    if told is None:
        nothing = np.full(len(seen.points), np.nan)
        return nothing, nothing
    part = body(spec.skeleton)
    far = _distance(seen.points[:, part], told[:, part], float(max(spec.input_size)))
    known = ~np.isnan(far)  # a teacher of another skeleton does not have all keypoints
    return _mean(far < NEAR, known), _mean(far, known)


def _source(
    points: Float32, reference: Float32, sure: Bools, *, spec: ModelSpec
) -> dict[str, Float64]:
    part, side = body(spec.skeleton), float(max(spec.input_size))
    far = _distance(points[:, part], reference[:, part], side)
    ends = pairs(spec.skeleton)
    crossed, apart = _crossed(reference, points, ends, side=side)
    known = sure[:, part]
    return {
        "source": _mean(far < NEAR, known),
        "source_away": _mean(far, known),
        "crossed": _mean(crossed, apart & sure[:, ends].all(2)),
    }


def _lengths(points: Float32, skeleton: Skeleton) -> Float64:
    """The body's bones (n, B), in mean bones of their person."""
    bones = _bones(skeleton)[0]
    lengths = _raw(points, points, of_a=bones[:, 0], of_b=bones[:, 1])
    usual = lengths.mean(1, keepdims=True) if lengths.size else lengths
    out = np.zeros_like(lengths)
    return np.asarray(np.divide(lengths, usual, out=out, where=usual > 0), np.float64)


def _limits(points: Float32, skeleton: Skeleton) -> Float64:
    lengths = _lengths(points, skeleton)
    if not lengths.size:
        return np.zeros((0, 2))
    return np.asarray(np.quantile(lengths, [_RARE / 2, 1 - _RARE / 2], axis=0).T, np.float64)


def _shape(points: Float32, limits: Float64, skeleton: Skeleton) -> dict[str, Float64]:
    lengths, twins = _lengths(points, skeleton), _bones(skeleton)[1]
    outside = (lengths < limits[:, 0]) | (lengths > limits[:, 1])
    left, right = (lengths[:, twins[:, side]] + 1e-3 for side in (0, 1))
    ratio = np.minimum(np.abs(np.log(left / right)), np.log(4.0))
    return {
        "bones": _mean(outside, np.ones_like(outside)),
        "asymmetry": _mean(ratio, np.ones(ratio.shape, np.bool_)),
    }


def _jumps(points: Float32, persons: Persons, rows: Int64) -> Float64:
    """Share of body joints that leap from the track's last look; NaN without one."""
    part, spec = body(persons.spec.skeleton), persons.spec
    jumps = np.full(len(rows), np.nan)
    before, after = _linked(persons.tracks[rows], persons.times_s[rows])
    if len(before):
        place = points[:, part].astype(np.float64) / max(spec.input_size)
        moved = place[after] - place[before]
        moved -= np.median(moved, 1, keepdims=True)
        jumps[after] = (np.hypot(moved[..., 0], moved[..., 1]) > _JUMP).mean(1)
    return jumps


def _linked(tracks: Int64, times_s: Float64) -> tuple[Int64, Int64]:
    """Places of looks at one tracked person that follow each other closely."""
    order = np.lexsort((times_s, tracks))
    before, after = order[:-1], order[1:]
    same = (tracks[before] == tracks[after]) & (tracks[before] >= 0)
    close = np.nan_to_num(times_s[after] - times_s[before], nan=np.inf) <= _LINK_S
    return before[same & close], after[same & close]
