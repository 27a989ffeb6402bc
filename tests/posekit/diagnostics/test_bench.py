"""posekit bench: every stage timed, honestly compared."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import posekit
from posekit.diagnostics.bench import STAGES, BenchOptions, bench, ratios
from posekit.diagnostics.bench import _spread as spread
from posekit.diagnostics.bench import _timed as timed
from posekit.errors import InputError, SourceError

QUICK = BenchOptions((1, 2), cell_s=0.01, frames=8, passes=1)


def test_every_stage_is_there_with_what_repeats_it() -> None:
    estimator = posekit.load("movenet-lightning", "cpu", 1, flip=False)
    result = json.loads(json.dumps(bench(estimator, None, QUICK)))
    assert tuple(result["stages_ms"]) == STAGES
    for stage in ("crop", "network", "track", "draw", "decode heatmaps"):
        assert list(result["stages_ms"][stage]) == ["1", "2"]
    for cells in result["stages_ms"].values():
        for cell in cells.values():
            assert cell["runs"] >= QUICK.least
            assert 0 <= cell["min"] <= cell["p50"] <= cell["p95"] <= cell["p99"]
    assert result["throughput"]["frames"] == QUICK.frames
    assert result["machine"]["threads_usable"] >= 1
    assert result["machine"]["versions"]["numpy"] == np.__version__
    assert result["run"]["threads"] == 1
    assert result["peak_memory_mb"] > 50
    slower = copy.deepcopy(result)
    slower["stages_ms"]["network"]["1"]["p50"] *= 2
    assert ratios(slower, result)["network"] == {"1": 2.0, "2": 1.0}
    assert ratios(result, result)["throughput"] == {"any": 1.0}


def test_times_are_those_of_the_work_and_leave_the_warm_up_out() -> None:
    calls: list[int] = []

    def work(n: int) -> None:
        calls.append(n)
        time.sleep(0.03 if n < 2 else 0.002)

    times = timed(work, BenchOptions(warm_up=2, least=5, cell_s=0.3))
    assert calls[:7] == list(range(7))
    assert len(times) == len(calls) - 2 >= 5
    assert 0.002 <= min(times) < 0.03


def test_percentiles_by_hand() -> None:
    cell = spread([n / 1000 for n in range(1, 102)])
    assert (cell["runs"], cell["min"], cell["p50"], cell["p95"]) == (101, 1.0, 51.0, 96.0)
    assert cell["spread"] == pytest.approx(50 / 51, abs=1e-3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="persons"):
        BenchOptions(())
    with pytest.raises(InputError, match="posekit bench"):
        ratios({"stages_ms": {}}, {})
    cell = {"stages_ms": {"crop": {"1": {"p50": 1.0}}}, "throughput": {"frames_per_s": 9.0}}
    for wrong in (0, "9", 10**400, float("nan"), -1, None):
        for old in (
            {**cell, "throughput": {"frames_per_s": wrong}},
            {**cell, "stages_ms": {"crop": {"1": {"p50": wrong or "none"}}}},
        ):
            with pytest.raises(InputError, match="compare: a stored figure: wanted a finite"):
                ratios(cell, old)
    with pytest.raises(SourceError):
        bench(posekit.load("movenet-lightning", "cpu", 1, flip=False), "no-such.mp4", QUICK)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux reports of a process")
def test_peak_memory_is_this_process_s_and_not_its_parent_s() -> None:
    child = "from posekit.diagnostics.bench import peak_memory_mb as mb; print(mb())"
    parent = (
        "import subprocess, sys; held = bytearray(b'x' * (900 << 20)); "
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    assert 20 < float(done.stdout) < 600
