"""Buffers, streams, events, kernels and CUDA graphs of one GPU, on a `Driver`.

`open.open_device` chooses the driver package, pycuda or cuda-bindings.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from posekit.errors import DeviceError, InputError, KernelError
from posekit_engines.cuda import nvrtc
from posekit_engines.cuda.driver import Driver, Launch

CompileKernel = Callable[[str, tuple[int, int]], bytes]
"""A kernel's name and a compute capability to its cubin or PTX."""


class Device:
    """A GPU in use. The memory and handles of what it creates are freed by garbage collection."""

    def __init__(
        self, driver: Driver, compile_kernel: CompileKernel = nvrtc.compile_kernel
    ) -> None:
        self.driver = driver
        self.info = driver.info
        self._compile_kernel = compile_kernel
        self._functions: dict[str, int] = {}

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Uninitialized memory on the GPU for an array. Raises DeviceError (none left)."""
        return Buffer(self.driver, shape, np.dtype(dtype))

    def upload(self, array: NDArray[Any], stream: Stream | None = None) -> Buffer:
        """A new buffer with the content of `array`. Raises DeviceError."""
        buffer = self.buffer(array.shape, array.dtype)
        buffer.upload(array, stream)
        return buffer

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialized array in page-locked memory: copies from and to it are asynchronous."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.driver.allocate_pinned(max(size, 1))
        memory = (ctypes.c_ubyte * max(size, 1)).from_address(address)
        _free_with(memory, self.driver.free_pinned, address)
        array: NDArray[Any] = np.ndarray(shape, np.dtype(dtype), buffer=memoryview(memory))
        return array

    def stream(self) -> Stream:
        """A new stream."""
        return Stream(self.driver)

    def event(self) -> Event:
        """A new event with timing."""
        return Event(self.driver)

    def launch(self, kernel: str, name: str, *, launch: Launch, stream: Stream | None) -> None:
        """Queue the function `name` of `kernel`.cu, compiled on first use.

        Raises KernelError, MissingExtraError.
        """
        if name not in self._functions:
            binary = self._compile_kernel(kernel, self.info.capability)
            self._functions[name] = self.driver.function(self.driver.load(binary), name)
        self.driver.launch(self._functions[name], launch, _handle(stream))

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[Graph]:
        """Record what the block queues on `stream`; the graph is ready after the block.

        Nothing runs in the block. Kernels must have been launched once before, buffers and pinned
        arrays must exist: CUDA can neither load nor allocate while it records.
        """
        graph = Graph(self.driver)
        self.driver.begin_capture(stream.handle)
        try:
            yield graph
        except BaseException:
            # the first error is the one to report
            with contextlib.suppress(KernelError, DeviceError):
                self.driver.destroy_graph(self.driver.end_capture(stream.handle))
            raise
        graph.attach(self.driver.end_capture(stream.handle))


class Buffer:
    """An array on the GPU, C-contiguous: `address`, `shape`, `dtype`, `nbytes`."""

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._driver = driver
        self._base: Buffer | None = None
        self.shape, self.dtype = tuple(int(n) for n in shape), dtype
        self.nbytes = int(np.prod(self.shape)) * dtype.itemsize
        self.address = driver.allocate(max(self.nbytes, 1))
        _free_with(self, driver.free, self.address)

    def __repr__(self) -> str:
        return f"Buffer({self.dtype}, {self.shape}, at {self.address:#x})"

    def view(self, start: int, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """An array within this one from byte `start` on, sharing memory. Raises InputError."""
        view = object.__new__(Buffer)
        view._driver, view._base = self._driver, self
        view.shape, view.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        view.nbytes = int(np.prod(view.shape)) * view.dtype.itemsize
        view.address = self.address + start
        if start < 0 or start + view.nbytes > self.nbytes or start % view.dtype.itemsize:
            raise InputError(f"view: {view.dtype} {view.shape} from byte {start} on, in {self}")
        return view

    def upload(self, array: NDArray[Any], stream: Stream | None = None) -> None:
        """Copy `array` into the first rows; with a stream and pinned memory asynchronously.

        With a stream, `array` must not change until the stream has reached the copy.
        Raises InputError, DeviceError.
        """
        fits = array.dtype == self.dtype and array.shape[1:] == self.shape[1:]
        if not fits or array.nbytes > self.nbytes or not array.flags.c_contiguous:
            raise InputError(
                f"upload: wanted {self.dtype} {self.shape} (or fewer rows), contiguous, got "
                f"{array.dtype} {array.shape}"
            )
        if array.nbytes:
            source = array.ctypes.data
            self._driver.upload(self.address, source, array.nbytes, stream=_handle(stream))
        if stream is None:
            self._driver.synchronize_stream(0)

    def copy(self, start: int, source: int, size: int, *, stream: Stream) -> None:
        """Queue a copy of `size` bytes from the GPU address `source` to byte `start` of this one.

        Raises InputError, DeviceError.
        """
        if start < 0 or start + size > self.nbytes:
            raise InputError(f"copy: {size} bytes from byte {start} on, in {self}")
        self._driver.copy(self.address + start, source, size, stream=stream.handle)

    def download(self, out: NDArray[Any] | None = None, stream: Stream | None = None) -> Any:
        """The content, or its first rows in `out`. With a stream: once that has reached the copy.

        Raises InputError, DeviceError.
        """
        if out is None:
            out = np.empty(self.shape, self.dtype)
        if out.dtype != self.dtype or out.nbytes > self.nbytes or not out.flags.c_contiguous:
            raise InputError(f"download: wanted {self.dtype} {self.shape}, got {out.shape}")
        if out.nbytes:
            target = out.ctypes.data
            self._driver.download(target, self.address, out.nbytes, stream=_handle(stream))
        if stream is None:
            self._driver.synchronize_stream(0)
        return out


class Stream:
    """A CUDA stream: work that runs in order."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.handle = driver.create_stream()
        _free_with(self, driver.destroy_stream, self.handle)

    def synchronize(self) -> None:
        """Block until all queued work is done. Raises DeviceError, KernelError."""
        self._driver.synchronize_stream(self.handle)

    def wait(self, event: Event) -> None:
        """Make work queued from now on wait for `event`, recorded on another stream."""
        self._driver.wait(self.handle, event.handle)


class Event:
    """A CUDA event: a point in a stream's work."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.handle = driver.create_event()
        _free_with(self, driver.destroy_event, self.handle)

    def record(self, stream: Stream) -> None:
        """Record it after the work that is queued now."""
        self._driver.record(self.handle, stream.handle)

    def synchronize(self) -> None:
        """Block until its last record is reached. Raises DeviceError, KernelError."""
        self._driver.synchronize_event(self.handle)

    def since_ms(self, start: Event) -> float:
        """Milliseconds from `start` to this event; both must have been reached."""
        return self._driver.elapsed_ms(start.handle, self.handle)


class Graph:
    """A CUDA graph: recorded work that is queued again as one; see `Device.capture`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handle: int | None = None

    def attach(self, handle: int) -> None:
        """Own the recorded graph of this handle."""
        self._handle = handle
        _free_with(self, self._driver.destroy_graph, handle)

    def replay(self, stream: Stream) -> None:
        """Queue all of it on `stream`. Raises KernelError (nothing was recorded)."""
        if self._handle is None:
            raise KernelError("graph: nothing was recorded yet; leave the `with` block first")
        self._driver.replay(self._handle, stream.handle)


def _free_with(owner: object, free: Callable[[int], None], handle: int) -> None:
    """Free the handle with its owner; at the end of the process CUDA frees everything itself."""
    weakref.finalize(owner, free, handle).atexit = False


def _handle(stream: Stream | None) -> int:
    return 0 if stream is None else stream.handle
