"""The driver through pycuda. It has no graphs: those few calls go to libcuda itself."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from posekit.errors import DeviceError, KernelError
from posekit_engines.cuda.bindings_driver import failure
from posekit_engines.cuda.driver import DeviceInfo, Launch

_CAPTURE_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on
_EVENT_DEFAULT = 0
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class PycudaDriver:
    """The primary context of GPU number `index`; see `cuda.Driver`.

    pycuda's objects are kept by their handles, which is what the callers hold.
    Raises DeviceError: no NVIDIA driver, or no such GPU.
    """

    name = "pycuda"

    def __init__(self, index: int) -> None:
        try:
            self._cuda: Any = importlib.import_module("pycuda.driver")
            self._cuda.init()
        except ImportError as error:
            raise DeviceError(
                f"pycuda cannot reach an NVIDIA driver ({error}); install one, or use --device cpu"
            ) from error
        except self._cuda.Error as error:
            raise DeviceError(f"pycuda finds no usable GPU ({error}); use --device cpu") from error
        count = self._cuda.Device.count()
        if not 0 <= index < count:
            raise DeviceError(f"cuda:{index}: this machine has {count} GPU(s), numbered from 0")
        device = self._cuda.Device(index)
        self._context = device.retain_primary_context()
        self._kept: dict[int, Any] = {}
        self._libcuda = ctypes.CDLL("libcuda.so.1")
        major, minor = device.compute_capability()
        version = self._cuda.get_driver_version()
        self.info = DeviceInfo(
            index=index,
            name=device.name(),
            capability=(major, minor),
            memory_bytes=device.total_memory(),
            driver=(version // 1000, version % 1000 // 10),
        )

    def allocate(self, size: int) -> int:
        """Bytes on the GPU. Raises DeviceError."""
        with self._asking("mem_alloc"):
            return self._keep(int, self._cuda.mem_alloc(size))

    def release(self, address: int) -> None:
        """Give them back."""
        with self._asking("free"):
            self._kept.pop(address).free()

    def allocate_pinned(self, size: int) -> int:
        """Page-locked bytes of the host. Raises DeviceError."""
        with self._asking("pagelocked_empty"):
            array = self._cuda.pagelocked_empty(size, np.uint8)
            return self._keep(lambda each: int(each.ctypes.data), array)

    def release_pinned(self, address: int) -> None:
        """Give them back."""
        with self._asking("free"):
            self._kept.pop(address).base.free()

    def upload(self, address: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy from the host."""
        with self._asking("memcpy_htod_async"):
            self._cuda.memcpy_htod_async(address, _memory(source, size), self._stream(stream))

    def download(self, target: int, address: int, size: int, *, stream: int) -> None:
        """Queue a copy to the host."""
        with self._asking("memcpy_dtoh_async"):
            self._cuda.memcpy_dtoh_async(_memory(target, size), address, self._stream(stream))

    def copy(self, target: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy on the GPU."""
        with self._asking("memcpy_dtod_async"):
            self._cuda.memcpy_dtod_async(target, source, size, self._stream(stream))

    def load(self, image: bytes) -> int:
        """A module of a cubin or PTX. Raises KernelError."""
        with self._asking("module_from_buffer", KernelError):
            return self._keep(id, self._cuda.module_from_buffer(image))

    def function(self, module: int, name: str) -> int:
        """A kernel by name. Raises KernelError."""
        with self._asking("get_function", KernelError):
            return self._keep(id, self._kept[module].get_function(name))

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        """Queue a kernel. Raises KernelError."""
        with self._asking("launch", KernelError):
            self._kept[function](
                np.void(launch.argument),
                block=(launch.threads, 1, 1),
                grid=launch.grid,
                shared=launch.shared_bytes,
                stream=self._stream(stream),
            )

    def make_stream(self) -> int:
        """A stream that does not wait for the default one."""
        with self._asking("Stream"):
            return self._keep(_handle, self._cuda.Stream(_NON_BLOCKING))

    def release_stream(self, stream: int) -> None:
        """When its work is done."""
        with self._asking("Stream"):
            self._kept.pop(stream)

    def finish(self, stream: int) -> None:
        """Wait for the stream. Raises KernelError where a kernel went wrong."""
        with self._asking("synchronize", KernelError):
            if stream:
                self._kept[stream].synchronize()
            else:
                self._cuda.Context.synchronize()

    def make_event(self) -> int:
        """An event with a time."""
        with self._asking("Event"):
            return self._keep(id, self._cuda.Event(_EVENT_DEFAULT))

    def release_event(self, event: int) -> None:
        """At any time."""
        with self._asking("Event"):
            self._kept.pop(event)

    def record(self, event: int, stream: int) -> None:
        """Mark the stream's end of now."""
        with self._asking("record"):
            self._kept[event].record(self._stream(stream))

    def wait(self, stream: int, event: int) -> None:
        """What the stream is given from now on waits for the event."""
        with self._asking("wait_for_event"):
            self._kept[stream].wait_for_event(self._kept[event])

    def reach(self, event: int) -> None:
        """Wait for the event. Raises KernelError where a kernel went wrong."""
        with self._asking("synchronize", KernelError):
            self._kept[event].synchronize()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Our context is current on this thread."""
        with self._asking("Context"):
            yield

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that were reached."""
        with self._asking("time_since"):
            return float(self._kept[end].time_since(self._kept[start]))

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues on the stream."""
        self._direct("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD)

    def end_capture(self, stream: int) -> int:
        """The recorded work, ready to run."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._direct("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            self._direct("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, flags)
        finally:
            self._direct("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def replay(self, graph: int, stream: int) -> None:
        """Queue recorded work."""
        self._direct("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def release_graph(self, graph: int) -> None:
        """When it has run."""
        self._direct("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _stream(self, stream: int) -> Any:
        return self._kept[stream] if stream else None

    def _keep(self, handle: Any, what: Any) -> int:
        number = int(handle(what))
        self._kept[number] = what
        return number

    @contextlib.contextmanager
    def _asking(
        self, what: str, kind: type[DeviceError] | type[KernelError] = DeviceError
    ) -> Iterator[None]:
        """Our context is current on this thread; pycuda's errors become ours.

        Pushed and popped each time: pycuda ends the program where a thread ends with one pushed.
        """
        try:
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()
        except self._cuda.MemoryError as error:
            raise failure(what, 2, str(error)) from error
        except self._cuda.Error as error:
            raise kind(f"CUDA: pycuda's {what} failed: {error}") from error

    def _direct(self, function: str, *arguments: Any) -> None:
        with self._asking(function):
            status = getattr(self._libcuda, function)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._libcuda.cuGetErrorString(status, ctypes.byref(text))
            raise failure(function, status, (text.value or b"no description").decode())


def _handle(stream: Any) -> int:
    return int(stream.handle)


def _memory(address: int, size: int) -> Any:
    return (ctypes.c_ubyte * size).from_address(address)
