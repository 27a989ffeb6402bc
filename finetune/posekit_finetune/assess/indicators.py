"""Indicators of a network's quality that need no labels, on persons it was not trained on.

Each person is predicted in the plain view and in five probe views (mirrored, rotated, smaller,
shifted, and one that no recipe trains on: sheared, with another gamma, JPEG compressed). Points of
a view are warped back to the plain crop. Every indicator is stored per person, so two networks can
be compared on the same persons with an interval. Distances are shares of the crop's longer side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError
from posekit.types import Float32, Int64, ModelSpec, Skeleton
from posekit_finetune.assess import probe_views
from posekit_finetune.assess.predict import Predict
from posekit_finetune.assess.probe_views import PROBE_VIEWS, UNTRAINED, ProbeMaps
from posekit_finetune.data.persons import Persons
from posekit_finetune.train.teacher import PseudoLabels

Bools = NDArray[np.bool_]
Float64 = NDArray[np.float64]

NEAR = 0.05
"""Two predictions this close agree: 9.6 px of 192; PCK@0.2 of a torso half as long as the crop."""

MAX_DISTANCE = 4 * NEAR
"""Distances are clipped here: how far off a wrong prediction lies is random."""

FAINT_PEAK = 0.1
"""A lower peak is no detection. Of MoveNet's, 38 % of those under 0.2 are right (LSPET)."""

BODY_SIGMA = 0.05
"""Keypoints with a larger OKS sigma belong to the body; the face is smaller than NEAR."""

_RARE = 0.02
"""Share of the source's own bones that count as implausibly long or short."""

_LINK_S = 0.5
"""Two predictions of a tracked person further apart in time may truly differ."""

_JUMP = 0.25
"""A joint that moves this share of the crop relative to the body between two frames jumps."""


@dataclass(frozen=True)
class Measure:
    """An indicator.  better: 1 where larger is better, -1 where smaller, 0 neither."""

    name: str
    about: str
    better: Literal[-1, 0, 1]


MEASURES = (
    Measure("response", "mean peak height", 0),
    Measure("faint", f"share of maps with a peak below {FAINT_PEAK}", -1),
    Measure("flip", "body joints that stay in place under mirroring", 1),
    Measure("turn", "body joints that stay in place under rotation by 30 degrees", 1),
    Measure("zoom", "body joints that stay in place with the person a fifth smaller", 1),
    Measure("move", "body joints that stay in place under a shift by a few px", 1),
    Measure(
        UNTRAINED,
        "body joints that stay in place under shear, another gamma and JPEG (never trained)",
        1,
    ),
    Measure("away", "mean clipped distance between the views' predictions, share of the crop", -1),
    Measure("teacher", "body joints that agree with the frozen teacher", 1),
    Measure("teacher_away", "mean clipped distance from the teacher, share of the crop", -1),
    Measure("turned", "body joints that agree with the frozen teacher's rotated views alone", 1),
    Measure("source", "agreement with the source where it is confident and consistent", 1),
    Measure("source_away", "mean clipped distance from the source there, share of the crop", -1),
    Measure("swaps", "left/right pairs that change places between views", -1),
    Measure("crossed", "left/right pairs exchanged relative to the source's confident ones", -1),
    Measure("bones", "bones longer or shorter than nearly all of the source's", -1),
    Measure("asymmetry", "difference of left and right bones, |log ratio|, clipped", -1),
    Measure("jumps", "joints of tracked persons that jump between frames", -1),
)
NAMES = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True, eq=False)
class Indicators:
    """Indicators of a network on n persons.

    rows, groups: int (n,), which persons, and their groups for the bootstrap.  seed: of the views.
    values: float64 (n, M), a column for each of MEASURES, NaN where undefined.
    points, scores: (n, K, 2) crop px and (n, K), of the plain view.
    histogram: (n, 5), share of heatmap values in fifths of [0, 1].  cells: (n, K), of the peaks.
    confident: bool (n, K), predictions with a high score, equal in all views.
    drift: (n, K, 2), offset from the source's confident points, share of the crop, NaN elsewhere.
    bone_limits: (B, 2), range of the source's bones.  side: the crop's longer one, px.
    """

    rows: Int64
    groups: Int64
    seed: int
    values: Float64
    points: Float32
    scores: Float32
    histogram: Float64
    cells: Int64
    confident: Bools
    drift: Float64
    bone_limits: Float64
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
        """One measure, averaged over the persons for whom it is defined; NaN without any."""
        column = self.column(name)
        defined = column[~np.isnan(column)]
        return float(defined.mean()) if len(defined) else float("nan")

    @property
    def consistency(self) -> float:
        """Share of the body's joints that stay in place, averaged over the probe views."""
        return float(np.mean([self.mean(view) for view in PROBE_VIEWS]))

    @property
    def distinct(self) -> float:
        """Mean number of different peak cells of a keypoint, as a share of the persons."""
        counts = [len(np.unique(self.cells[:, k])) for k in range(self.cells.shape[1])]
        return float(np.mean(counts)) / max(len(self), 1)

    @property
    def bias(self) -> float:
        """Common shift of the body's keypoints from the source's, share of the crop."""
        drift = self.drift[:, body_keypoints(self.skeleton)]
        defined = [k[~np.isnan(k[:, 0])] for k in drift.transpose(1, 0, 2)]
        lengths = [np.hypot(*np.median(each, 0)) for each in defined if len(each)]
        return float(np.mean(lengths)) if lengths else float("nan")

    def summary(self) -> dict[str, float]:
        """Means by name, for logs and tables."""
        bins = {f"bin_{n}": float(share) for n, share in enumerate(self.histogram.mean(0))}
        means = {name: self.mean(name) for name in NAMES}
        return {**means, "distinct": self.distinct, "bias": self.bias, **bins}


def measure(
    predict: Predict,
    persons: Persons,
    index: ArrayLike,
    *,
    teacher: PseudoLabels | None = None,
    source: Indicators | None = None,
    seed: int = 0,
) -> Indicators:
    """Indicators of the network `predict` on the persons at `index`.

    teacher: pseudo-labels of all `persons`.  source: indicators of the network before training, on
    the same persons; None where this is that network.
    Raises InputError.
    """
    rows = _rows(persons, index, source, seed=seed)
    probe = probe_views.probe_maps(predict, persons, rows, seed=seed)
    spec, side = persons.spec, float(max(persons.spec.input_size))
    confident = _confident(probe, spec, side)
    reference, trusted = probe.points, confident
    if source is not None:
        reference, trusted = source.points, source.confident
    limits = _bone_limits(probe.points, spec.skeleton) if source is None else source.bone_limits
    columns = {
        **_strength(probe),
        **_consistency(probe, spec, side),
        **_teacher(probe, teacher, rows, spec=spec),
        **_source(probe.points, reference, trusted, spec=spec),
        **_shape(probe.points, limits, spec.skeleton),
        "jumps": _jumps(probe.points, persons, rows),
    }
    return Indicators(
        rows=rows,
        groups=persons.groups[rows],
        seed=seed,
        values=np.stack([columns[name] for name in NAMES], 1),
        points=probe.points,
        scores=probe.scores,
        histogram=probe.histogram,
        cells=probe.cells,
        confident=confident,
        drift=np.where(trusted[..., None], (probe.points - reference) / side, np.nan),
        bone_limits=limits,
        skeleton=spec.skeleton,
        side=side,
    )


def _rows(persons: Persons, index: ArrayLike, source: Indicators | None, *, seed: int) -> Int64:
    """Rows at `index`, checked against those of the source. Raises InputError."""
    rows = np.arange(len(persons))
    rows = rows[np.asarray(index) if np.size(index) else []]
    if not len(rows):
        raise InputError("indicators: wanted at least one held-out person, got none")
    if source is not None and (not np.array_equal(source.rows, rows) or source.seed != seed):
        raise InputError("indicators: the source was measured on other persons or other views")
    return rows


@functools.lru_cache(16)
def body_keypoints(skeleton: Skeleton) -> Int64:
    """Indices of the body's keypoints; of all keypoints where the sigmas select fewer than four."""
    large = np.flatnonzero(np.array(skeleton.sigmas) >= BODY_SIGMA)
    return large if len(large) >= 4 else np.arange(len(skeleton))


@functools.lru_cache(16)
def body_pairs(skeleton: Skeleton) -> Int64:
    """(P, 2) indices of the body's mirror pairs."""
    part = set(body_keypoints(skeleton).tolist())
    found = [(k, m) for k, m in enumerate(skeleton.mirror) if k < m and k in part]
    return np.array(found, np.int64).reshape(-1, 2)


@functools.lru_cache(16)
def _bones(skeleton: Skeleton) -> tuple[Int64, Int64]:
    """(B, 2) the body's bones, and (P, 2) pairs of bones that mirror each other."""
    part = set(body_keypoints(skeleton).tolist())
    bones = [tuple(sorted(bone)) for bone in skeleton.bones if set(bone) <= part]
    mirrored = [tuple(sorted(skeleton.mirror[end] for end in bone)) for bone in bones]
    pairs = [(b, bones.index(m)) for b, m in enumerate(mirrored) if m in bones]
    pairs = [(a, b) for a, b in pairs if a < b]
    return np.array(bones, np.int64).reshape(-1, 2), np.array(pairs, np.int64).reshape(-1, 2)


def clipped_distance(a: NDArray[np.floating], b: NDArray[np.floating], side: float) -> Float64:
    """Distances of points (..., 2), share of `side`, clipped at MAX_DISTANCE; NaN stays NaN."""
    distance = np.hypot(*np.moveaxis(a.astype(np.float64) - b, -1, 0)) / side
    clipped: Float64 = np.minimum(distance, MAX_DISTANCE)
    return clipped


def _mean(values: NDArray[np.floating] | Bools, defined: Bools) -> Float64:
    """Mean of the defined values over all but the first axis, (n,); NaN without any."""
    axes = tuple(range(1, values.ndim))
    count = defined.sum(axes)
    total = np.where(defined, values, 0).sum(axes, dtype=np.float64)
    out = np.full(len(values), np.nan)
    return np.asarray(np.divide(total, count, out=out, where=count > 0), np.float64)


def _strength(probe: ProbeMaps) -> dict[str, Float64]:
    response = probe.scores.mean(1, dtype=np.float64)
    return {"response": response, "faint": (probe.scores < FAINT_PEAK).mean(1)}


def _view_distance(probe: ProbeMaps, part: Int64, side: float) -> Float64:
    """Distance (n, V, K') of each view's prediction from the plain one; NaN where not visible."""
    plain = probe.points[:, None, part]
    distance = clipped_distance(probe.view_points[:, :, part], plain, side)
    return np.where(probe.visible[:, :, part], distance, np.nan)


def _confident(probe: ProbeMaps, spec: ModelSpec, side: float) -> Bools:
    """Score above the median of the body's joints, and in agreement in every view that shows it."""
    distance = _view_distance(probe, np.arange(len(spec.skeleton)), side)
    stable = (np.isnan(distance) | (distance < NEAR)).all(1)
    median = np.median(probe.scores[:, body_keypoints(spec.skeleton)])
    return np.asarray(stable & (probe.scores >= median))


def _consistency(probe: ProbeMaps, spec: ModelSpec, side: float) -> dict[str, Float64]:
    distance = _view_distance(probe, body_keypoints(spec.skeleton), side)
    defined = ~np.isnan(distance)
    near = distance < NEAR
    columns = {name: _mean(near[:, v], defined[:, v]) for v, name in enumerate(PROBE_VIEWS)}
    columns["away"] = _mean(distance, defined)
    ends = body_pairs(spec.skeleton)
    plain = np.repeat(probe.points[:, None], len(PROBE_VIEWS), 1)
    crossed, apart = _crossed(plain, probe.view_points, ends, side=side)
    apart &= probe.visible[:, :, ends].all(3)
    columns["swaps"] = _mean(crossed, apart)
    return columns


def _crossed(a: Float32, b: Float32, ends: Int64, *, side: float) -> tuple[Bools, Bools]:
    """Which left/right pairs of `b` are exchanged relative to `a`, (..., P).

    Also which are far enough apart in `a` to decide it.
    """
    left, right = ends.T
    straight = _lengths(a, b, of_a=left, of_b=left) + _lengths(a, b, of_a=right, of_b=right)
    cross = _lengths(a, b, of_a=left, of_b=right) + _lengths(a, b, of_a=right, of_b=left)
    apart = _lengths(a, a, of_a=left, of_b=right) > NEAR * side
    return np.asarray(cross < 0.5 * straight), np.asarray(apart)


def _lengths(a: Float32, b: Float32, *, of_a: Int64, of_b: Int64) -> Float64:
    """Distances in px, not clipped."""
    offset = a[..., of_a, :].astype(np.float64) - b[..., of_b, :]
    return np.asarray(np.hypot(offset[..., 0], offset[..., 1]), np.float64)


def _teacher(
    probe: ProbeMaps, teacher: PseudoLabels | None, rows: Int64, *, spec: ModelSpec
) -> dict[str, Float64]:
    points = None if teacher is None else teacher.points[rows]
    rotated = None if teacher is None or teacher.rotated is None else teacher.rotated[rows]
    near, distance = _agreement(probe, points, spec)
    return {
        "teacher": near,
        "teacher_away": distance,
        "turned": _agreement(probe, rotated, spec)[0],
    }


def _agreement(
    probe: ProbeMaps, points: Float32 | None, spec: ModelSpec
) -> tuple[Float64, Float64]:
    """Of each person, the share of body joints near `points`, and their mean distance."""
    if points is None:
        undefined = np.full(len(probe.points), np.nan)
        return undefined, undefined
    part = body_keypoints(spec.skeleton)
    distance = clipped_distance(probe.points[:, part], points[:, part], float(max(spec.input_size)))
    defined = ~np.isnan(distance)  # a teacher of another skeleton does not have all keypoints
    return _mean(distance < NEAR, defined), _mean(distance, defined)


def _source(
    points: Float32, reference: Float32, trusted: Bools, *, spec: ModelSpec
) -> dict[str, Float64]:
    """trusted: (n, K), predictions of the reference that are confident and consistent."""
    part, side = body_keypoints(spec.skeleton), float(max(spec.input_size))
    distance = clipped_distance(points[:, part], reference[:, part], side)
    ends = body_pairs(spec.skeleton)
    crossed, apart = _crossed(reference, points, ends, side=side)
    defined = trusted[:, part]
    return {
        "source": _mean(distance < NEAR, defined),
        "source_away": _mean(distance, defined),
        "crossed": _mean(crossed, apart & trusted[:, ends].all(2)),
    }


def _relative_bones(points: Float32, skeleton: Skeleton) -> Float64:
    """Lengths of the body's bones (n, B), relative to the person's mean bone."""
    bones = _bones(skeleton)[0]
    lengths = _lengths(points, points, of_a=bones[:, 0], of_b=bones[:, 1])
    mean = lengths.mean(1, keepdims=True) if lengths.size else lengths
    out = np.zeros_like(lengths)
    return np.asarray(np.divide(lengths, mean, out=out, where=mean > 0), np.float64)


def _bone_limits(points: Float32, skeleton: Skeleton) -> Float64:
    lengths = _relative_bones(points, skeleton)
    if not lengths.size:
        return np.zeros((0, 2))
    return np.asarray(np.quantile(lengths, [_RARE / 2, 1 - _RARE / 2], axis=0).T, np.float64)


def _shape(points: Float32, limits: Float64, skeleton: Skeleton) -> dict[str, Float64]:
    lengths, pairs = _relative_bones(points, skeleton), _bones(skeleton)[1]
    outside = (lengths < limits[:, 0]) | (lengths > limits[:, 1])
    left, right = (lengths[:, pairs[:, side]] + 1e-3 for side in (0, 1))
    ratio = np.minimum(np.abs(np.log(left / right)), np.log(4.0))
    return {
        "bones": _mean(outside, np.ones_like(outside)),
        "asymmetry": _mean(ratio, np.ones(ratio.shape, np.bool_)),
    }


def _jumps(points: Float32, persons: Persons, rows: Int64) -> Float64:
    """Share of body joints that jump since the track's previous frame; NaN without one."""
    part, spec = body_keypoints(persons.spec.skeleton), persons.spec
    jumps = np.full(len(rows), np.nan)
    before, after = _consecutive(persons.tracks[rows], persons.times_s[rows])
    if len(before):
        relative = points[:, part].astype(np.float64) / max(spec.input_size)
        moved = relative[after] - relative[before]
        moved -= np.median(moved, 1, keepdims=True)
        jumps[after] = (np.hypot(moved[..., 0], moved[..., 1]) > _JUMP).mean(1)
    return jumps


def _consecutive(tracks: Int64, times_s: Float64) -> tuple[Int64, Int64]:
    """Indices of consecutive frames of one track, at most _LINK_S apart."""
    order = np.lexsort((times_s, tracks))
    before, after = order[:-1], order[1:]
    same = (tracks[before] == tracks[after]) & (tracks[before] >= 0)
    close = np.nan_to_num(times_s[after] - times_s[before], nan=np.inf) <= _LINK_S
    return before[same & close], after[same & close]
