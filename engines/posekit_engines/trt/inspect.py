"""Which precision a TensorRT engine was actually built with."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from posekit.errors import EngineError, ExportError
from posekit_engines.trt.library import library_name, logged_reason, make_logger

MULTIPLIERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_INPUT")
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
DTYPE_OF_PRECISION = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# The inspector's formats of a tensor: "Half", "Half(64,1:8)", "Row major linear FP16 format" ...
_DTYPE_PATTERNS = (
    ("bfloat16", r"bfloat16|bf16"),
    ("float16", r"half|fp16|float16"),
    ("float32", r"float|fp32"),
)


def layer_dtypes(trt: Any, network: Any) -> dict[str, int]:
    """Number of convolutions and matrix products by the data type that they multiply."""
    kinds = {getattr(trt.LayerType, name) for name in MULTIPLIERS if hasattr(trt.LayerType, name)}
    every = [network.get_layer(n) for n in range(network.num_layers)]
    names = [each.get_input(0).dtype.name for each in every if each.type in kinds]
    return dict(Counter(DTYPES.get(name, name.lower()) for name in names))


def check_precision(found: Mapping[str, int], precision: str, where: str) -> None:
    """Most convolutions and matrix products have the requested type. Raises ExportError."""
    wanted = DTYPE_OF_PRECISION[precision]
    if 2 * found.get(wanted, 0) <= sum(found.values()):
        listed = ", ".join(f"{count} in {kind}" for kind, count in found.items()) or "none"
        raise ExportError(
            f"--precision {precision}: {where} multiplies in other types ({listed} of its "
            f"convolutions and matrix products); wanted most in {wanted}, so nothing is written"
        )


def check_engine_precision(dtypes: Mapping[str, int], precision: str) -> None:
    """Some layer of the built engine has the requested type. Raises ExportError."""
    wanted = DTYPE_OF_PRECISION[precision]
    if not dtypes.get(wanted):
        raise ExportError(
            f"--precision {precision}: the layers of the built engine output {dict(dtypes)}; "
            f"wanted {wanted}, so nothing is written"
        )


def engine_dtypes(trt: Any, plan: bytes) -> dict[str, int]:
    """Number of tensors between the engine's layers by data type, from TensorRT's inspector.

    Needs the GPU that the plan is for.  Raises EngineError where it does not load.
    """
    messages: list[str] = []
    runtime = trt.Runtime(make_logger(trt, messages))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{library_name(trt)} does not load the engine that it built: {logged_reason(messages)}"
        )
    inspector, context = engine.create_engine_inspector(), engine.create_execution_context()
    if context is not None:  # formats are reported only for known shapes
        for name in (engine.get_tensor_name(n) for n in range(engine.num_io_tensors)):
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1])
        inspector.execution_context = context
    return inspected_dtypes(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def inspected_dtypes(text: str) -> dict[str, int]:
    """Layer outputs by data type, from the inspector's JSON; unknown formats are not counted."""
    try:
        found = json.loads(text)["Layers"]
    except (KeyError, TypeError, ValueError):
        return {}
    outputs = [tensor for layer in found if isinstance(layer, dict) for tensor in _outputs(layer)]
    kinds = [_dtype_of(str(each.get("Format/Datatype", ""))) for each in outputs]
    return dict(Counter(kind for kind in kinds if kind))


def _outputs(layer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in layer.get("Outputs", []) if isinstance(each, dict)]


@functools.cache
def _dtype_of(text: str) -> str:
    lower = text.lower()
    return next((kind for kind, pattern in _DTYPE_PATTERNS if re.search(pattern, lower)), "")
