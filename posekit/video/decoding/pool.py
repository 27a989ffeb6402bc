"""Memory for images, used again once no view of the image is left."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque

import numpy as np

from posekit.types import UInt8

_POOL_BYTES = 400_000_000  # a dozen 4K frames


class Pool:
    """Lends contiguous uint8 (H, W, 3) arrays and takes their memory back by itself.

    Without it each image is fresh memory from the system, mapped in page by page. At most
    `size` pieces are kept, and fewer of large frames.
    """

    def __init__(self, size: int) -> None:
        self._free: deque[UInt8] = deque(maxlen=size)

    def copy(self, image: UInt8) -> UInt8:
        """`image` (H, W, 3) in memory of the pool; writable, as long as any view of it lives."""
        memory = self._take(image.size)
        # numpy keeps this handle alive for the array and every view of it, and nothing else does
        handle = (ctypes.c_uint8 * image.size).from_buffer(memory.data)
        weakref.finalize(handle, self._free.append, memory).atexit = False
        array: UInt8 = np.frombuffer(memoryview(handle), np.uint8).reshape(image.shape)
        np.copyto(array, image)
        return array

    def _take(self, size: int) -> UInt8:
        while len(self._free) * size > _POOL_BYTES:
            self._free.popleft()
        while self._free:
            memory = self._free.pop()
            if memory.size == size:
                return memory
        return np.empty(size, np.uint8)
