"""Performance targets on a GPU, beside the measured values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MIN_SPEEDUP = {"eager torch": 20.0, "torch.compile": 4.0, "copy + numpy": 100.0}
"""How many times faster than each baseline decode_flip is wanted to be, from 8 persons on."""
FROM_PERSONS = 8
MAX_OVER_FLOOR = 2.0
MIN_ENGINE_SHARE = 0.95
MAX_KERNEL_SHARE = 0.05
SHARE_NETWORK = "hrnet-w48"

Parts = Mapping[str, Mapping[str, Any]]


def targets(parts: Parts) -> list[dict[str, Any]]:
    """Each target: what, wanted, measured, reached (None where not measured)."""
    return [
        *_over_baselines(parts),
        _over_floor(parts),
        _kernel_share(parts),
        _engine_share(parts),
    ]


def _target(
    what: str, wanted: str, *, measured: float | None, reached: bool | None
) -> dict[str, Any]:
    value = "not measured" if measured is None else round(measured, 3)
    return {"what": what, "wanted": wanted, "measured": value, "reached": reached}


def _over_baselines(parts: Parts) -> Iterator[dict[str, Any]]:
    rows = parts["decode"].get("rows", {})
    for baseline, speedup in MIN_SPEEDUP.items():
        found = [
            row["ratios"][f"{baseline} / posekit in a graph"]
            for persons, row in rows.items()
            if int(persons) >= FROM_PERSONS and f"{baseline} / posekit in a graph" in row["ratios"]
        ]
        lowest = min(found, default=None)
        reached = None if lowest is None else lowest >= speedup
        what = f"decode against {baseline}, lowest from {FROM_PERSONS} persons on"
        yield _target(what, f">= {speedup:g}x", measured=lowest, reached=reached)


def _over_floor(parts: Parts) -> dict[str, Any]:
    """Time over max(launch floor, bytes / bandwidth of a copy), the worst row."""
    times = parts["times"]
    rate, worst = times.get("copy_bytes_per_s"), None
    if isinstance(rate, float):
        worst = max(
            row["p50_us"] / max(times["floor_us"], 1e6 * row["bytes"] / rate)
            for row in times["rows"].values()
        )
    reached = None if worst is None else worst <= MAX_OVER_FLOOR
    what = "a kernel's time over max(launch floor, bytes / bandwidth), worst row"
    return _target(what, f"<= {MAX_OVER_FLOOR:g}", measured=worst, reached=reached)


def _kernel_share(parts: Parts) -> dict[str, Any]:
    """Both kernels' time over the network's; only of SHARE_NETWORK, whose sizes are those timed."""
    whole, kernels = parts["end-to-end"], parts["times"].get("rows", {})
    bare = whole.get("rows", {}).get(str(FROM_PERSONS), {}).get("bare engine")
    both = [kernels.get(f"{name}, {FROM_PERSONS}") for name in ("decode_flip", "crop_normalize")]
    share = None
    if whole.get("architecture") == SHARE_NETWORK and bare and all(both):
        share = sum(row["p50_us"] for row in both if row) / bare["p50_us"]
    reached = None if share is None else share < MAX_KERNEL_SHARE
    what = f"both kernels over {SHARE_NETWORK}'s engine at {FROM_PERSONS} persons"
    return _target(what, f"< {MAX_KERNEL_SHARE:g}", measured=share, reached=reached)


def _engine_share(parts: Parts) -> dict[str, Any]:
    rows = parts["end-to-end"].get("rows", {}).values()
    lowest = min((row["share"] for row in rows if "share" in row), default=None)
    reached = None if lowest is None else lowest >= MIN_ENGINE_SHARE
    what = "end to end over the bare engine's rate, worst row"
    return _target(what, f">= {MIN_ENGINE_SHARE:g}", measured=lowest, reached=reached)
