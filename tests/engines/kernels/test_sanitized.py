"""The kernels' own source under clang's sanitizers: races, memory, undefined behavior (slow)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from posekit_engines import kernels
from tests.engines.cuda_emulation import tools
from tests.support import needs

pytestmark = [pytest.mark.slow, pytest.mark.tools]

THREADS = ("-O1", "-g", "-w", "-fsanitize=thread", "-DEMULATED_THREADS", "-pthread")
MEMORY = ("-O1", "-g", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
KINDS = {"thread": THREADS, "memory": MEMORY}


def sanitized(kind: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the kernels in `folder`, without address-space randomization, as TSan requires."""
    clang = needs.program("clang++")
    runtime = Path(subprocess.check_output([clang, "-print-runtime-dir"], text=True).strip())
    needs.tool("clang's sanitizers", next(runtime.glob("libclang_rt.tsan*"), None))
    program = tools.build(
        f"sanitized-{kind}", "sanitized.cpp", *KINDS[kind], compiler="clang++", folder=folder
    )
    return subprocess.run(
        [needs.program("setarch"), "-R", str(program)],
        env={**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"},
        capture_output=True,
        text=True,
    )


@pytest.mark.verifies("decode_flip.cu", "emulated")
@pytest.mark.verifies("crop_normalize.cu", "emulated")
@pytest.mark.verifies("fuse_views.cu", "emulated")
@pytest.mark.parametrize("kind", KINDS)
def test_sanitizers_find_nothing(kind: str) -> None:
    done = sanitized(kind, kernels.FOLDER)
    assert done.returncode == 0, done.stderr[:3000]
    assert "Sanitizer: " not in done.stderr  # a finding; ASan also warns of fibers
    assert "runtime error" not in done.stderr
    assert len(done.stdout.splitlines()) == 16


@pytest.mark.parametrize(
    ("kind", "file", "old", "new", "report"),
    [
        ("thread", "decode_flip.cu", "keys[threadIdx.x >> 5] = best;\n    __syncthreads();",
         "keys[threadIdx.x >> 5] = best;", "data race"),
        ("thread", "decode_flip.cu", "rows[cell] = sum;\n    }\n    __syncthreads();",
         "rows[cell] = sum;\n    }", "data race"),
        ("memory", "decode_flip.cu", "per_row * p.height", "per_row * p.height + 1",
         "heap-buffer-overflow"),
        ("memory", "crop_normalize.cu", "(u32)y >= (u32)frame.height", "false",
         "heap-buffer-overflow"),
        ("thread", "fuse_views.cu", "    __syncthreads();\n    const int cell",
         "    const int cell", "data race"),
        ("memory", "fuse_views.cu", "(u32)y >= (u32)p.height", "false", "heap-buffer-overflow"),
        ("memory", "device.cuh", "((u64)address & 15) == 0", "true", "a vector at an odd address"),
    ],
)  # fmt: skip
def test_sanitizers_find_what_is_planted(
    kind: str, file: str, old: str, new: str, report: str, tmp_path: Path
) -> None:
    for each in kernels.FOLDER.glob("*.cu*"):
        shutil.copy(each, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert report in sanitized(kind, tmp_path).stderr
