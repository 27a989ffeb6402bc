"""Less jitter with little lag: the one-euro filter over the keypoints of tracked persons."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.types import Float32, Int64, Poses

Table = NDArray[np.void]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class SmoothOptions:
    """How much to smooth. Speeds are in body sizes a second, size = square root of the box's area,
    so the same numbers fit small and large persons; `benchmarks/accuracy/smoothing.py` has the
    trade-off.
    """

    min_cutoff_hz: float = 0.8
    """Cutoff of the low-pass on a point that moves as expected; lower means less jitter."""
    beta_hz: float = 11.0
    """Cutoff gained per body size a second of unexpected speed; higher means less lag."""
    speed_cutoff_hz: float = 5.0
    """Cutoff of the low-pass on both speeds, the expected and the unexpected one."""
    trusted: float = 0.6
    """From this score on a point is fully trusted."""
    distrusted: float = 0.1
    """Up to this score a point goes along with its body, and at a twentieth of the cutoff to where
    it is detected; in between the cutoff grows with the score.
    """
    restart_s: float = 0.5
    """The state of a person missing for longer is dropped; it starts anew from the raw points."""

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        if not all(math.isfinite(value) and value >= 0 for value in values.values()):
            raise InputError(f"smoothing: numbers must be finite and not negative, got {values}")
        if self.trusted <= self.distrusted:
            got = f"{self.trusted} and {self.distrusted}"
            raise InputError(f"smoothing: trusted must be above distrusted, got {got}")


class OneEuro:
    """The one-euro filter on each keypoint of each track of one video.

    Call it with each frame's poses in the order of time. It counts in seconds, so uneven and
    skipped frames do not matter; a step back in time starts anew.
    Source: Casiez, Roussel, Vogel, "1€ Filter", CHI 2012. Ours: each point is expected to keep
    its speed, and the filter works on what that misses, so a walk is smoothed like a rest, and
    late only where speed changes; speeds are relative to the body; the score scales the cutoff.
    """

    def __init__(self, options: SmoothOptions | None = None) -> None:
        self.options = SmoothOptions() if options is None else options
        self._tracks: Table = np.zeros(0, _layout(0))

    def __call__(self, poses: Poses, time_s: float) -> Poses:
        """The poses with smoothed points; what came in is kept as `raw_points`.

        Raises InputError where poses have no ids, or the time is not finite.
        """
        if poses.ids is None:
            raise InputError("smoothing: got poses without ids, wanted those of a Tracker")
        if not math.isfinite(time_s):
            raise InputError(f"smoothing: time_s must be a finite number of seconds, got {time_s}")
        fresh = _started(poses, poses.ids, time_s)
        old = self._remembered(fresh, time_s)
        _, known, rows = np.intersect1d(fresh["id"], old["id"], return_indices=True)
        fresh[known] = self._filtered(old[rows], fresh[known], poses.select(known))
        rest = np.delete(old, rows)
        self._tracks = np.concatenate([rest, fresh])
        return dataclasses.replace(poses, points=fresh["points"].copy(), raw_points=poses.points)

    def _remembered(self, fresh: Table, time_s: float) -> Table:
        """The tracks that may go on: updated recently, not in the future, of the same skeleton."""
        if self._tracks.dtype != fresh.dtype:
            return fresh[:0]
        age = time_s - self._tracks["time_s"]
        return self._tracks[(age >= 0) & (age <= self.options.restart_s)]

    def _filtered(self, old: Table, fresh: Table, poses: Poses) -> Table:
        """One step of the filter, row by row."""
        options, new = self.options, fresh.copy()
        step_s = np.maximum(fresh["time_s"] - old["time_s"], 1e-6)[:, None]
        span = options.trusted - options.distrusted
        trust = np.clip((poses.scores - options.distrusted) / span, 0.05, 1).astype(np.float64)
        gain = _gain(step_s, options.speed_cutoff_hz)
        new["count"] = old["count"] + 1
        # The first steps average, so that a new track knows its speed at once.
        quick = np.maximum(gain, 1 / old["count"][:, None])[..., None]
        measured = (fresh["raw"] - old["raw"]) / step_s[..., None]
        new["speed"] = old["speed"] + quick * (_carried(measured, trust) - old["speed"])
        known = np.where(old["count"][:, None, None] > 1, old["speed"], new["speed"])
        expected = old["points"] + known * step_s[..., None]
        missed = fresh["raw"] - expected
        residual = trust[..., None] * missed / step_s[..., None]
        new["residual"] = old["residual"] + gain[..., None] * (residual - old["residual"])
        unexpected = np.linalg.norm(new["residual"], axis=2) / _size(poses)[:, None]
        cutoff = trust * (options.min_cutoff_hz + options.beta_hz * unexpected)
        new["points"] = expected + _gain(step_s, cutoff)[..., None] * missed
        return new


def _layout(count: int) -> np.dtype[np.void]:
    """One row of state a track, for skeletons of `count` keypoints."""
    pairs = [(name, np.float64, (count, 2)) for name in ("points", "raw", "speed", "residual")]
    return np.dtype([("id", np.int64), ("time_s", np.float64), ("count", np.int64), *pairs])


def _started(poses: Poses, ids: Int64, time_s: float) -> Table:
    """State of persons found for the first time: at rest where they are."""
    rows = np.zeros(len(poses), _layout(len(poses.skeleton)))
    rows["id"], rows["time_s"], rows["count"] = ids, time_s, 1
    rows["points"] = rows["raw"] = poses.points
    return rows


def _size(poses: Poses) -> Float32:
    """The persons' sizes, px (N,): square root of the box's area, at least 1."""
    sides = poses.boxes.xyxy[:, 2:] - poses.boxes.xyxy[:, :2]
    size: Float32 = np.maximum(np.sqrt(sides.prod(1)), 1)
    return size


def _carried(measured: Float64, trust: Float64) -> Float64:
    """Speeds (N, K, 2) in which distrusted points have that of their body instead of their own."""
    total = trust.sum(1, keepdims=True)[..., None]
    body = (trust[..., None] * measured).sum(1, keepdims=True) / total
    carried: Float64 = body + trust[..., None] * (measured - body)
    return carried


def _gain(step_s: Float64, cutoff_hz: Float64 | float) -> Float64:
    """How far a first-order low-pass goes in a step, in [0, 1]: 1 - exp(-2 pi f dt)."""
    gain: Float64 = -np.expm1(-2 * np.pi * cutoff_hz * step_s)
    return gain
