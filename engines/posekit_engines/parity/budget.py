"""How many crops a time budget allows, and which deviations a parity budget allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posekit.errors import ParityError
from posekit_engines.options import Budget
from posekit_engines.parity.crops import LEAST, MOST

ROOM_S = 90.0
"""What parity may add to an export; the number of crops follows from it."""
_SHARE = 0.8  # of the room that is planned: what slows down on the way and the page need the rest
TAPPED = 4
"""Crops whose maps are read from inside a file that gives points; of a slow one fewer."""


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


def crops_within_time(cost: Cost) -> tuple[int, int]:
    """How many crops fit the room, 8 to 16, and of how many to read the maps inside, 4.

    Where 8 do not fit it is 8 with fewer maps, at the least of one.
    """
    room = _SHARE * ROOM_S
    fitting = [count for count in range(LEAST, MOST + 1) if cost.of(count) <= room]
    if fitting:
        return max(fitting), TAPPED
    taps = [count for count in range(1, TAPPED) if cost.of(LEAST, count) <= room]
    return LEAST, max(taps, default=1)


def violation(found: dict[str, Any], budget: Budget) -> str:
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


def raise_over_budget(found: dict[str, Any], budget: Budget, what: str) -> None:
    """Raises ParityError where a report is over its budget."""
    if reason := violation(found, budget):
        raise ParityError(
            f"{what}: {reason}, on {found['crops']} check crops against the source network in "
            "torch float32; nothing is written (--force hands it out all the same)",
            float(found["crop_px"]["mean"]),
        )
