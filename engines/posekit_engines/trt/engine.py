"""The network as a TensorRT plan, by TensorRT 10 or 11 or TensorRT for RTX: the module is given.

All three name these calls alike. A context serves one batch size and is never changed after its
first run, as a CUDA graph that recorded it demands; all contexts share one working memory, since
they run one after another on one stream.
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
    """As `engine.Engine`: the plan `raw` on `device`; `trt` is tensorrt or tensorrt_rtx.

    Raises EngineError: the plan does not load here, or is no network of posekit's.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self.name = library_name(trt)
        self._trt, self._driver = trt, device.driver
        self._runtime, self._engine = opened(trt, plan, device)
        self.image, self.image_dtype = self._tensor(IMAGE, trt.TensorIOMode.INPUT)
        self.heatmaps, self.heatmaps_dtype = self._tensor(HEATMAPS, trt.TensorIOMode.OUTPUT)
        low, _, high = (tuple(each) for each in self._engine.get_tensor_profile_shape(IMAGE, 0))
        self.least, self.most = int(low[0]), int(high[0])
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
            lacking = context.infer_shapes()
        if not all(done) or lacking:
            raise EngineError(
                f"{self.name}: images {shape} are refused ({lacking or 'shape or address'}); the "
                f"plan takes {self.least} to {self.most}"
            )
        given = tuple(context.get_tensor_shape(HEATMAPS))
        if given != (count, *self.heatmaps):
            raise EngineError(f"{self.name}: gives heatmaps {given} for images {shape}")
        self._contexts[count] = context

    def enqueue(self, count: int, stream: int) -> None:
        """Queue the network for as many images as `prepare` was told. Raises EngineError."""
        with self._driver.current():
            done = self._contexts[count].execute_async_v3(stream)
        if not done:
            raise EngineError(f"{self.name}: cannot run {count} images; its log says why")

    def capturable(self, count: int, stream: int) -> str:
        """What TensorRT for RTX says of its kernels, which it may still be compiling."""
        ask = getattr(self._contexts[count], "is_stream_capturable", None)
        if ask is None:
            return ""
        with self._driver.current():
            return "" if ask(stream) else f"{self.name} says that it cannot be recorded yet"

    def _tensor(self, name: str, mode: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape of one, and dtype, of an input or output. Raises EngineError."""
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        if sorted(names) != sorted((IMAGE, HEATMAPS)):
            raise EngineError(
                f"{self.name}: the plan has {', '.join(names)}; wanted {IMAGE} and {HEATMAPS}, the "
                "plan `raw` (a plan of points is for other runtimes)"
            )
        if self._engine.get_tensor_mode(name) != mode:
            raise EngineError(f"{self.name}: {name} is on the wrong side of the plan")
        kinds = {self._trt.DataType.HALF: np.float16, self._trt.DataType.FLOAT: np.float32}
        kind = self._engine.get_tensor_dtype(name)
        if kind not in kinds:
            raise EngineError(f"{self.name}: {name} is {kind}; wanted FP16 or FP32")
        shape = tuple(int(n) for n in tuple(self._engine.get_tensor_shape(name))[1:])
        return shape, np.dtype(kinds[kind])

    def _working_bytes(self) -> int:
        return max(int(self._engine.device_memory_size_v2), 1)


def opened(trt: Any, plan: bytes, device: Device, *, what: str = "the plan") -> tuple[Any, Any]:
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
            f"{device.info.name}; a plan fits one version and one kind of GPU: make it anew with "
            "`posekit build`"
        )
    return (logger, runtime), engine
