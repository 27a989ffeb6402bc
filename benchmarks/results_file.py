"""Files of results: one JSON a program, with the command, machine, versions and commit beside."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent / "results"
WORK = Path(__file__).resolve().parent / "work"
"""Data that a program can make again."""
ASSETS = ROOT.parent / "shared" / "assets"
"""Images and videos with labels; every program that needs them takes another folder as well."""
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "av", "torch")
_FORMER_COMMAND = re.compile(r"python benchmarks/(\w+)\.py")
_RENAMED = {"end_to_end_rivals": "end_to_end_baselines"}


def command(program: str, *arguments: str) -> str:
    """What runs a program today."""
    return " ".join(["python -m benchmarks", program, *arguments])


def todays(recorded: str) -> str:
    """A recorded command as it is given today: files measured before the folders name a script."""
    return _FORMER_COMMAND.sub(
        lambda found: command(_RENAMED.get(found[1], found[1])),
        recorded,
    )


def load(name: str) -> dict[str, Any] | None:
    """`results/<name>.json` with today's command in it, or None where it was not run."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {**data, "command": todays(data["command"])}


def figures_of(name: str) -> dict[str, Any]:
    """The figures of `results/<name>.json`, or none."""
    data = load(name)
    return {} if data is None else dict(data["figures"])


def machine(threads: int) -> dict[str, Any]:
    """Processor, threads used, Python, package versions and commit."""
    from posekit.inference.providers import versions

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "cpu": cpu,
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "commit": git.stdout.strip(),
    }


def save(name: str, run_as: str, threads: int, figures: Any) -> Path:
    """Write `results/<name>.json` and return its path.  run_as: the command that made it."""
    from posekit.atomic import write_atomic

    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    data = {"command": run_as, "machine": machine(threads), "figures": figures}
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())
    return path


def one_thread() -> dict[str, str]:
    """This process's environment with one thread for every numeric library."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
