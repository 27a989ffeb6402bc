"""Choosing a driver package, and the errors where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from posekit.errors import DeviceError, InputError, KernelError, MissingExtraError
from posekit_engines.cuda.bindings_driver import failure
from posekit_engines.cuda.device import Graph
from posekit_engines.cuda.open import choose_driver, open_device
from tests.engines.cuda_emulation.emulated import emulated_device


def only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Only these packages can be found."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name in installed else None
    )


@pytest.mark.parametrize(
    ("installed", "driver"),
    [(("pycuda", "cuda"), "pycuda"), (("cuda",), "cuda-bindings"), (("pycuda",), "pycuda")],
)
def test_auto_takes_pycuda_first(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], driver: str
) -> None:
    only(monkeypatch, *installed)
    assert choose_driver("auto") == driver


@pytest.mark.parametrize(
    ("driver", "extra"), [("auto", "gpu"), ("cuda-bindings", "gpu"), ("pycuda", "pycuda")]
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, driver: Any, extra: str
) -> None:
    only(monkeypatch)
    with pytest.raises(MissingExtraError, match=rf"posekit\[{extra}\]"):
        open_device(0, driver)


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(InputError, match="'opencl'; wanted auto, pycuda or cuda-bindings"):
        choose_driver("opencl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (2, DeviceError, "no memory left"),
        (700, KernelError, "failed: oh"),
        (222, KernelError, "older than NVRTC"),
        (101, DeviceError, "failed: oh"),
    ],
)
def test_a_status_becomes_one_sentence(status: int, kind: type[Exception], text: str) -> None:
    error = failure("cuLaunchKernel", status, "oh")
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.tools
def test_uploads_and_downloads_are_checked() -> None:
    device = emulated_device()
    buffer = device.buffer((2, 3), np.float32)
    buffer.upload(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(buffer.download(np.empty((1, 3), np.float32)), 1)
    for wrong in (np.ones((3, 3), np.float32), np.ones((2, 3)), np.ones((3, 2), np.float32).T):
        with pytest.raises(InputError, match=r"wanted float32 \(2, 3\)"):
            buffer.upload(wrong)
    with pytest.raises(InputError, match="download"):
        buffer.download(np.empty((3, 3), np.float32))


@pytest.mark.tools
def test_memory_is_freed_with_its_buffer() -> None:
    device = emulated_device()
    allocated: dict[int, Any] = device.driver._memory  # type: ignore[attr-defined]
    buffer = device.buffer((5,), np.float32)
    assert buffer.address in allocated
    del buffer
    assert not allocated


@pytest.mark.tools
def test_a_graph_that_was_not_recorded_is_refused() -> None:
    device = emulated_device()
    with pytest.raises(KernelError, match="nothing was recorded"):
        Graph(device.driver).replay(object())  # type: ignore[arg-type]


def test_importing_the_interface_loads_no_driver() -> None:
    code = (
        "import sys, posekit_engines.runtime.batch;"
        "sys.exit(bool({'cuda', 'pycuda'} & set(sys.modules)))"
    )
    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], cwd=".", check=False).returncode == 0
    assert time.monotonic() - start < 60
