"""The interface of both CUDA driver packages, and the data they exchange."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class DeviceInfo:
    """One GPU.  capability: compute capability.  driver: CUDA version that it supports."""

    index: int
    name: str
    capability: tuple[int, int]
    memory_bytes: int
    driver: tuple[int, int]


@dataclass(frozen=True)
class Launch:
    """A kernel's launch parameters.  argument: its only parameter, a struct, as bytes."""

    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    argument: bytes


class Driver(Protocol):
    """CUDA driver calls; addresses and handles are integers, stream 0 is the default stream.

    Every call raises KernelError (of a kernel) or DeviceError (otherwise) where CUDA fails.
    """

    name: str
    info: DeviceInfo

    def allocate(self, size: int) -> int:
        """The address of new bytes on the GPU."""
        ...

    def free(self, address: int) -> None:
        """Free memory on the GPU."""
        ...

    def allocate_pinned(self, size: int) -> int:
        """The address of new page-locked bytes of the host."""
        ...

    def free_pinned(self, address: int) -> None:
        """Free page-locked memory of the host."""
        ...

    def upload(self, address: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy from the host's `source`."""
        ...

    def download(self, target: int, address: int, size: int, *, stream: int) -> None:
        """Queue a copy to the host's `target`."""
        ...

    def copy(self, target: int, source: int, size: int, *, stream: int) -> None:
        """Queue a copy from one place of the GPU's memory to another."""
        ...

    def load(self, binary: bytes) -> int:
        """Load a cubin or PTX as a module."""
        ...

    def function(self, module: int, name: str) -> int:
        """A module's kernel by name."""
        ...

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        """Queue a kernel."""
        ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream whose work is done."""
        ...

    def synchronize_stream(self, stream: int) -> None:
        """Block until the stream's work is done."""
        ...

    def create_event(self) -> int:
        """An event with a time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is queued now."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Make later work of the stream wait for the event."""
        ...

    def synchronize_event(self, event: int) -> None:
        """Block until the event's last record is reached."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """In the block, other CUDA libraries called on this thread use this GPU."""
        ...

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that were reached."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Start recording what this thread queues on the stream."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded work as a graph."""
        ...

    def replay(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph that has run."""
        ...
