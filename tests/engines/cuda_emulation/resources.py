"""Registers and memory of the compiled kernels, read from the cubins by NVIDIA's cuobjdump."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from posekit_engines import kernels
from posekit_engines.cuda.nvrtc import Compiler
from tests.engines.cuda_emulation import tools

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
BUDGET = kernels.FOLDER / "budget.json"
_USAGE = re.compile(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def compiler() -> Compiler:
    """The toolchain's pinned NVRTC."""
    return Compiler(str(tools.in_wheels("lib/libnvrtc.so.*", "NVRTC")))


def cubin(kernel: str, target: str) -> Path:
    """The kernel compiled for an architecture; kept between runs."""
    path = tools.cached(f"{kernel}-{target}.cubin", "cubin")
    if not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(compiler().compile(kernel, target))
        partial.replace(path)
    return path


def dump(option: str, path: Path) -> str:
    """The output of cuobjdump for a cubin."""
    program = tools.in_wheels("bin/cuobjdump", "cuobjdump")
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [program, option, path], env=environment, capture_output=True, text=True, check=True
    ).stdout


def usage(kernel: str, target: str) -> dict[str, dict[str, int]]:
    """By function: registers per thread, bytes of stack, shared and local memory."""
    names = ("registers", "stack", "shared", "local")
    return {
        match[0]: dict(zip(names, map(int, match[1:]), strict=True))
        for match in _USAGE.findall(dump("--dump-resource-usage", cubin(kernel, target)))
    }


def measured() -> dict[str, Any]:
    """The current figures, as in budget.json."""
    functions: dict[str, dict[str, dict[str, int]]] = {}
    for kernel in kernels.FUNCTIONS:
        for target in ARCHITECTURES:
            for name, use in sorted(usage(kernel, target).items()):
                functions.setdefault(name, {})[target] = use
    return {"nvrtc": ".".join(map(str, compiler().version)), "functions": functions}


def write_budget() -> None:
    """Make the current figures the budget."""
    lines = json.dumps(measured(), indent=1, sort_keys=True)
    short = re.sub(
        r"\{\s+(\"local\"[^}]*?)\s+\}", lambda m: "{" + " ".join(m[1].split()) + "}", lines
    )
    BUDGET.write_text(short + "\n", encoding="utf-8")
