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
FOUND = 86  # the exit status that tells a finding from a program that failed by itself
_STRAYED = 87
_SECONDS = 300


def sanitize(index: int, driver: Choice) -> dict[str, Any]:
    """Run the brief cases under each tool: {"tools": {name: "clean" or what was found}}.

    Each runs in a process of its own. Raises MissingExtraError where the program is not there.
    """
    program = find()
    return {"program": program, "tools": {tool: _run(program, tool, index=index, driver=driver) for tool in TOOLS}}  # fmt: skip  # noqa: E501


def find() -> str:
    """The program's path, in PATH or in a CUDA toolkit's usual place. Raises MissingExtraError."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=str(Path(home) / "bin"))
    if found is None:
        raise MissingExtraError(
            f"{PROGRAM} is not in PATH; it comes with NVIDIA's CUDA toolkit (cuda-sanitizer)"
        )
    return found


def _run(program: str, tool: str, *, index: int, driver: Choice) -> str:
    """ "clean", or the end of what the tool said."""
    code = f"import sys; from {__name__} import main; sys.exit(main({index}, {driver!r}))"
    command = [program, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not run to its end: {_SECONDS} s were not enough"
    if done.returncode == 0:
        return "clean"
    said = (done.stdout + done.stderr).strip()[-2000:]
    what = {FOUND: "findings", _STRAYED: "another answer than the twin's"}
    return f"{what.get(done.returncode, f'ended with status {done.returncode}')}: {said}"


def main(index: int, driver: Choice) -> int:
    """The brief cases on a GPU; the exit status says whether all are fine."""
    findings = run.examine(open_device(index, driver), run.cases(brief=True))
    return 0 if all(each.fine for each in findings) else _STRAYED
