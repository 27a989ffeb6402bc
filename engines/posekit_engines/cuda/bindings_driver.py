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

# CUresult of a failed module, function or kernel; all others concern the device.
KERNEL_FAULTS = frozenset({200, 209, 218, 220, 221, 222, 223, 500, *range(700, 720)})
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute
_CAPTURE_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class BindingsDriver:
    """The primary context of GPU number `index`; see `cuda.driver.Driver`.

    Raises DeviceError: no NVIDIA driver, or no such GPU.
    """

    name = "cuda-bindings"

    def __init__(self, index: int) -> None:
        self._cuda: Any = importlib.import_module("cuda.bindings.driver")
        self._thread = threading.local()
        try:
            self._call_unbound("cuInit", 0)
        except RuntimeError as error:  # cuda-bindings found no libcuda
            raise DeviceError(
                f"no NVIDIA driver on this machine ({error}); install one, or use --device cpu"
            ) from error
        count = self._call_unbound("cuDeviceGetCount")
        if not 0 <= index < count:
            raise DeviceError(f"cuda:{index}: this machine has {count} GPU(s), numbered from 0")
        self._device = self._call_unbound("cuDeviceGet", index)
        self._context = self._call_unbound("cuDevicePrimaryCtxRetain", self._device)
        self.info = self._info(index)

    def _info(self, index: int) -> DeviceInfo:
        name = self._call_unbound("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode()
        attribute = self._cuda.CUdevice_attribute
        major, minor = (
            int(self._call_unbound("cuDeviceGetAttribute", attribute(which), self._device))
            for which in (_MAJOR, _MINOR)
        )
        memory = int(self._call_unbound("cuDeviceTotalMem", self._device))
        version = int(self._call_unbound("cuDriverGetVersion"))
        driver = (version // 1000, version % 1000 // 10)
        return DeviceInfo(index, name, (major, minor), memory, driver)

    def allocate(self, size: int) -> int:
        """The address of new bytes on the GPU. Raises DeviceError."""
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        """Free memory on the GPU."""
        self._call("cuMemFree", address)

    def allocate_pinned(self, size: int) -> int:
        """The address of new page-locked bytes of the host. Raises DeviceError."""
        return int(self._call("cuMemHostAlloc", size, 0))

    def free_pinned(self, address: int) -> None:
        """Free page-locked memory of the host."""
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

    def load(self, binary: bytes) -> int:
        """Load a cubin or PTX as a module. Raises KernelError."""
        return int(self._call("cuModuleLoadData", binary))

    def function(self, module: int, name: str) -> int:
        """A module's kernel by name. Raises KernelError."""
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

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream whose work is done."""
        self._call("cuStreamDestroy", stream)

    def synchronize_stream(self, stream: int) -> None:
        """Block until the stream's work is done. Raises KernelError where a kernel failed."""
        self._call("cuStreamSynchronize", stream)

    def create_event(self) -> int:
        """An event with timing."""
        return int(self._call("cuEventCreate", 0))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is queued now."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Make later work of the stream wait for the event."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Block until the event is reached. Raises KernelError where a kernel failed."""
        self._call("cuEventSynchronize", event)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make our context current on this thread; it stays current."""
        self._call_unbound("cuCtxSetCurrent", self._context)
        yield

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that were reached."""
        return float(self._call("cuEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        """Start recording what this thread queues on the stream."""
        mode = self._cuda.CUstreamCaptureMode(_CAPTURE_THREAD)
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """The recorded work as an executable graph."""
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def replay(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph that has run."""
        self._call("cuGraphExecDestroy", graph)

    def _call(self, function: str, *arguments: Any) -> Any:
        """`_call_unbound` with our context current on this thread."""
        if not getattr(self._thread, "ready", False):
            self._call_unbound("cuCtxSetCurrent", self._context)
            self._thread.ready = True
        return self._call_unbound(function, *arguments)

    def _call_unbound(self, function: str, *arguments: Any) -> Any:
        status, *result = getattr(self._cuda, function)(*arguments)
        if int(status):
            _, text = self._cuda.cuGetErrorString(status)
            raise failure(function, int(status), (text or b"no description").decode())
        return result[0] if result else None


def failure(function: str, status: int, text: str) -> PosekitError:
    """The error for a failed driver call's status."""
    if status == 2:  # CUDA_ERROR_OUT_OF_MEMORY
        return DeviceError(f"the GPU has no memory left ({function}); use smaller batches")
    if status in (209, 222):  # NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION
        return KernelError(
            f"the GPU's driver cannot load the compiled kernel ({text}): it is older than NVRTC; "
            "update the driver or install an older nvidia-cuda-nvrtc"
        )
    kind = KernelError if status in KERNEL_FAULTS else DeviceError
    return kind(f"CUDA: {function} failed: {text} ({status})")
