"""Where a benchmark's figures go: one JSON with the machine, versions and commit beside them."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from posekit.atomic import write_atomic
from posekit.providers import versions

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "av", "torch")


def machine(threads: int) -> dict[str, Any]:
    """Processor, threads used, Python, package versions and commit."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=FOLDER.parent,
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


def save(name: str, command: str, threads: int, figures: Any) -> Path:
    """Write `results/<name>.json` and return its path."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    data = {"command": command, "machine": machine(threads), "figures": figures}
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())
    return path
