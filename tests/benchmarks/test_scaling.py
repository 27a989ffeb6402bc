"""benchmarks/scaling.py: what it makes of its samples, and that a stopped run goes on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The program, with results in a folder of the test's own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("scaling")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(importlib.import_module("results_file"), "FOLDER", tmp_path)
    return module


def test_memory_slope_is_that_of_the_second_half(scaling: Any) -> None:
    seconds = np.arange(0, 601, 5.0)
    # 100 MB are filled in the first minutes; then 3 MB a minute, and 10 frames a second.
    resident = 300 + np.minimum(seconds, 200) / 2 + 3 * seconds / 60
    rows = np.stack([seconds, 10 * seconds, resident], 1)
    told = scaling.memory_figures(rows, 30.0)
    assert told["slope_mb_a_minute"] == pytest.approx(3)
    assert told["slope_mb_per_1000_frames"] == pytest.approx(5)
    assert told["minutes_run"] == pytest.approx(10)
    assert told["minutes_asked"] == 30
    assert told["resident_mb"]["peak"] == pytest.approx(430)


def test_a_stopped_run_goes_on_where_it_was(scaling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def measured(name: str, minutes: float) -> dict[str, Any]:
        del minutes
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        return {"ms": 1.0}

    monkeypatch.setattr(scaling, "measured", measured)
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--only", "persons"])
    with pytest.raises(KeyboardInterrupt):
        scaling.main()
    assert sorted(scaling.kept()) == ["persons 1", "persons 2"]
    first = done.copy()
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        scaling.main()
    assert not set(done) & set(first)
    assert list(scaling.kept()) == [f"persons {count}" for count in (1, 2, 4, 8)]
