"""How many crops the time budget allows, and which deviations the parity budget allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posekit.errors import ParityError
from posekit_engines.options import Budget
from posekit_engines.parity.crops import MAX_CROPS, MIN_CROPS

TIME_BUDGET_S = 90.0
"""What parity may add to an export; the number of crops follows from it."""
_SHARE = 0.8  # of the time budget is planned: the HTML page and slower crops need the rest
MAP_CROPS = 4
"""Crops whose maps are read from inside a file that gives points; fewer for a slow one."""


@dataclass(frozen=True)
class Cost:
    """Times of a parity run.

    source_s, export_s: seconds a crop.  spent_s: seconds until now.
    batch: crops in one run of the exported file, where that is fixed.  done: crops that the source
    has computed by now.  opening_s: seconds to open the file again, for its maps.
    """

    source_s: float
    export_s: float
    spent_s: float = 0.0
    batch: int = 1
    done: int = 0
    opening_s: float = 0.0

    def of(self, crops: int, map_crops: int = MAP_CROPS) -> float:
        """Total seconds for so many crops, and for the inner maps of `map_crops` of them."""
        runs = sum(-(-count // self.batch) for count in (crops, min(map_crops, crops)))
        left = max(0, crops - self.done)
        ahead = left * self.source_s + runs * self.batch * self.export_s + self.opening_s
        return self.spent_s + ahead


def crops_within_time(cost: Cost) -> tuple[int, int]:
    """How many crops fit the time budget, 8 to 16, and of how many to read the inner maps, 4.

    Where 8 do not fit: 8, with the maps of fewer, at least of one.
    """
    limit = _SHARE * TIME_BUDGET_S
    counts = [count for count in range(MIN_CROPS, MAX_CROPS + 1) if cost.of(count) <= limit]
    if counts:
        return max(counts), MAP_CROPS
    fewer = [count for count in range(1, MAP_CROPS) if cost.of(MIN_CROPS, count) <= limit]
    return MIN_CROPS, max(fewer, default=1)


def violation(report: Mapping[str, Any], budget: Budget) -> str:
    """How a report exceeds its budget, as part of a sentence; empty where it does not."""
    if report["not_finite"]:
        return f"gives {report['not_finite']} values that are NaN or infinite"
    if not report["points"]:
        if report["maps"] <= budget.maps:
            return ""
        return (
            f"gives heatmaps that deviate by {report['maps']:.2g} of the peak (the source has no "
            f"high-confidence keypoint, so maps are compared); wanted at most {budget.maps:g}"
        )
    moved = report["crop_px"]
    if not moved["mean"] <= budget.mean_px:
        return f"deviates {moved['mean']:.3f} px on average; wanted at most {budget.mean_px:g}"
    if budget.p99_px is not None and not moved["p99"] <= budget.p99_px:
        return f"deviates {moved['p99']:.3f} px at the 99th percentile; wanted {budget.p99_px:g}"
    return ""


def raise_over_budget(report: Mapping[str, Any], budget: Budget, what: str) -> None:
    """Raises ParityError where a report exceeds its budget."""
    if reason := violation(report, budget):
        raise ParityError(
            f"{what}: {reason}, on {report['crops']} check crops against the source network in "
            "torch float32; nothing is written (--force writes it anyway)",
            float(report["crop_px"]["mean"]),
        )
