"""A device that runs on the CPU: the real ops launch the real kernels, compiled for the host."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posekit_engines.cuda.device import Device
from posekit_engines.cuda.driver import DeviceInfo, Launch
from tests.engines.cuda_emulation import tools

GUARD = 256  # bytes on each side of an allocation that must not be written
MARK = 0xA5


class EmulatedDriver:
    """A `cuda.driver.Driver`, synchronous and in order; `seed` shuffles the threads of a block."""

    name = "emulated"
    info = DeviceInfo(0, "this CPU", (8, 0), 1 << 33, (13, 0))

    def __init__(self, library: Path, seed: int = 0) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulated_argument_bytes.restype = ctypes.c_size_t
        self.seed = seed
        self.launches: list[tuple[str, Launch]] = []
        self._names: list[str] = []
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def allocate(self, size: int) -> int:
        memory = np.full(size + 2 * GUARD + 16, MARK, np.uint8)
        address = memory.ctypes.data + GUARD
        address += -address % 16
        self._memory[address] = memory
        start = address - memory.ctypes.data
        memory[start : start + size] = 0xFF  # NaN
        memory.flags.writeable = False
        return address

    def free(self, address: int) -> None:
        self._memory.pop(address)

    def upload(self, address: int, source: int, size: int, *, stream: int) -> None:
        ctypes.memmove(address, source, size)

    def download(self, target: int, address: int, size: int, *, stream: int) -> None:
        ctypes.memmove(target, address, size)

    def synchronize_stream(self, stream: int) -> None:
        pass

    def current(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def load(self, binary: bytes) -> int:
        return 1

    def function(self, module: int, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1

    def argument_bytes(self, name: str) -> int:
        return int(self._library.emulated_argument_bytes(name.encode()))

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        name = self._names[function]
        assert self.argument_bytes(name) == len(launch.argument), name
        self.launches.append((name, launch))
        self._library.emulated_launch(
            name.encode(),
            (ctypes.c_uint * 3)(*launch.grid),
            ctypes.c_uint(launch.threads),
            ctypes.c_size_t(launch.shared_bytes),
            launch.argument,
            ctypes.c_uint(self.seed),
        )
        for address, memory in self._memory.items():
            before = memory[: address - memory.ctypes.data]
            assert (before == MARK).all(), f"{name} wrote before a buffer"
            assert (memory[-GUARD:] == MARK).all(), f"{name} wrote after a buffer"


def emulated_device(seed: int = 0, library: Path | None = None) -> Device:
    """A device whose kernels run on the CPU; skips the test where there is no compiler."""
    driver = EmulatedDriver(library or tools.emulation(), seed)
    return Device(driver, lambda kernel, capability: b"")  # type: ignore[arg-type]
