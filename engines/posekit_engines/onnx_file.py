"""Stand-alone ONNX: the graph with its weights inside or, where they are many, beside it."""

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

LIMIT = 1_900_000_000
"""Bytes of weights from which they stand in a file of their own: protobuf ends at 2 GiB."""
_CALIBRATE = 64


def graph(
    source: Bundle, net: nn.Module, spec: ModelSpec, *, options: ExportOptions
) -> onnx.ModelProto:
    """The graph that the options ask for, weights external in their types. Raises ExportError."""
    network = network_graph(net, spec, source.weights)
    if options.outputs == "points":
        return points_graph(network, spec, flip=options.flip, affine=options.affine)
    if options.outputs == "heatmaps":
        return heatmaps_graph(network, spec, flip=options.flip)
    return network


def write(
    source: Bundle, net: nn.Module, spec: ModelSpec, *, options: ExportOptions, path: Path
) -> dict[str, Any]:
    """Write the stand-alone file, `.data` beside it where its weights are many; checked in full.

    Returns what is in it. Raises ExportError, InputError; OSError where it cannot be written.
    """
    model = graph(source, net, spec, options=options)
    total = sum(value.nbytes for _, value in external_values(model, source.weights))
    told: dict[str, Any] = {}
    if total > LIMIT:
        if options.precision != "fp32":
            raise ExportError(
                f"{source.name}: {total / 1e9:.1f} GB of weights; --precision "
                f"{options.precision} needs a graph in one piece, up to {LIMIT / 1e9:g} GB"
            )
        write_data(model, source.weights, path.with_name(path.name + ".data"))
    else:
        model, told = precise(inline_weights(model, source.weights), source, options)
    if options.batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = options.batch
    onnx.helper.set_model_props(model, _metadata(source, spec, options))
    path.write_bytes(model.SerializeToString())
    check(path, source.name)
    return {**told, "contained": dtype_summary(model)}


def precise(
    model: onnx.ModelProto, source: Bundle, options: ExportOptions
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone float32 model in the precision asked for, and what was decided on the way.

    Raises ExportError, InputError (too few crops to calibrate with), ParityError (no int8).
    """
    if options.precision == "fp32":
        return model, {}
    spec = source.pose_spec
    if options.precision == "fp16":
        from posekit_engines.precision.fp16 import to_fp16

        done, told = to_fp16(model, feeds(load_check_crops(options.check, spec), spec, options))
        return done, {"decided": told}
    from posekit_engines.precision.int8 import LEAST, to_int8

    # What judges the file is not what it is made with.
    checks = load_check_crops(options.calibrate, spec, count=_CALIBRATE)
    checks = checks.without(load_check_crops(options.check, spec))
    if len(checks) < LEAST:
        raise InputError(
            f"--calibrate {options.calibrate}: {len(checks)} crops beside those of --check, which "
            f"judge; wanted {LEAST} or more: give more pictures"
        )
    done, told = to_int8(model, feeds(checks, spec, options))
    return done, {"calibrated_on": f"{len(checks)} crops, {checks.where}", "decided": told}


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


def check(path: Path, name: str) -> None:
    """Raises ExportError unless the file passes ONNX's full check."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{name}: the exported graph is not valid: {error}") from error
