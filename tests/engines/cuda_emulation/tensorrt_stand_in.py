"""A stand-in for the module tensorrt: its plans are ONNX graphs, which ONNX Runtime runs.

It implements the calls that `posekit_engines.trt.engine` makes, as documented by TensorRT, and is
stricter: a context whose tensors are not all set, that runs on the default stream, was not run
before a graph records it, or is changed after that, returns False. Work is a host function in the
stream of the stand-in libcuda, so that it is ordered and recorded like any other.
"""

from __future__ import annotations

import ctypes
import enum
import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from posekit.bundle import Bundle
from posekit.inference.session import open_session
from posekit_engines.trt.detector_graph import detector_of

__version__ = "0.0.1"
_MAGIC = b"stand-in plan\n"
_WORKING_BYTES = 4096
RUNS: list[int] = []
"""Images of each run of a network, in order."""


class DataType(enum.Enum):
    HALF = 1
    FLOAT = 0
    INT8 = 2
    UINT8 = 5


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class Logger:
    WARNING = 1

    def __init__(self, level: int) -> None:
        self.level = level


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = 1, 0, 2


class Builder:
    """Like TensorRT where it finds no GPU."""

    def __init__(self, logger: ILogger) -> None:
        raise RuntimeError("the stand-in builds nothing")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class Runtime:
    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(_MAGIC):
            return None
        header, _, graph = plan[len(_MAGIC) :].partition(b"\n")
        return Engine(json.loads(header), graph)


class Engine:
    device_memory_size_v2 = _WORKING_BYTES

    def __init__(self, header: dict[str, Any], graph: bytes) -> None:
        self.header = header
        self.session = open_session(graph, {}, device="cpu", threads=1)
        self.tensors = {
            each.name: (mode, each)
            for mode, found in (
                (TensorIOMode.INPUT, self.session.get_inputs()),
                (TensorIOMode.OUTPUT, self.session.get_outputs()),
            )
            for each in found
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        kinds = {"tensor(float16)": DataType.HALF, "tensor(uint8)": DataType.UINT8}
        return kinds.get(self.tensors[name][1].type, DataType.FLOAT)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        first, *rest = self.tensors[name][1].shape
        return (first if isinstance(first, int) else -1, *rest)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert self.get_tensor_mode(name) is TensorIOMode.INPUT
        return [(count, *self.get_tensor_shape(name)[1:]) for count in self.header["profile"]]

    def create_execution_context(
        self, strategy: Any = ExecutionContextAllocationStrategy.STATIC
    ) -> Context:
        return Context(self, strategy)


class Context:
    def __init__(self, engine: Engine, strategy: ExecutionContextAllocationStrategy) -> None:
        self.engine = engine
        self.has_memory = strategy is ExecutionContextAllocationStrategy.STATIC
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.ran = self.recorded = False
        self.calls: list[Any] = []  # keeps the host functions alive

    def set_device_memory(self, memory: int, size: int) -> None:
        self.has_memory = memory != 0 and size >= _WORKING_BYTES

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(low) and all(
            a <= n <= b for a, n, b in zip(low, shape, high, strict=True)
        )
        if not fits or self.recorded:
            return False
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.tensors or self.recorded:
            return False
        self.addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape else ["image"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None
        return (self.shape[0], *self.engine.get_tensor_shape(name)[1:])

    def execute_async_v3(self, stream_handle: int) -> bool:
        recording = _recording(stream_handle)
        addressed = set(self.addresses) == set(self.engine.tensors)
        ready = self.has_memory and self.shape and addressed and stream_handle
        if not ready or (recording and not self.ran):
            return False
        self.ran, self.recorded = True, self.recorded or recording
        call = _HOST_FUNCTION(lambda _: self._run())
        self.calls.append(call)
        status: int = _libcuda().cuLaunchHostFunc(ctypes.c_void_p(stream_handle), call, None)
        return status == 0

    def _run(self) -> None:
        assert self.shape is not None
        RUNS.append(self.shape[0])
        binding = self.engine.session.io_binding()
        for name, (mode, tensor) in self.engine.tensors.items():
            bind = binding.bind_input if mode is TensorIOMode.INPUT else binding.bind_output
            bind(
                name,
                device_type="cpu",
                device_id=0,
                element_type=_ELEMENTS[tensor.type],
                shape=self.get_tensor_shape(name),
                buffer_ptr=self.addresses[name],
            )
        self.engine.session.run_with_iobinding(binding)


_ELEMENTS = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
}
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _libcuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _recording(stream: int) -> bool:
    status = ctypes.c_int()
    _libcuda().cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
    return status.value != 0


def plan_of(bundle: Bundle, *, half: bool = True, max_images: int = 128) -> bytes:
    """The plan `raw` of a bundle: its network alone, for batches of up to `max_images`."""
    graph = raw_graph(bundle, half=half)
    header = json.dumps({"profile": [1, min(16, max_images), max_images]}).encode()
    return _MAGIC + header + b"\n" + graph.SerializeToString()


def raw_graph(bundle: Bundle, *, half: bool) -> onnx.ModelProto:
    """`image` to `heatmaps`, cut from the bundle's own graph; half: float16 input and output."""
    model = onnx.load_from_string(bundle.graphs["maps"])
    graph, spec = model.graph, bundle.pose_spec
    for node in [n for n in graph.node if n.name.startswith("crop/") or "image" in n.output]:
        graph.node.remove(node)
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(bundle.weights[tensor.name], tensor.name))
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    (width, height), (columns, rows) = spec.input_size, spec.heatmap_size
    image = helper.make_tensor_value_info("image", kind, ["N", 3, height, width])
    maps = helper.make_tensor_value_info("heatmaps", kind, ["N", len(spec.skeleton), rows, columns])
    graph.input[0].CopyFrom(image)
    graph.output[0].CopyFrom(maps)
    if half:
        _cast_ends(graph)
    return model


def detect_plan_of(bundle: Bundle) -> bytes:
    """The plan `detect` of a person detector, of the same graph as a real one."""
    header = json.dumps({"profile": [1, 1, 1]}).encode()
    return _MAGIC + header + b"\n" + detector_of(bundle).SerializeToString()


def points_plan_of(bundle: Bundle, max_crops: int = 32) -> bytes:
    """The plan `points`: the bundle's own graph with flip, from crops to points and scores."""
    model = onnx.load_from_string(bundle.graphs["flip"])
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(bundle.weights[tensor.name], tensor.name))
    header = json.dumps({"profile": [1, min(8, max_crops), max_crops]}).encode()
    return _MAGIC + header + b"\n" + model.SerializeToString()


def _cast_ends(graph: onnx.GraphProto) -> None:
    """Cast at both ends; the network itself stays float32, since the rest is what is tested."""
    for node in graph.node:
        node.input[:] = ["image/float32" if name == "image" else name for name in node.input]
        node.output[:] = ["heatmaps/float32" if n == "heatmaps" else n for n in node.output]
    first = helper.make_node("Cast", ["image"], ["image/float32"], to=TensorProto.FLOAT)
    last = helper.make_node("Cast", ["heatmaps/float32"], ["heatmaps"], to=TensorProto.FLOAT16)
    graph.node.insert(0, first)
    graph.node.append(last)
