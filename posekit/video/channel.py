"""A bounded queue from one thread to another; an error travels with the items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
QUEUE_BYTES = 250_000_000
"""Of items that wait between two threads, however few: eight RGB frames of 4K."""

_WAKE_S = 0.5  # a wait is cut into pieces, so that Ctrl-C is noticed on every system


class Channel(Generic[T]):
    """One thread puts, one takes; at most `size` items lie between them.

    weight: bytes of an item; together at most QUEUE_BYTES wait, and one item in any case.
    The putting side works inside `with channel:`; what it raises there is raised to the taker
    after the items before it. Either side may `close()`: a waiting `put` then returns False.
    """

    def __init__(self, size: int, weight: Callable[[T], int] = lambda _: 0) -> None:
        self.size = size
        self.dropped = 0
        self._weight = weight
        self._items: deque[T] = deque()
        self._state = threading.Condition()
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        with self._state:
            self._finished, self._error = True, error
            self._state.notify_all()
        return True  # not swallowed: the taker gets it

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, item: T) -> bool:
        """Wait for room and add; False, and nothing added, once the channel is closed."""
        with self._state:
            while self._is_full(item) and not self._closed:
                self._state.wait(_WAKE_S)
            return self._add(item)

    def _is_full(self, item: T) -> bool:
        if not self._items:
            return False
        weight = sum(self._weight(each) for each in (*self._items, item))
        return len(self._items) >= self.size or weight > QUEUE_BYTES

    def replace(self, item: T) -> bool:
        """Add without waiting; whatever was not yet taken is dropped and counted."""
        with self._state:
            if not self._closed:
                self.dropped += len(self._items)
                self._items.clear()
            return self._add(item)

    def _add(self, item: T) -> bool:
        if self._closed:
            return False
        self._items.append(item)
        self._state.notify_all()
        return True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The oldest item, waiting for it; raises what the putting side raised."""
        with self._state:
            self._await_item()
            if self._items:
                self._state.notify_all()
                return self._items.popleft()
        raise StopIteration

    def wait(self, seconds: float) -> bool:
        """Whether there is an item, the end or an error to take, within so many seconds."""
        with self._state:
            return self._state.wait_for(
                lambda: bool(self._items) or self._closed or self._finished, seconds
            )

    def peek(self) -> T | None:
        """The next item, left where it is; None at the end. Raises like `__next__`."""
        with self._state:
            self._await_item()
            return self._items[0] if self._items else None

    def _await_item(self) -> None:
        while not (self._items or self._closed or self._finished):
            self._state.wait(_WAKE_S)
        if not self._items and self._error is not None and not self._closed:
            raise self._error

    def sleep(self, seconds: float) -> bool:
        """Wait so long, or until the channel is closed; whether it is closed."""
        with self._state:
            self._state.wait_for(lambda: self._closed, seconds)
            return self._closed

    def close(self) -> None:
        """End at once: items that were not taken are dropped, and no thread waits any longer."""
        with self._state:
            self._closed = True
            self._items.clear()
            self._state.notify_all()
