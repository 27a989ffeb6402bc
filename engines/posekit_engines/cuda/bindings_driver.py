"""The driver through cuda-bindings, NVIDIA's own package (wheels, no compiler)."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import threading
from collections.abc import Iterator
from typing import Any

from posekit.errors import DeviceError, KernelError, PosekitError
from posekit_engines.cuda.driver import DeviceInfo, Launch

# CUresult of a module, a function or a kernel that ran wrong; all others tell of the device.
KERNEL_FAULTS = frozenset({200, 209, 218, 220, 221, 222, 223, 500, *range(700, 720)})
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute
_CAPTURE_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class BindingsDriver:
    """The primary context of GPU number `index`; see `cuda.Driver`.

    Raises DeviceError: no NVIDIA driver, or no such GPU.
    """

    name = "cuda-bindings"

    def __init__(self, index: int) -> None:
        self._cuda: Any = importlib.import_module("cuda.bindings.driver")
        self._here = threading.local()
        try:
            self._ask("cuInit", 0)
        except RuntimeError as error:  # cuda-bindings found no libcuda
            raise DeviceError(
                f"no NVIDIA driver on this machine ({error}); install one, or use --device cpu"
            ) from error
        count = self._ask("cuDeviceGetCount")
        if not 0 <= index < count:
            raise DeviceError(f"cuda:{index}: this machine has {count} GPU(s), numbered from 0")
        self._device = self._ask("cuDeviceGet", index)
        self._context = self._ask("cuDevicePrimaryCtxRetain", self._device)
        self.info = self._info(index)

    def _info(self, index: int) -> DeviceInfo:
        name = self._ask("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode()
        attribute = self._cuda.CUdevice_attribute
        major, minor = (
            int(self._ask("cuDeviceGetAttribute", attribute(which), self._device))
            for which in (_MAJOR, _MINOR)
        )
        memory = int(self._ask("cuDeviceTotalMem", self._device))
        version = int(self._ask("cuDriverGetVersion"))
        driver = (version // 1000, version % 1000 // 10)
        return DeviceInfo(index, name, (major, minor), memory, driver)

    def allocate(self, size: int) -> int:
        """Bytes on the GPU. Raises DeviceError."""
        return int(self._call("cuMemAlloc", size))

    def release(self, address: int) -> None:
        """Give them back."""
        self._call("cuMemFree", address)

    def allocate_pinned(self, size: int) -> int:
        """Page-locked bytes of the host. Raises DeviceError."""
        return int(self._call("cuMemHostAlloc", size, 0))

    def release_pinned(self, address: int) -> None:
        """Give them back."""
        self._call("cuMemFreeHost", address)

    def upload(self, address: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy from the host."""
        self._call("cuMemcpyHtoDAsync", address, source, size, stream)

    def download(self, target: int, address: int, size: int, *, stream: int) -> None:
        """Queue a copy to the host."""
        self._call("cuMemcpyDtoHAsync", target, address, size, stream)

    def copy(self, target: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy on the GPU."""
        self._call("cuMemcpyDtoDAsync", target, source, size, stream)

    def load(self, image: bytes) -> int:
        """A module of a cubin or PTX. Raises KernelError."""
        return int(self._call("cuModuleLoadData", image))

    def function(self, module: int, name: str) -> int:
        """A kernel by name. Raises KernelError."""
        return int(self._call("cuModuleGetFunction", module, name.encode()))

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        """Queue a kernel. Raises KernelError."""
        argument = ctypes.create_string_buffer(launch.argument, len(launch.argument))
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
        self._call(
            "cuLaunchKernel",
            function,
            *launch.grid,
            *(launch.threads, 1, 1),
            launch.shared_bytes,
            stream,
            ctypes.addressof(arguments),
            0,
        )

    def make_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def release_stream(self, stream: int) -> None:
        """When its work is done."""
        self._call("cuStreamDestroy", stream)

    def finish(self, stream: int) -> None:
        """Wait for the stream. Raises KernelError where a kernel went wrong."""
        self._call("cuStreamSynchronize", stream)

    def make_event(self) -> int:
        """An event with a time."""
        return int(self._call("cuEventCreate", 0))

    def release_event(self, event: int) -> None:
        """At any time."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Mark the stream's end of now."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """What the stream is given from now on waits for the event."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def reach(self, event: int) -> None:
        """Wait for the event. Raises KernelError where a kernel went wrong."""
        self._call("cuEventSynchronize", event)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Our context is current on this thread, and stays so."""
        self._ask("cuCtxSetCurrent", self._context)
        yield

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that were reached."""
        return float(self._call("cuEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues on the stream."""
        mode = self._cuda.CUstreamCaptureMode(_CAPTURE_THREAD)
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """The recorded work, ready to run."""
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def replay(self, graph: int, stream: int) -> None:
        """Queue recorded work."""
        self._call("cuGraphLaunch", graph, stream)

    def release_graph(self, graph: int) -> None:
        """When it has run."""
        self._call("cuGraphExecDestroy", graph)

    def _call(self, function: str, *arguments: Any) -> Any:
        """As `_ask`, with the context made current on this thread first."""
        if not getattr(self._here, "ready", False):
            self._ask("cuCtxSetCurrent", self._context)
            self._here.ready = True
        return self._ask(function, *arguments)

    def _ask(self, function: str, *arguments: Any) -> Any:
        status, *result = getattr(self._cuda, function)(*arguments)
        if int(status):
            _, text = self._cuda.cuGetErrorString(status)
            raise failure(function, int(status), (text or b"no description").decode())
        return result[0] if result else None


def failure(function: str, status: int, text: str) -> PosekitError:
    """The error that a driver call's status stands for."""
    if status == 2:  # CUDA_ERROR_OUT_OF_MEMORY
        return DeviceError(f"the GPU has no memory left ({function}); use smaller batches")
    if status in (209, 222):  # NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION
        return KernelError(
            f"the GPU's driver does not take the compiled kernel ({text}): it is older than NVRTC; "
            "update the driver or install an older nvidia-cuda-nvrtc"
        )
    kind = KernelError if status in KERNEL_FAULTS else DeviceError
    return kind(f"CUDA: {function} failed: {text} ({status})")
