"""Which precision a TensorRT plan was really built with."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from posekit.errors import EngineError, ExportError
from posekit_engines.trt.library import logged_reason, make_logger, title

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
WANTED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# What the inspector says of a tensor: "Half", "Half(64,1:8)", "Row major linear FP16 format" ...
_SAID = (
    ("bfloat16", r"bfloat16|bf16"),
    ("float16", r"half|fp16|float16"),
    ("float32", r"float|fp32"),
)


def layers(trt: Any, network: Any) -> dict[str, int]:
    """How many convolutions and matrix products there are, by the type that they multiply."""
    kinds = {getattr(trt.LayerType, name) for name in MULTIPLIERS if hasattr(trt.LayerType, name)}
    every = [network.get_layer(n) for n in range(network.num_layers)]
    names = [each.get_input(0).dtype.name for each in every if each.type in kinds]
    return dict(Counter(DTYPES.get(name, name.lower()) for name in names))


def check_precision(found: Mapping[str, int], precision: str, where: str) -> None:
    """Most of what multiplies is of the type asked for. Raises ExportError."""
    wanted = WANTED[precision]
    if 2 * found.get(wanted, 0) <= sum(found.values()):
        listed = ", ".join(f"{count} in {kind}" for kind, count in found.items()) or "none"
        raise ExportError(
            f"--precision {precision}: {where} multiplies otherwise ({listed} of its convolutions "
            f"and matrix products); wanted most in {wanted}, so nothing is written"
        )


def check_found(read: Mapping[str, int], precision: str) -> None:
    """The type asked for is in the plan that was built. Raises ExportError."""
    wanted = WANTED[precision]
    if not read.get(wanted):
        raise ExportError(
            f"--precision {precision}: in the plan that was built the layers give {dict(read)}; "
            f"wanted {wanted}, so nothing is written"
        )


def read_back(trt: Any, plan: bytes) -> dict[str, int]:
    """Tensors between the layers of the plan itself by type, as TensorRT's inspector tells.

    Needs the GPU that the plan is for.  Raises EngineError where it does not load.
    """
    said: list[str] = []
    runtime = trt.Runtime(make_logger(trt, said))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{title(trt)} does not load the plan that it built: {logged_reason(said)}"
        )
    inspector, context = engine.create_engine_inspector(), engine.create_execution_context()
    if context is not None:  # formats are told only for shapes that are known
        for name in (engine.get_tensor_name(n) for n in range(engine.num_io_tensors)):
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1])
        inspector.execution_context = context
    return reported_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def reported_types(text: str) -> dict[str, int]:
    """Outputs of layers by type, from the inspector's JSON; those that it does not tell are out."""
    try:
        found = json.loads(text)["Layers"]
    except (KeyError, TypeError, ValueError):
        return {}
    outputs = [tensor for layer in found if isinstance(layer, dict) for tensor in _outputs(layer)]
    kinds = [_kind(str(each.get("Format/Datatype", ""))) for each in outputs]
    return dict(Counter(kind for kind in kinds if kind))


def _outputs(layer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in layer.get("Outputs", []) if isinstance(each, dict)]


@functools.cache
def _kind(said: str) -> str:
    low = said.lower()
    return next((kind for kind, pattern in _SAID if re.search(pattern, low)), "")
