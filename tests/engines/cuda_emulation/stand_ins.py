"""Runs Python on the stand-in libcuda: builds it, sets the environment, reads its trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cuda_emulation import tools
from tests.support import needs
from tests.support.assets import ROOT

DRIVERS = ["cuda-bindings", pytest.param("pycuda", marks=pytest.mark.slow)]
"""Both driver packages, as parameters of a test."""


def require_driver(driver: str) -> None:
    """Skip the test where the driver's package is not in the toolchain."""
    if driver == "pycuda":
        found = _pycuda_modules() or None
        needs.tool("pycuda", found, install="run scripts/toolchain --pycuda (minutes)")


def libcuda_folder() -> Path:
    """The folder of libcuda.so.1, with failing stubs of what pycuda links and libcuda.cpp lacks."""
    tools.in_wheels("lib/libnvrtc.so.*", "NVRTC")
    stubs = tools.cached("stubs.cpp", *map(str, _pycuda_modules()))
    lines = (f'extern "C" int {name}() {{ return 801; }}\n' for name in _undefined_functions())
    stubs.write_text("".join(lines))
    library = tools.build(
        "libcuda.so.1",
        "libcuda.cpp",
        str(stubs),
        "-O1",
        *tools.QUIET,
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
    )
    return library.parent


def _pycuda_modules() -> list[Path]:
    return sorted(tools.wheels().glob("pycuda/_driver*.so"))


def _undefined_functions() -> list[str]:
    """Driver functions that pycuda was linked with and libcuda.cpp does not define."""
    text = (tools.HERE / "libcuda.cpp").read_text(encoding="utf-8")
    command = [needs.program("nm"), "-D", "--undefined-only"]
    names = {
        line.split()[-1].split("@")[0]
        for module in _pycuda_modules()
        for line in subprocess.check_output([*command, module], text=True).splitlines()
    }
    return sorted(name for name in names if name.startswith("cu") and f" {name}(" not in text)


def without_libcuda() -> dict[str, str]:
    """The environment of a process with the toolchain's packages and without a libcuda."""
    paths = [ROOT, ROOT / "engines", tools.wheels()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def environment(*paths: Path, **variables: str) -> dict[str, str]:
    """The environment of a process on the stand-in libcuda; paths: first on PYTHONPATH."""
    every = [*paths, ROOT, ROOT / "engines", tools.wheels()]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libcuda_folder()),
        "PYTHONPATH": os.pathsep.join(map(str, every)),
        "XDG_CACHE_HOME": str(libcuda_folder()),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def run_python(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments in an environment."""
    return subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True
    )


def result_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON in the last line of a script's output; fails where the script failed."""
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_traced(
    script: Path, driver: str, *arguments: str, schedule: str = ""
) -> tuple[Any, list[str]]:
    """A script's result on the stand-in libcuda, and the driver's calls."""
    require_driver(driver)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        variables = environment(POSEKIT_TRACE=str(trace), POSEKIT_SCHEDULE=schedule)
        result = result_of(run_python(variables, str(script), driver, *arguments))
        return result, trace.read_text().splitlines()
