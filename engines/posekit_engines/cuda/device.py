"""What posekit asks of CUDA: one small interface, served by pycuda or by cuda-bindings.

`open_device` takes the driver package that is there; a `Device` then hands out buffers, streams,
events, compiled kernels and captured graphs, and asks nothing else of CUDA.
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

Compiled = Callable[[str, tuple[int, int]], bytes]


class Device:
    """A GPU in use. What it hands out is released when nobody holds it any more."""

    def __init__(self, driver: Driver, compiled: Compiled = nvrtc.compile_kernel) -> None:
        self.driver = driver
        self.info = driver.info
        self._compiled = compiled
        self._functions: dict[str, int] = {}

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Memory on the GPU for an array, not cleared. Raises DeviceError (none left)."""
        return Buffer(self.driver, shape, np.dtype(dtype))

    def uploaded(self, array: NDArray[Any], stream: Stream | None = None) -> Buffer:
        """A new buffer that holds `array`. Raises DeviceError."""
        buffer = self.buffer(array.shape, array.dtype)
        buffer.upload(array, stream)
        return buffer

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in page-locked memory: copies from and to it need not wait."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.driver.allocate_pinned(max(size, 1))
        memory = (ctypes.c_ubyte * max(size, 1)).from_address(address)
        _release_with(memory, self.driver.release_pinned, address)
        array: NDArray[Any] = np.ndarray(shape, np.dtype(dtype), buffer=memoryview(memory))
        return array

    def stream(self) -> Stream:
        """A new queue of work."""
        return Stream(self.driver)

    def event(self) -> Event:
        """A new mark in a queue, with its time."""
        return Event(self.driver)

    def launch(self, kernel: str, name: str, *, launch: Launch, stream: Stream | None) -> None:
        """Queue the function `name` of `kernel`.cu, compiled at its first use.

        Raises KernelError, MissingExtraError.
        """
        if name not in self._functions:
            image = self._compiled(kernel, self.info.capability)
            self._functions[name] = self.driver.function(self.driver.load(image), name)
        self.driver.launch(self._functions[name], launch, _handle(stream))

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[Graph]:
        """What the block queues on `stream` becomes the graph, ready after the block.

        Nothing of it runs yet. Kernels must have been launched once before, buffers and pinned
        arrays must exist: CUDA allows neither loading nor allocating while it records.
        """
        graph = Graph(self.driver)
        self.driver.begin_capture(stream.handle)
        try:
            yield graph
        except BaseException:
            # The first error is the one to tell.
            with contextlib.suppress(KernelError, DeviceError):
                self.driver.release_graph(self.driver.end_capture(stream.handle))
            raise
        graph.ready(self.driver.end_capture(stream.handle))


class Buffer:
    """An array on the GPU, C-contiguous: `address`, `shape`, `dtype`, `nbytes`."""

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._driver = driver
        self._whole: Buffer | None = None
        self.shape, self.dtype = tuple(int(n) for n in shape), dtype
        self.nbytes = int(np.prod(self.shape)) * dtype.itemsize
        self.address = driver.allocate(max(self.nbytes, 1))
        _release_with(self, driver.release, self.address)

    def __repr__(self) -> str:
        return f"Buffer({self.dtype}, {self.shape}, at {self.address:#x})"

    def part(self, start: int, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """An array within this one, from byte `start` on; it keeps this one. Raises InputError."""
        part = object.__new__(Buffer)
        part._driver, part._whole = self._driver, self
        part.shape, part.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        part.nbytes = int(np.prod(part.shape)) * part.dtype.itemsize
        part.address = self.address + start
        if start < 0 or start + part.nbytes > self.nbytes or start % part.dtype.itemsize:
            raise InputError(f"part: {part.dtype} {part.shape} from byte {start} on, in {self}")
        return part

    def upload(self, array: NDArray[Any], stream: Stream | None = None) -> None:
        """Copy `array` here, or its rows to the first of these; pinned memory does not wait.

        With a stream, `array` must stay as it is until the stream has come to the copy.
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
            self._driver.finish(0)

    def copy(self, start: int, source: int, size: int, *, stream: Stream) -> None:
        """Queue a copy of `size` bytes at the GPU's address `source` to here, from byte `start` on.

        Raises InputError, DeviceError.
        """
        if start < 0 or start + size > self.nbytes:
            raise InputError(f"copy: {size} bytes from byte {start} on, in {self}")
        self._driver.copy(self.address + start, source, size, stream=stream.handle)

    def download(self, out: NDArray[Any] | None = None, stream: Stream | None = None) -> Any:
        """What is here, as an array: `out` where given (its rows). With a stream: later.

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
            self._driver.finish(0)
        return out


class Stream:
    """A queue of work on the GPU."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.handle = driver.make_stream()
        _release_with(self, driver.release_stream, self.handle)

    def finish(self) -> None:
        """Wait until all that was queued is done. Raises DeviceError, KernelError."""
        self._driver.finish(self.handle)

    def wait(self, event: Event) -> None:
        """What is queued from now on waits for `event`, recorded on another stream."""
        self._driver.wait(self.handle, event.handle)


class Event:
    """A mark in a stream."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.handle = driver.make_event()
        _release_with(self, driver.release_event, self.handle)

    def record(self, stream: Stream) -> None:
        """Set the mark behind what is queued now."""
        self._driver.record(self.handle, stream.handle)

    def reach(self) -> None:
        """Wait until the mark is reached. Raises DeviceError, KernelError."""
        self._driver.reach(self.handle)

    def since_ms(self, start: Event) -> float:
        """Milliseconds from `start` to this mark; both must have been reached."""
        return self._driver.elapsed_ms(start.handle, self.handle)


class Graph:
    """Recorded work, queued again as one: see `Device.capture`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handle: int | None = None

    def ready(self, handle: int) -> None:
        """Take over the recorded graph."""
        self._handle = handle
        _release_with(self, self._driver.release_graph, handle)

    def replay(self, stream: Stream) -> None:
        """Queue all of it on `stream`. Raises KernelError (nothing was recorded)."""
        if self._handle is None:
            raise KernelError("graph: nothing was recorded yet; leave the `with` block first")
        self._driver.replay(self._handle, stream.handle)


def _release_with(holder: object, release: Callable[[int], None], handle: int) -> None:
    """Release when the holder goes; at the program's end CUDA frees all by itself."""
    weakref.finalize(holder, release, handle).atexit = False


def _handle(stream: Stream | None) -> int:
    return 0 if stream is None else stream.handle
