"""The program `precision`: its table."""

from __future__ import annotations

import re

from tests.benchmarks.programs import run


def test_precision_reports_which_rows_were_not_run() -> None:
    """Each network of the plan has a line: its figures, or that there are none."""
    table = run("precision", "--rows")
    assert table.returncode == 0, table.stderr
    for name in (
        "movenet-lightning",
        "movenet-thunder",
        "simple-baseline-r18, 64x96",
        "hrnet-w8, 64x96",
        "hrnet-w18, 64x96",
        "simple-baseline-r50, 192x256",
        "hrnet-w32, 192x256",
        "vitpose-s-classic, 192x256",
    ):
        line = rf"^{name} +(fp32 .* MB|not run)"
        assert re.search(line, table.stdout, re.MULTILINE), name
    assert re.search(r"^VNNI: (yes|no)", table.stdout, re.MULTILINE)
