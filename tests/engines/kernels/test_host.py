"""The real host code of both drivers, run against a stand-in libcuda: which calls, with what."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.assets import ROOT
from tests.engines.cuda_emulation import tools

pytestmark = pytest.mark.tools

DRIVE = tools.HERE / "drive.py"
POINTS = 3 * 17 * 12  # bytes back: 12 a keypoint


def stand_in() -> Path:
    """The folder of libcuda.so.1, with failing stubs of all that pycuda links and we lack."""
    tools.in_wheels("lib/libnvrtc.so.*", "NVRTC")
    stubs = tools.cached("stubs.cpp", *map(str, pycuda_modules()))
    stubs.write_text("".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in lacking()))
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


def pycuda_modules() -> list[Path]:
    return sorted(tools.wheels().glob("pycuda/_driver*.so"))


def lacking() -> list[str]:
    """Driver functions that pycuda was linked with and libcuda.cpp does not define."""
    text = (tools.HERE / "libcuda.cpp").read_text(encoding="utf-8")
    command = [needs.program("nm"), "-D", "--undefined-only"]
    names = {
        line.split()[-1].split("@")[0]
        for module in pycuda_modules()
        for line in subprocess.check_output([*command, module], text=True).splitlines()
    }
    return sorted(name for name in names if name.startswith("cu") and f" {name}(" not in text)


def drive(driver: str, planted: str = "", *, trace: Path) -> tuple[dict[str, Any], int]:
    """What drive.py answers, and how it ended."""
    paths = [ROOT, ROOT / "engines", tools.wheels()]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(stand_in()),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "POSEKIT_TRACE": str(trace),
        "XDG_CACHE_HOME": str(stand_in()),
    }
    done = subprocess.run(
        [sys.executable, str(DRIVE), driver, *([planted] if planted else [])],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"error": done.stderr[-2000:]}, done.returncode
    return json.loads(done.stdout.splitlines()[-1]), 0


def needs_driver(driver: str) -> None:
    """Skip where the driver's package is not in the toolchain."""
    if driver == "pycuda":
        found = pycuda_modules() or None
        needs.tool("pycuda", found, install="run scripts/toolchain --pycuda (minutes)")


DRIVERS = ["cuda-bindings", pytest.param("pycuda", marks=pytest.mark.slow)]
_DRIVEN = "host code driven"
_RECORDED = [
    pytest.param("cuda-bindings", marks=pytest.mark.verifies("driver_bindings.py", _DRIVEN)),
    pytest.param(
        "pycuda", marks=[pytest.mark.slow, pytest.mark.verifies("driver_pycuda.py", _DRIVEN)]
    ),
]
KERNELS = (
    pytest.mark.verifies("decode_flip.cu", _DRIVEN),
    pytest.mark.verifies("crop_normalize.cu", _DRIVEN),
)


@KERNELS[0]
@KERNELS[1]
@pytest.mark.parametrize("driver", _RECORDED)
def test_a_batch_is_one_crop_one_decode_and_twelve_bytes_a_keypoint(
    driver: str, tmp_path: Path
) -> None:
    needs_driver(driver)
    trace = tmp_path / "trace"
    answer, status = drive(driver, trace=trace)
    assert status == 0, answer
    assert answer["driver"] == driver
    assert answer["points"] < 1e-2  # frame px: 1e-3 cells of 4 crop px, 1.8 frame px each
    assert answer["crops"] < 0.02  # normalised: 0.4 grey levels and float16's rounding
    assert answer["before"] == 0
    assert answer["replayed"] == answer["points"]
    calls = [line for line in trace.read_text().splitlines() if not line.startswith("function")]
    blocks = 64 * 96 // 4 // 128
    shared = 4 * 8 + 4 * (15**2 + 15 * 5 + 2 * 5**2)  # keys, patch, its rows, two squares
    batch = [
        f"upload {120 * 160 * 3}",
        f"launch crop_normalize_rgb_f16 grid {blocks} 3 1 threads 128 shared 0",
        f"launch decode_flip_f16 grid 17 3 1 threads 128 shared {shared}",
        f"download {POINTS}",
    ]
    start = calls.index(batch[0])
    assert calls[start : start + 5] == [*batch, "finish 1"]
    begin = calls.index("begin capture")
    assert calls[begin : begin + 2] == ["begin capture", "end capture of 4"]
    assert calls[begin + 2 :] == ["record", "replay", *batch, "record", "finish 1"]


@KERNELS[0]
@pytest.mark.parametrize("driver", _RECORDED)
def test_planted_mistakes_in_the_launch_are_noticed(driver: str, tmp_path: Path) -> None:
    """Refused, ended by a guard page, or a wrong answer: none passes for right."""
    needs_driver(driver)
    answer, status = drive(driver, "planted", trace=tmp_path / "trace")
    assert status == 0, answer
    assert len(answer) == 13, answer
    for name, end in answer.items():
        off = re.fullmatch(r"off by (\S+)", end)
        assert off is None or not float(off[1]) < 1, f"{name}: {end}"


def test_without_a_driver_the_device_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """cuda-bindings is there, libcuda is not: as on a machine without a GPU."""
    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has an NVIDIA driver")
    paths = [ROOT, ROOT / "engines", tools.wheels()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, str(DRIVE), "cuda-bindings"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "no NVIDIA driver on this machine" in json.loads(done.stdout)["error"]
