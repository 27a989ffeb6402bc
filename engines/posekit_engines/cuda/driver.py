"""What the two CUDA drivers have in common."""

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
    """How a kernel runs.  argument: its one parameter, a struct, as bytes."""

    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    argument: bytes


class Driver(Protocol):
    """The driver's calls, addresses and handles being integers; stream 0 is the default one.

    Every call raises KernelError (a kernel) or DeviceError (all else) where CUDA refuses.
    """

    name: str
    info: DeviceInfo

    def allocate(self, size: int) -> int:
        """The address of new bytes on the GPU."""
        ...

    def release(self, address: int) -> None:
        """Give them back."""
        ...

    def allocate_pinned(self, size: int) -> int:
        """The address of new page-locked bytes of the host."""
        ...

    def release_pinned(self, address: int) -> None:
        """Give them back."""
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

    def load(self, image: bytes) -> int:
        """A module of a cubin or PTX."""
        ...

    def function(self, module: int, name: str) -> int:
        """A kernel of a module."""
        ...

    def launch(self, function: int, launch: Launch, stream: int) -> None:
        """Queue a kernel."""
        ...

    def make_stream(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def release_stream(self, stream: int) -> None:
        """When its work is done."""
        ...

    def finish(self, stream: int) -> None:
        """Wait for the stream."""
        ...

    def make_event(self) -> int:
        """An event with a time."""
        ...

    def release_event(self, event: int) -> None:
        """At any time."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Mark the end of what is queued now."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """What the stream is given from now on waits for the event."""
        ...

    def reach(self, event: int) -> None:
        """Wait, here on the host, until the event's last mark is reached."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """In the block, this thread's calls of other CUDA libraries reach this GPU."""
        ...

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that were reached."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues on the stream."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded work as a graph."""
        ...

    def replay(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        ...

    def release_graph(self, graph: int) -> None:
        """When it has run."""
        ...
