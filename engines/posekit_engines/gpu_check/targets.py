"""What posekit set out to reach on a GPU, beside what was measured there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TIMES = {"eager torch": 20.0, "torch.compile": 4.0, "copy + numpy": 100.0}
"""How many times faster than each rival decode_flip shall be, from 8 persons on."""
FROM_PERSONS = 8
ABOVE_FLOOR = 2.0
SHARE = 0.95
AROUND = 0.05
AROUND_NETWORK = "hrnet-w48"

Parts = Mapping[str, Mapping[str, Any]]


def targets(parts: Parts) -> list[dict[str, Any]]:
    """Each target: what, wanted, measured (or why not), reached (None where not measured)."""
    return [
        *_against_rivals(parts),
        _near_floor(parts),
        _around_network(parts),
        _near_engine(parts),
    ]


def _target(
    what: str, wanted: str, *, measured: float | None, reached: bool | None
) -> dict[str, Any]:
    value = "not measured" if measured is None else round(measured, 3)
    return {"what": what, "wanted": wanted, "measured": value, "reached": reached}


def _against_rivals(parts: Parts) -> Iterator[dict[str, Any]]:
    rows = parts["decode"].get("rows", {})
    for rival, times in TIMES.items():
        found = [
            row["ratios"][f"{rival} / posekit in a graph"]
            for persons, row in rows.items()
            if int(persons) >= FROM_PERSONS and f"{rival} / posekit in a graph" in row["ratios"]
        ]
        least = min(found, default=None)
        reached = None if least is None else least >= times
        what = f"decode against {rival}, least of {FROM_PERSONS} persons and more"
        yield _target(what, f">= {times:g}x", measured=least, reached=reached)


def _near_floor(parts: Parts) -> dict[str, Any]:
    """Time over max(launch floor, bytes / the rate of a copy), the worst row."""
    times = parts["times"]
    rate, worst = times.get("copy_bytes_per_s"), None
    if isinstance(rate, float):
        worst = max(
            row["p50_us"] / max(times["floor_us"], 1e6 * row["bytes"] / rate)
            for row in times["rows"].values()
        )
    reached = None if worst is None else worst <= ABOVE_FLOOR
    what = "a kernel's time over max(launch floor, bytes / bandwidth), worst row"
    return _target(what, f"<= {ABOVE_FLOOR:g}", measured=worst, reached=reached)


def _around_network(parts: Parts) -> dict[str, Any]:
    """Both kernels' time over the network's; of HRNet-W48 alone, whose sizes are those timed."""
    whole, kernels = parts["end-to-end"], parts["times"].get("rows", {})
    bare = whole.get("rows", {}).get(str(FROM_PERSONS), {}).get("bare engine")
    both = [kernels.get(f"{name}, {FROM_PERSONS}") for name in ("decode_flip", "crop_normalize")]
    share = None
    if whole.get("architecture") == AROUND_NETWORK and bare and all(both):
        share = sum(row["p50_us"] for row in both if row) / bare["p50_us"]
    reached = None if share is None else share < AROUND
    what = f"both kernels over {AROUND_NETWORK}'s engine at {FROM_PERSONS} persons"
    return _target(what, f"< {AROUND:g}", measured=share, reached=reached)


def _near_engine(parts: Parts) -> dict[str, Any]:
    rows = parts["end-to-end"].get("rows", {}).values()
    name = "share"
    least = min((row[name] for row in rows if name in row), default=None)
    reached = None if least is None else least >= SHARE
    what = "end to end over the bare engine's rate, worst row"
    return _target(what, f">= {SHARE:g}", measured=least, reached=reached)
