"""How many crops an export is judged on follows from what they cost."""

import numpy as np
import pytest

from posekit.geometry import Warp
from posekit_engines.crops import LEAST, MOST, Checks
from posekit_engines.strays import ROOM_S, Cost, affordable


def checks(count: int = MOST) -> Checks:
    matrices = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    names = tuple(f"crop {n}" for n in range(count))
    return Checks(np.zeros((count, 2, 2, 3), np.uint8), Warp(matrices), names, "test")


@pytest.mark.parametrize(
    ("source_s", "export_s", "spent_s", "count"),
    [
        (0.01, 0.01, 1, MOST),
        (1.0, 1.0, 10, MOST),  # 16 + 16 + 4 runs of a second, and 10 until now: 46
        (3.0, 1.0, 12, 14),  # 14 * 4 + 4 + 12 = 72, the planned share of 90
        (1.0, 3.0, 12, 12),  # 12 * 4 + 12 + 12 = 72
        (2.6, 2.6, 20, LEAST),
        (60.0, 60.0, 200, LEAST),  # never under 8, whatever it takes
    ],
)
def test_slow_networks_are_judged_on_fewer_crops(
    source_s: float, export_s: float, spent_s: float, count: int
) -> None:
    assert len(affordable(checks(), Cost(source_s, export_s, spent_s))) == count


def test_what_is_planned_stays_within_the_room() -> None:
    """Wherever 8 crops fit at all, the number that is taken does, and one more would not."""
    for source_s, export_s in np.random.default_rng(0).uniform(0.01, 4, (200, 2)):
        cost = Cost(float(source_s), float(export_s), spent_s=5)
        taken = len(affordable(checks(), cost))
        planned = 0.8 * ROOM_S
        assert taken == LEAST or cost.of(taken) <= planned
        assert taken == MOST or cost.of(taken + 1) > planned


def test_a_fixed_batch_costs_whole_batches() -> None:
    assert Cost(1, 1, batch=1).of(9) == 9 + 9 + 4
    assert Cost(1, 1, batch=8).of(9) == 9 + 16 + 8


def test_fewer_crops_than_the_least_are_all_taken() -> None:
    assert len(affordable(checks(3), Cost(0.1, 0.1))) == 3
