"""A stand-alone ONNX file: the graph with its weights inside or, where large, beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from posekit.bundle import Bundle
from posekit.errors import ExportError, InputError
from posekit.types import ModelSpec
from posekit.version import __version__
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import heatmaps_graph, points_graph
from posekit_engines.graphs.weights import external_values, inline_weights, write_data
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import load_check_crops
from posekit_engines.parity.feeds import feeds

MAX_INLINE_BYTES = 1_900_000_000
"""More bytes of weights go to a file of their own: protobuf's limit is 2 GiB."""
_CALIBRATION_CROPS = 64


def graph(
    source: Bundle, net: nn.Module, spec: ModelSpec, *, options: ExportOptions
) -> onnx.ModelProto:
    """The graph with the requested outputs, weights external. Raises ExportError."""
    network = network_graph(net, spec, source.weights)
    if options.outputs == "points":
        return points_graph(network, spec, flip=options.flip, affine=options.affine)
    if options.outputs == "heatmaps":
        return heatmaps_graph(network, spec, flip=options.flip)
    return network


def write(
    source: Bundle, net: nn.Module, spec: ModelSpec, *, options: ExportOptions, path: Path
) -> dict[str, Any]:
    """Write the file, and `.data` beside it where its weights are large; ONNX checks it in full.

    Returns what the report adds of it. Raises ExportError, InputError, ParityError (no int8);
    OSError where it cannot be written.
    """
    model = graph(source, net, spec, options=options)
    total = sum(value.nbytes for _, value in external_values(model, source.weights))
    decisions: dict[str, Any] = {}
    if total > MAX_INLINE_BYTES:
        if options.precision != "fp32":
            raise ExportError(
                f"{source.name}: {total / 1e9:.1f} GB of weights; --precision "
                f"{options.precision} needs a single file, up to {MAX_INLINE_BYTES / 1e9:g} GB"
            )
        write_data(model, source.weights, path.with_name(path.name + ".data"))
    else:
        inlined = inline_weights(model, source.weights)
        model, decisions = apply_precision(inlined, source, options)
    if options.batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = options.batch
    onnx.helper.set_model_props(model, _metadata(source, spec, options))
    path.write_bytes(model.SerializeToString())
    check_file(path, source.name)
    return {**decisions, "contained": dtype_summary(model)}


def apply_precision(
    model: onnx.ModelProto, source: Bundle, options: ExportOptions
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone float32 model in the requested precision, and what was decided for that.

    Raises ExportError, InputError (too few crops to calibrate with), ParityError (no int8).
    """
    if options.precision == "fp32":
        return model, {}
    spec = source.pose_spec
    if options.precision == "fp16":
        from posekit_engines.precision.fp16 import to_fp16

        checks = load_check_crops(options.check, spec)
        converted, decided = to_fp16(model, feeds(checks, spec, options))
        return converted, {"decided": decided}
    from posekit_engines.precision.int8 import MIN_CROPS, to_int8

    # Parity is measured on other crops than those that calibrate.
    checks = load_check_crops(options.calibrate, spec, count=_CALIBRATION_CROPS)
    checks = checks.without(load_check_crops(options.check, spec))
    if len(checks) < MIN_CROPS:
        raise InputError(
            f"--calibrate {options.calibrate}: {len(checks)} crops that --check does not use; "
            f"wanted {MIN_CROPS} or more: give more images"
        )
    converted, decided = to_int8(model, feeds(checks, spec, options), spec=spec)
    return converted, {"calibrated_on": f"{len(checks)} crops, {checks.where}", "decided": decided}


def _metadata(source: Bundle, spec: ModelSpec, options: ExportOptions) -> dict[str, str]:
    return {
        "posekit": __version__,
        "name": source.name,
        "source_sha256": source.sha256,
        "outputs": "points in frame px (--affine)" if options.affine else options.outputs,
        "flip": json.dumps(options.merges),
        "precision": options.precision,
        "spec": json.dumps(spec.to_dict()),
    }


def check_file(path: Path, name: str) -> None:
    """Raises ExportError unless the file passes ONNX's full check."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{name}: the exported graph is not valid: {error}") from error
