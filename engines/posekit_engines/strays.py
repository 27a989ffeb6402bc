"""The whole report of an export: every way in which it may stray from the torch network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from torch import nn

from posekit import codecs, geometry
from posekit.errors import ParityError
from posekit.types import Float32, ModelSpec, UInt8
from posekit_engines.crops import LEAST, MOST, Checks
from posekit_engines.options import Budget
from posekit_engines.parity import SURE, Parity, compare, source_maps

T = TypeVar("T")

ROOM_S = 90.0
"""What parity may add to an export; the number of crops follows from it."""
_SHARE = 0.8  # of the room that is planned: what slows down on the way and the page need the rest
TAPPED = 4
"""Crops whose maps are read from inside a file that gives points; of a slow one fewer."""
_CHUNK = 4  # crops at a time: bounds memory
_FLIP_CELLS = 2.0
_TIMED = 3
_PATIENCE_S = 1.0


@dataclass(frozen=True, eq=False)
class Truth:
    """What the torch network in float32 and the numpy codecs say of N crops.

    maps: merged heatmaps (N, K, h, w).  points: (N, K, 2) crop px.  scores: (N, K).
    crop_s: seconds a crop, the least of a few.
    """

    maps: Float32
    points: Float32
    scores: Float32
    crop_s: float

    def __add__(self, more: Truth) -> Truth:
        """These crops and then those of `more`, which are as slow."""
        ends = ((self.maps, more.maps), (self.points, more.points), (self.scores, more.scores))
        maps, points, scores = (np.concatenate(pair) for pair in ends)
        return Truth(maps, points, scores, self.crop_s)


@dataclass(frozen=True, eq=False)
class Given:
    """What the exported file says: points in crop px, scores, seconds a crop; maps of some crops.

    maps: the network's own heatmaps of the crops `tapped`, upright view, or merged ones of all.
    not_finite: numbers in all outputs, and in those maps, that are none.
    """

    points: Float32
    scores: Float32
    crop_s: float
    maps: Float32
    tapped: Sequence[int]
    not_finite: int


@dataclass(frozen=True)
class Cost:
    """What parity takes.  source_s, export_s: seconds a crop.  spent_s: seconds until now.

    batch: how many crops the exported file takes at once, where that is fixed.  done: crops that
    the source has answered by now.  opening_s: seconds to open the file once more, for its maps.
    """

    source_s: float
    export_s: float
    spent_s: float = 0.0
    batch: int = 1
    done: int = 0
    opening_s: float = 0.0

    def of(self, crops: int, taps: int = TAPPED) -> float:
        """Seconds in all for so many crops: both answers, and the maps inside for a few."""
        runs = sum(-(-count // self.batch) for count in (crops, min(taps, crops)))
        left = max(0, crops - self.done)
        ahead = left * self.source_s + runs * self.batch * self.export_s + self.opening_s
        return self.spent_s + ahead


def truth(
    net: nn.Module, crops: UInt8, spec: ModelSpec, *, flip: bool, crop_s: float | None = None
) -> Truth:
    """The source's answer to crops uint8 (N, H, W, 3) RGB, a few at a time.

    crop_s: as measured before. None: now, of a slow network the mean of these crops.
    """
    start = perf_counter()
    parts = [
        source_maps(net, crops[n : n + _CHUNK], spec, flip=flip)
        for n in range(0, len(crops), _CHUNK)
    ]
    spent = (perf_counter() - start) / len(crops)
    maps = np.concatenate(parts)
    points, scores = codecs.decode(maps, spec)
    if crop_s is None and spent > _PATIENCE_S:
        crop_s = spent
    elif crop_s is None:
        crop_s, _ = least_s(lambda: source_maps(net, crops[:1], spec, flip=flip))
    return Truth(maps, points, scores, crop_s)


def least_s(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the quickest of a few runs, of what is slow of the first; and its answer."""
    times: list[float] = []
    while len(times) <= _TIMED and sum(times) < _PATIENCE_S:
        start = perf_counter()
        answer = work()
        times.append(perf_counter() - start)
    return min(times), answer


def affordable(cost: Cost) -> tuple[int, int]:
    """How many crops fit the room, 8 to 16, and of how many to read the maps inside, 4.

    Where 8 do not fit it is 8 with fewer maps, at the least of one.
    """
    room = _SHARE * ROOM_S
    fitting = [count for count in range(LEAST, MOST + 1) if cost.of(count) <= room]
    if fitting:
        return max(fitting), TAPPED
    taps = [count for count in range(1, TAPPED) if cost.of(LEAST, count) <= room]
    return LEAST, max(taps, default=1)


def report(
    given: Given, source: Truth, checks: Checks, *, spec: ModelSpec
) -> tuple[Parity, dict[str, Any]]:
    """The numbers of `Parity`, and with them all others by name, for JSON."""
    parity = compare(given.points, given.scores, (source.points, source.scores), crops=len(checks))
    sure = source.scores > SURE
    shift = np.linalg.norm(given.points - source.points, axis=2)
    frame = _frame_shift(given, source, checks)
    far = np.where(sure, shift, -1)
    order = np.argsort(-far.max(1), kind="stable")
    worst = [_worst(int(n), far, checks, spec=spec) for n in order[:LEAST]]
    difference = np.abs(given.scores - source.scores)
    found = {
        "crops": len(checks),
        "crops_from": checks.where,
        "points": parity.points,
        "sure_above": SURE,
        "crop_px": _spread(shift[sure]),
        "frame_px": _spread(frame[sure]),
        "worst": worst,
        "oks": _oks(given, source, sure, spec=spec),
        "score": {"mean": _round(difference.mean()), "max": _round(difference.max())},
        "flips": _flips(given, source, sure, spec=spec),
        "maps": maps_relative(given, source),
        "not_finite": given.not_finite,
        "time": {
            "source_ms": round(source.crop_s * 1e3, 2),
            "export_ms": round(given.crop_s * 1e3, 2),
            "ratio": round(given.crop_s / max(source.crop_s, 1e-9), 3),
            "note": f"a crop, least of {_TIMED} runs on this machine: noisy",
        },
    }
    return parity, found


def within(found: dict[str, Any], budget: Budget) -> str:
    """Why a report is over its budget, in half a sentence; empty where it is not."""
    if found["not_finite"]:
        return f"gives {found['not_finite']} numbers that are not finite"
    if not found["points"]:
        if found["maps"] <= budget.maps:
            return ""
        return (
            f"gives heatmaps {found['maps']:.2g} of the peak away (the source is sure of no "
            f"keypoint, so maps are compared); wanted at most {budget.maps:g}"
        )
    shift = found["crop_px"]
    if not shift["mean"] <= budget.mean_px:
        return f"strays {shift['mean']:.3f} px on average; wanted at most {budget.mean_px:g}"
    if budget.p99_px is not None and not shift["p99"] <= budget.p99_px:
        return f"strays {shift['p99']:.3f} px at the 99th percentile; wanted {budget.p99_px:g}"
    return ""


def refuse(found: dict[str, Any], budget: Budget, what: str) -> None:
    """Raises ParityError where a report is over its budget."""
    if reason := within(found, budget):
        raise ParityError(
            f"{what}: {reason}, on {found['crops']} check crops against the source network in "
            "torch float32; nothing is written (--force hands it out all the same)",
            float(found["crop_px"]["mean"]),
        )


def maps_relative(given: Given, source: Truth) -> float:
    """Largest difference of a heatmap, as a share of the source's highest peak."""
    wanted = source.maps[list(given.tapped)]
    peak = float(np.abs(wanted).max()) or 1.0
    return _round(np.abs(given.maps - wanted).max() / peak, 8)


def _frame_shift(given: Given, source: Truth, checks: Checks) -> Float32:
    """(N, K), frame px."""
    ends = [checks.warp.to_frame(each) for each in (given.points, source.points)]
    shift: Float32 = np.linalg.norm(ends[0] - ends[1], axis=2)
    return shift


def _spread(shift: Float32) -> dict[str, float]:
    if not shift.size:
        return {"mean": 0.0, "p99": 0.0, "max": 0.0}
    p99 = np.percentile(shift, 99)
    return {"mean": _round(shift.mean()), "p99": _round(p99), "max": _round(shift.max())}


def _worst(n: int, far: Float32, checks: Checks, *, spec: ModelSpec) -> dict[str, Any]:
    """The keypoint of crop n that moved most."""
    k = int(far[n].argmax())
    px = max(0.0, _round(far[n, k]))
    return {"crop": n, "name": checks.names[n], "keypoint": spec.skeleton.keypoints[k], "px": px}


def _oks(
    given: Given, source: Truth, sure: np.ndarray[Any, Any], *, spec: ModelSpec
) -> dict[str, float | None]:
    """Between both, of crops with a sure keypoint; a person's area is half of the unpadded box."""
    width, height = spec.input_size
    areas = np.full(len(sure), 0.5 * width * height / spec.padding**2, np.float32)
    pairs = geometry.oks(
        source.points, given.points, areas, sigmas=spec.skeleton.sigmas, visible=sure
    )
    own = np.diagonal(pairs)[sure.any(1)]
    if not own.size:
        return {"mean": None, "min": None}
    return {"mean": _round(own.mean()), "min": _round(own.min())}


def _flips(
    given: Given, source: Truth, sure: np.ndarray[Any, Any], *, spec: ModelSpec
) -> dict[str, float]:
    """Keypoints that lie on another peak: more than 2 cells away.

    gap: by how much the source's peak stands above the source's own map where the export's point
    lies; largest of all flips. Near 0, two peaks were equal and either may win.
    """
    scale, offset = np.array(spec.map_scale), np.array(spec.map_offset)
    cells = np.linalg.norm((given.points - source.points) / scale, axis=2)
    flipped = np.argwhere((cells > _FLIP_CELLS) & sure)
    gaps = [0.0]
    width, height = spec.heatmap_size
    for n, k in flipped:
        x, y = np.round((given.points[n, k] - offset) / scale).astype(int)
        x, y = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        around = source.maps[n, k, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        gaps.append(float(source.maps[n, k].max() - around.max()))
    share = len(flipped) / max(1, int(sure.sum()))
    return {"count": len(flipped), "share": _round(share), "gap": _round(max(gaps), 8)}


def _round(value: Any, digits: int = 6) -> float:
    return round(float(value), digits)
