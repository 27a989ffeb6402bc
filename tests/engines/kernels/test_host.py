"""The real host code of both drivers on a stand-in libcuda: which calls with which arguments."""

from __future__ import annotations

import ctypes.util
import re
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cuda_emulation import tools
from tests.engines.cuda_emulation.stand_ins import (
    environment,
    require_driver,
    result_of,
    run_python,
    without_libcuda,
)

pytestmark = pytest.mark.tools

DRIVE = tools.HERE / "drive.py"
POINTS = 3 * 17 * 12  # bytes downloaded: 12 per keypoint


def drive(driver: str, *arguments: str, trace: Path) -> dict[str, Any]:
    """The result of drive.py."""
    require_driver(driver)
    variables = environment(POSEKIT_TRACE=str(trace))
    result: dict[str, Any] = result_of(run_python(variables, str(DRIVE), driver, *arguments))
    return result


_DRIVEN = "host code driven"
_RECORDED = [
    pytest.param("cuda-bindings", marks=pytest.mark.verifies("bindings_driver.py", _DRIVEN)),
    pytest.param(
        "pycuda", marks=[pytest.mark.slow, pytest.mark.verifies("pycuda_driver.py", _DRIVEN)]
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
    trace = tmp_path / "trace"
    result = drive(driver, trace=trace)
    assert result["driver"] == driver
    assert result["points"] < 1e-2  # frame px: 1e-3 cells of 4 crop px, 1.8 frame px each
    assert result["crops"] < 0.02  # normalized: 0.4 gray levels and float16's rounding
    assert result["before"] == 0
    assert result["replayed"] == result["points"]
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
    assert calls[start : start + 5] == [*batch, "synchronize stream 1"]
    begin = calls.index("begin capture")
    assert calls[begin : begin + 2] == ["begin capture", "end capture of 4"]
    assert calls[begin + 2 :] == ["record", "replay", *batch, "record", "synchronize stream 1"]


@KERNELS[0]
@pytest.mark.parametrize("driver", _RECORDED)
def test_planted_mistakes_in_the_launch_are_noticed(driver: str, tmp_path: Path) -> None:
    """Refused, ended by a guard page, or wrong output: none goes undetected."""
    result = drive(driver, "planted", trace=tmp_path / "trace")
    assert len(result) == 13, result
    for name, end in result.items():
        off = re.fullmatch(r"off by (\S+)", end)
        assert off is None or not float(off[1]) < 1, f"{name}: {end}"


def test_without_a_driver_the_device_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """cuda-bindings is there, libcuda is not: as on a machine without a GPU."""
    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has an NVIDIA driver")
    result = result_of(run_python(without_libcuda(), str(DRIVE), "cuda-bindings"))
    assert "no NVIDIA driver on this machine" in result["error"]
