"""A person detector's TensorRT plan: one canvas up, one run, boxes and scores down.

Where the canvas is made of a frame and boxes become persons is `posekit.detect`, on the host.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from posekit.errors import EngineError
from posekit.types import UInt8
from posekit_engines.cuda.device import Device
from posekit_engines.trt.engine import IMAGE, opened
from posekit_engines.trt.library import library_name

ANSWERS = ("boxes", "scores")


class TensorRTDetector:
    """As `posekit.detect.Graph`: the plan `detect` on `device`; `trt` is the module.

    size: (W, H) of its canvas.  Threads may share it.
    Raises EngineError: the plan does not load here, or is no detector of posekit's.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self.provider = library_name(trt)
        self._trt, self._driver, self._lock = trt, device.driver, threading.Lock()
        self._runtime, self._engine = opened(trt, plan, device, what="the detector's plan")
        with self._driver.current():
            shapes = self._shapes()
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self.provider}: no context for the detector: out of memory?")
        self.inputs: tuple[str, ...] = (IMAGE,)
        self.size = (shapes[IMAGE][2], shapes[IMAGE][1])
        kinds = {IMAGE: np.uint8} | dict.fromkeys(ANSWERS, np.float32)
        self._stream = device.stream()
        self._pinned = {name: device.pinned(shape, kinds[name]) for name, shape in shapes.items()}
        self._buffers = {name: device.buffer(shape, kinds[name]) for name, shape in shapes.items()}
        self._tell(shapes[IMAGE])

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """`image` uint8 (1, H, W, 3) to `boxes` (1, A, 4) and `scores` (1, A). Raises EngineError.

        Raises DeviceError.
        """
        with self._lock:
            image: UInt8 = self._pinned[IMAGE]
            np.copyto(image, feed[IMAGE])
            self._buffers[IMAGE].upload(image, self._stream)
            with self._driver.current():
                done = self._context.execute_async_v3(self._stream.handle)
            if not done:
                raise EngineError(f"{self.provider}: cannot run the detector; its log says why")
            for name in ANSWERS:
                self._buffers[name].download(self._pinned[name], self._stream)
            self._stream.finish()
            return {name: self._pinned[name].copy() for name in ANSWERS}

    def _tell(self, shape: tuple[int, ...]) -> None:
        """Where everything lies. Raises EngineError."""
        with self._driver.current():
            done = [self._context.set_input_shape(IMAGE, shape)]
            for name, buffer in self._buffers.items():
                done.append(self._context.set_tensor_address(name, buffer.address))
        if not all(done):
            raise EngineError(f"{self.provider}: the detector's plan refuses a canvas {shape}")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, all of numbers. Raises EngineError."""
        engine, types = self._engine, self._trt.DataType
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        wanted = {IMAGE: types.UINT8} | dict.fromkeys(ANSWERS, types.FLOAT)
        found = {name: engine.get_tensor_dtype(name) for name in names}
        if found != wanted:
            told = {name: str(kind) for name, kind in found.items()}
            raise EngineError(
                f"{self.provider}: the plan has {told}; wanted image (bytes), boxes and scores "
                "(float32), the plan `detect`"
            )
        shapes = {
            name: tuple(int(n) for n in tuple(engine.get_tensor_shape(name))) for name in names
        }
        if any(side < 1 for shape in shapes.values() for side in shape):
            raise EngineError(f"{self.provider}: the detector's plan leaves sizes open: {shapes}")
        return shapes
