"""The driver through pycuda. It has no CUDA graphs: those few calls go to libcuda directly."""

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
    """The primary context of GPU number `index`; see `cuda.driver.Driver`.

    Callers hold handles; the pycuda object of each is in `_objects`.
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
        self._objects: dict[int, Any] = {}
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
        """The address of new bytes on the GPU. Raises DeviceError."""
        with self._calling("mem_alloc"):
            return self._register(int, self._cuda.mem_alloc(size))

    def free(self, address: int) -> None:
        """Free memory on the GPU."""
        with self._calling("free"):
            self._objects.pop(address).free()

    def allocate_pinned(self, size: int) -> int:
        """The address of new page-locked bytes of the host. Raises DeviceError."""
        with self._calling("pagelocked_empty"):
            array = self._cuda.pagelocked_empty(size, np.uint8)
            return self._register(lambda each: int(each.ctypes.data), array)

    def free_pinned(self, address: int) -> None:
        """Free page-locked memory of the host."""
        with self._calling("free"):
            self._objects.pop(address).base.free()

    def upload(self, address: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy from the host."""
        with self._calling("memcpy_htod_async"):
            self._cuda.memcpy_htod_async(address, _memory(source, size), self._stream(stream))

    def download(self, target: int, address: int, size: int, *, stream: int) -> None:
        """Queue a copy to the host."""
        with self._calling("memcpy_dtoh_async"):
            self._cuda.memcpy_dtoh_async(_memory(target, size), address, self._stream(stream))

    def copy(self, target: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy on the GPU."""
        with self._calling("memcpy_dtod_async"):
            self._cuda.memcpy_dtod_async(target, source, size, self._stream(stream))

    def load(self, binary: bytes) -> int:
        """Load a cubin or PTX as a module. Raises KernelError."""
        with self._calling("module_from_buffer", KernelError):
            return self._register(id, self._cuda.module_from_buffer(binary))

    def function(self, module: int, name: str) -> int:
        """A module's kernel by name. Raises KernelError."""
        with self._calling("get_function", KernelError):
            return self._register(id, self._objects[module].get_function(name))

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        """Queue a kernel. Raises KernelError."""
        with self._calling("launch", KernelError):
            self._objects[function](
                np.void(launch.argument),
                block=(launch.threads, 1, 1),
                grid=launch.grid,
                shared=launch.shared_bytes,
                stream=self._stream(stream),
            )

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        with self._calling("Stream"):
            return self._register(_handle, self._cuda.Stream(_NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream whose work is done."""
        with self._calling("Stream"):
            self._objects.pop(stream)

    def synchronize_stream(self, stream: int) -> None:
        """Block until the stream's work is done. Raises KernelError where a kernel failed."""
        with self._calling("synchronize", KernelError):
            if stream:
                self._objects[stream].synchronize()
            else:
                self._cuda.Context.synchronize()

    def create_event(self) -> int:
        """An event with timing."""
        with self._calling("Event"):
            return self._register(id, self._cuda.Event(_EVENT_DEFAULT))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        with self._calling("Event"):
            self._objects.pop(event)

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is queued now."""
        with self._calling("record"):
            self._objects[event].record(self._stream(stream))

    def wait(self, stream: int, event: int) -> None:
        """Make later work of the stream wait for the event."""
        with self._calling("wait_for_event"):
            self._objects[stream].wait_for_event(self._objects[event])

    def synchronize_event(self, event: int) -> None:
        """Block until the event is reached. Raises KernelError where a kernel failed."""
        with self._calling("synchronize", KernelError):
            self._objects[event].synchronize()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make our context current on this thread in the block."""
        with self._calling("Context"):
            yield

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that were reached."""
        with self._calling("time_since"):
            return float(self._objects[end].time_since(self._objects[start]))

    def begin_capture(self, stream: int) -> None:
        """Start recording what this thread queues on the stream."""
        self._direct("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD)

    def end_capture(self, stream: int) -> int:
        """The recorded work as an executable graph."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._direct("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            self._direct("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, flags)
        finally:
            self._direct("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def replay(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        self._direct("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph that has run."""
        self._direct("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _stream(self, stream: int) -> Any:
        return self._objects[stream] if stream else None

    def _register(self, handle_of: Any, instance: Any) -> int:
        handle = int(handle_of(instance))
        self._objects[handle] = instance
        return handle

    @contextlib.contextmanager
    def _calling(
        self, function: str, kind: type[DeviceError] | type[KernelError] = DeviceError
    ) -> Iterator[None]:
        """Make our context current on this thread and translate pycuda's errors.

        Pushed and popped each time: pycuda aborts where a thread ends with a context pushed.
        """
        try:
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()
        except self._cuda.MemoryError as error:
            raise failure(function, 2, str(error)) from error
        except self._cuda.Error as error:
            raise kind(f"CUDA: pycuda's {function} failed: {error}") from error

    def _direct(self, function: str, *arguments: Any) -> None:
        with self._calling(function):
            status = getattr(self._libcuda, function)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._libcuda.cuGetErrorString(status, ctypes.byref(text))
            raise failure(function, status, (text.value or b"no description").decode())


def _handle(stream: Any) -> int:
    return int(stream.handle)


def _memory(address: int, size: int) -> Any:
    return (ctypes.c_ubyte * size).from_address(address)
