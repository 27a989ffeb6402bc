"""The program `scaling`: the memory row of its samples, and that a stopped run continues."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.programs import command, copied, environment, run
from tests.support.processes import wait_until

DONE = {"ms_a_frame": 1.0}
MISSING = ("persons 1", "persons 2")


def test_memory_slope_is_that_of_the_second_half(tmp_path: Path) -> None:
    seconds = np.arange(0, 601, 5.0)
    # 100 MB are filled in the first minutes; then 3 MB a minute, and 10 frames a second.
    resident = 300 + np.minimum(seconds, 200) / 2 + 3 * seconds / 60
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps(np.stack([seconds, 10 * seconds, resident], 1).tolist()))
    row = json.loads(run("scaling", "--samples", str(samples)).stdout)
    assert row["slope_mb_a_minute"] == pytest.approx(3)
    assert row["slope_mb_per_1000_frames"] == pytest.approx(5)
    assert row["minutes_run"] == pytest.approx(10)
    assert row["minutes_asked"] == 30
    assert row["resident_mb"]["peak"] == pytest.approx(430)


def test_a_stopped_run_continues_where_it_was(tmp_path: Path) -> None:
    """Rows are saved one by one, and those that are there are not measured again."""
    path = copied(tmp_path) / "benchmarks/results/scaling.json"
    data = json.loads(path.read_text())
    kept = {f"persons {count}": DONE for count in (4, 8, 16, 32)}
    path.write_text(json.dumps({**data, "figures": kept}))

    def figures() -> Any:
        return json.loads(path.read_text())["figures"]

    arguments = command("scaling", "--only", "persons")
    stopped = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: MISSING[0] in figures())
    stopped.send_signal(signal.SIGINT)
    stopped.wait(timeout=120)
    first = figures()
    assert first[MISSING[0]]["ms_a_frame"] > 0
    again = run("scaling", "--only", "persons", root=tmp_path)
    assert again.returncode == 0, again.stderr
    measured = re.findall(r"^(persons \d+) ", again.stdout, re.MULTILINE)
    assert measured == [name for name in MISSING if name not in first]
    assert figures() == first | {name: figures()[name] for name in MISSING} | kept
