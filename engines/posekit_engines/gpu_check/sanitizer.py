"""NVIDIA's compute-sanitizer on the kernels, where it is installed: memory, races, barriers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from posekit.errors import MissingExtraError
from posekit_engines.cuda.open import Choice, open_device
from posekit_engines.gpu_check.cases import run

PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 86  # exit status of a finding, to distinguish it from a failure of the program
_DEVIATED = 87
_TIMEOUT_S = 300


def sanitize(index: int, driver: Choice) -> dict[str, Any]:
    """Run the brief cases under each tool: {"tools": {name: "clean" or the tool's output}}.

    Each runs in a process of its own. Raises MissingExtraError where the program is absent.
    """
    program = find()
    outputs = {tool: _run(program, tool, index=index, driver=driver) for tool in TOOLS}
    return {"program": program, "tools": outputs}


def find() -> str:
    """The program's path, from PATH or a CUDA toolkit's folder. Raises MissingExtraError."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=str(Path(home) / "bin"))
    if found is None:
        raise MissingExtraError(
            f"{PROGRAM} is not in PATH; it comes with NVIDIA's CUDA toolkit (cuda-sanitizer)"
        )
    return found


def _run(program: str, tool: str, *, index: int, driver: Choice) -> str:
    """ "clean", or the end of the tool's output."""
    code = f"import sys; from {__name__} import main; sys.exit(main({index}, {driver!r}))"
    command = [program, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {_TIMEOUT_S} s"
    if done.returncode == 0:
        return "clean"
    output = (done.stdout + done.stderr).strip()[-2000:]
    meaning = {FOUND: "findings", _DEVIATED: "output deviates from the numpy reference"}
    return f"{meaning.get(done.returncode, f'exit status {done.returncode}')}: {output}"


def main(index: int, driver: Choice) -> int:
    """Run the brief cases on a GPU; returns 0 where all pass, else _DEVIATED."""
    findings = run.examine(open_device(index, driver), run.cases(brief=True))
    return 0 if all(each.passed for each in findings) else _DEVIATED
