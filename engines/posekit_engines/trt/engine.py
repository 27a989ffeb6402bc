"""The network as a TensorRT engine, run by TensorRT 10, 11 or TensorRT for RTX.

The module is an argument; all three have these calls. A context is for one batch size and is never
changed after its first run, as a CUDA graph that recorded it requires; all contexts share one
working memory, since they run one after another on one stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posekit.errors import EngineError
from posekit_engines.cuda.device import Buffer, Device
from posekit_engines.trt.library import library_name

IMAGE = "image"
HEATMAPS = "heatmaps"


class TensorRTEngine:
    """A `runtime.engine.Engine`: the plan `raw` on `device`; `trt` is tensorrt or tensorrt_rtx.

    Raises EngineError: the plan does not load here, or has other tensors than `raw`.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self.name = library_name(trt)
        self._trt, self._driver = trt, device.driver
        self._runtime, self._engine = load_engine(trt, plan, device)
        self.image, self.image_dtype = self._tensor(IMAGE, trt.TensorIOMode.INPUT)
        self.heatmaps, self.heatmaps_dtype = self._tensor(HEATMAPS, trt.TensorIOMode.OUTPUT)
        low, _, high = (tuple(each) for each in self._engine.get_tensor_profile_shape(IMAGE, 0))
        self.min_images, self.max_images = int(low[0]), int(high[0])
        self._memory: Buffer = device.buffer((self._working_bytes(),), np.uint8)
        self._contexts: dict[int, Any] = {}

    def prepare(self, image: int, heatmaps: int, *, count: int) -> None:
        """A context for `count` images at these addresses. Raises EngineError."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with self._driver.current():
            context = self._engine.create_execution_context(strategy)
            if context is None:
                raise EngineError(f"{self.name}: no context for {count} images: out of memory?")
            context.set_device_memory(self._memory.address, self._memory.nbytes)
            shape = (count, *self.image)
            done = (
                context.set_input_shape(IMAGE, shape),
                context.set_tensor_address(IMAGE, image),
                context.set_tensor_address(HEATMAPS, heatmaps),
            )
            missing = context.infer_shapes()
        if not all(done) or missing:
            raise EngineError(
                f"{self.name}: rejects images {shape} ({missing or 'shape or address'}); the "
                f"engine takes {self.min_images} to {self.max_images}"
            )
        output = tuple(context.get_tensor_shape(HEATMAPS))
        if output != (count, *self.heatmaps):
            raise EngineError(f"{self.name}: outputs heatmaps {output} for images {shape}")
        self._contexts[count] = context

    def enqueue(self, count: int, stream: int) -> None:
        """Queue the network for a number of images that was prepared. Raises EngineError."""
        with self._driver.current():
            done = self._contexts[count].execute_async_v3(stream)
        if not done:
            raise EngineError(f"{self.name}: cannot run {count} images; see TensorRT's log")

    def capturable(self, count: int, stream: int) -> str:
        """Why a CUDA graph cannot record it: TensorRT for RTX may still be compiling kernels."""
        is_capturable = getattr(self._contexts[count], "is_stream_capturable", None)
        if is_capturable is None:
            return ""
        with self._driver.current():
            return "" if is_capturable(stream) else f"{self.name} cannot be recorded yet"

    def _tensor(self, name: str, mode: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape without N, and dtype, of an input or output. Raises EngineError."""
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        if sorted(names) != sorted((IMAGE, HEATMAPS)):
            raise EngineError(
                f"{self.name}: the engine has {', '.join(names)}; wanted {IMAGE} and {HEATMAPS}, "
                "the kind `raw` (the kind `points` is for other runtimes)"
            )
        if self._engine.get_tensor_mode(name) != mode:
            raise EngineError(f"{self.name}: input and output are exchanged ({name})")
        kinds = {self._trt.DataType.HALF: np.float16, self._trt.DataType.FLOAT: np.float32}
        kind = self._engine.get_tensor_dtype(name)
        if kind not in kinds:
            raise EngineError(f"{self.name}: {name} is {kind}; wanted FP16 or FP32")
        shape = tuple(int(n) for n in tuple(self._engine.get_tensor_shape(name))[1:])
        return shape, np.dtype(kinds[kind])

    def _working_bytes(self) -> int:
        return max(int(self._engine.device_memory_size_v2), 1)


def load_engine(
    trt: Any, plan: bytes, device: Device, *, what: str = "the engine"
) -> tuple[Any, Any]:
    """TensorRT's logger and runtime, which must live as long as the engine, and the engine.

    Raises EngineError where the plan does not load here.
    """
    with device.driver.current():
        logger = trt.Logger(trt.Logger.WARNING)
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{library_name(trt)}: {what} ({len(plan)} bytes) does not load on "
            f"{device.info.name}; an engine is for one TensorRT version and one kind of GPU: "
            "rebuild it with `posekit build`"
        )
    return (logger, runtime), engine
