"""A person detector as a TensorRT engine: upload one canvas, run, download boxes and scores.

`posekit.detect` makes the canvas of a frame and persons of the boxes, on the host.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from posekit.errors import EngineError
from posekit.types import UInt8
from posekit_engines.cuda.device import Device
from posekit_engines.trt.engine import IMAGE, load_engine
from posekit_engines.trt.library import library_name

OUTPUTS = ("boxes", "scores")


class TensorRTDetector:
    """A `posekit.detect.Graph`: the plan `detect` on `device`; `trt` is the module.

    size: (W, H) of its canvas, px.  Thread-safe.
    Raises EngineError: the plan does not load here, or has other tensors than `detect`.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self.provider = library_name(trt)
        self._trt, self._driver, self._lock = trt, device.driver, threading.Lock()
        self._runtime, self._engine = load_engine(trt, plan, device, what="the detector's engine")
        with self._driver.current():
            shapes = self._shapes()
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self.provider}: no context for the detector: out of memory?")
        self.inputs: tuple[str, ...] = (IMAGE,)
        self.size = (shapes[IMAGE][2], shapes[IMAGE][1])
        kinds = {IMAGE: np.uint8} | dict.fromkeys(OUTPUTS, np.float32)
        self._stream = device.stream()
        self._pinned = {name: device.pinned(shape, kinds[name]) for name, shape in shapes.items()}
        self._buffers = {name: device.buffer(shape, kinds[name]) for name, shape in shapes.items()}
        self._bind(shapes[IMAGE])

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
                raise EngineError(f"{self.provider}: cannot run the detector; see TensorRT's log")
            for name in OUTPUTS:
                self._buffers[name].download(self._pinned[name], self._stream)
            self._stream.synchronize()
            return {name: self._pinned[name].copy() for name in OUTPUTS}

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Set the input's shape and every tensor's address. Raises EngineError."""
        with self._driver.current():
            done = [self._context.set_input_shape(IMAGE, shape)]
            for name, buffer in self._buffers.items():
                done.append(self._context.set_tensor_address(name, buffer.address))
        if not all(done):
            raise EngineError(f"{self.provider}: the detector's engine rejects a canvas {shape}")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by tensor name; none may be dynamic. Raises EngineError."""
        engine, types = self._engine, self._trt.DataType
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        wanted = {IMAGE: types.UINT8} | dict.fromkeys(OUTPUTS, types.FLOAT)
        found = {name: engine.get_tensor_dtype(name) for name in names}
        if found != wanted:
            dtypes = {name: str(kind) for name, kind in found.items()}
            raise EngineError(
                f"{self.provider}: the engine has {dtypes}; wanted image (uint8), boxes and scores "
                "(float32), the kind `detect`"
            )
        shapes = {
            name: tuple(int(n) for n in tuple(engine.get_tensor_shape(name))) for name in names
        }
        if any(side < 1 for shape in shapes.values() for side in shape):
            raise EngineError(
                f"{self.provider}: the detector's engine has dynamic shapes: {shapes}"
            )
        return shapes
