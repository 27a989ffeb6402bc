"""Runs a `points` plan on its own, without posekit's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from posekit.errors import DeviceError, EngineError
from posekit.types import Float32, UInt8
from posekit_engines.cuda.device import Buffer, Device, Stream
from posekit_engines.trt.engine import load_engine

_OUT = ("points", "scores")


class PointsEngine:
    """The plan `points`: crops uint8 (N, h, w, 3) to points and scores, synchronously.

    max_crops: crops in one call at most.
    Raises EngineError (the plan does not load, or has other tensors), DeviceError.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self._device = device
        self._runtime, self._engine = load_engine(trt, plan, device, what="the engine `points`")
        with device.driver.current():
            names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
            if sorted(names) != ["crops", "points", "scores"]:
                raise EngineError(f"the engine `points` has {', '.join(names)}")
            dtypes = {name: self._engine.get_tensor_dtype(name) for name in names}
            if dtypes != {"crops": trt.DataType.UINT8, **dict.fromkeys(_OUT, trt.DataType.FLOAT)}:
                raise EngineError(f"the engine `points` has {dtypes}; wanted uint8 crops, FP32 out")
            _, _, high = self._engine.get_tensor_profile_shape("crops", 0)
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError("TensorRT makes no context for the engine `points`: out of memory?")
        self.max_crops = int(next(iter(high)))

    def __call__(self, crops: UInt8) -> tuple[Float32, Float32]:
        """Points (N, K, 2), crop px, and scores (N, K). Raises EngineError."""
        device, stream = self._device, self._device.stream()
        uploaded = device.upload(np.ascontiguousarray(crops))
        with device.driver.current():
            if not self._context.set_input_shape("crops", tuple(crops.shape)):
                raise EngineError(f"the engine `points` rejects crops {crops.shape}")
            out = {
                name: device.buffer(tuple(self._context.get_tensor_shape(name)), np.float32)
                for name in _OUT
            }
            self._run({"crops": uploaded, **out}, stream)
        return out["points"].download(), out["scores"].download()

    def _run(self, tensors: dict[str, Buffer], stream: Stream) -> None:
        for name, buffer in tensors.items():
            self._context.set_tensor_address(name, buffer.address)
        if not self._context.execute_async_v3(stream.handle):
            raise EngineError("the engine `points` cannot be run; see TensorRT's log")
        stream.synchronize()
