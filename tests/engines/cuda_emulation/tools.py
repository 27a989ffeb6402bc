"""Tools of the kernels' tests: compilers, and the wheels that scripts/toolchain installs."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path

from posekit_engines import kernels
from tests.support import needs
from tests.support.assets import ROOT

HERE = Path(__file__).parent
SITE = "lib/python*/site-packages"  # of the toolchain
# Vectors are read through casts, and numpy rounds each product: no aliasing rule, no contraction.
FLAGS = ("-std=c++20", "-fno-strict-aliasing", "-ffp-contract=off", "-mf16c", "-mfma")
QUIET = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


def wheels() -> Path:
    """The folder of the toolchain's Python packages."""
    return needs.in_toolchain(SITE, "the CUDA toolchain")


def in_wheels(pattern: str, tool: str) -> Path:
    """The file of NVIDIA's wheels that matches."""
    return needs.in_toolchain(f"{SITE}/nvidia/*/{pattern}", tool)


def cached(name: str, *parts: str) -> Path:
    """A path, kept between runs, for what is made from `parts` and this folder's sources."""
    sources = sorted([*HERE.glob("*.h"), *HERE.glob("*.cpp"), *kernels.FOLDER.glob("*.cu*")])
    text = "\0".join([*parts, *(each.read_text(encoding="utf-8") for each in sources)])
    folder = ROOT / ".pytest_cache" / "kernels" / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def build(
    name: str,
    source: str,
    *options: str,
    compiler: str = "g++",
    folder: Path = kernels.FOLDER,
) -> Path:
    """Compile one of this folder's sources with the kernels in `folder`; the result is cached."""
    command = [
        needs.program(compiler),
        *FLAGS,
        *options,
        *kernels.definitions(),
        f"-DPOSEKIT_KERNELS={folder}",
        f"-I{HERE}",
        str(HERE / source),
    ]
    output = cached(name, *command) if folder == kernels.FOLDER else folder / name
    if not output.exists():
        partial = output.with_name(f".{output.name}.{os.getpid()}")
        done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
        partial.replace(output)
    return output


@functools.cache
def emulation() -> Path:
    """The kernels as a library for the CPU; POSEKIT_EMULATION names another one (mutants)."""
    if named := os.environ.get("POSEKIT_EMULATION"):
        return Path(named)
    return build("emulation.so", "emulation.cpp", "-O2", *QUIET, "-shared", "-fPIC")
