"""README says what benchmarks/results say."""

import subprocess
import sys

from tests.assets import ROOT


def test_readme_quotes_the_committed_results() -> None:
    run = subprocess.run(
        [sys.executable, "benchmarks/readme.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
