"""A bundle to one stand-alone ONNX file, with proof of how far it strays from its source."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from torch import nn

from posekit import __version__, codecs
from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import ExportError, InputError, SourceError
from posekit.nets import build
from posekit.types import Decode, ModelSpec, UInt8
from posekit_engines.graph import heatmaps_graph, points_graph
from posekit_engines.pack import check_crops, loaded
from posekit_engines.parity import Parity, compare, normalised, source_answer
from posekit_engines.to_onnx import inline_weights, network_graph

Outputs = Literal["points", "heatmaps", "raw"]


@dataclass(frozen=True)
class ExportOptions:
    """outputs: points (crops to keypoints), heatmaps (crops to merged maps) or raw (the network
    alone on a normalised image).  flip: with the flip test inside; raw has none.
    decode: None for the model's own.  batch: a fixed N, None for any.
    budget_px: largest mean shift from the source network.
    """

    outputs: Outputs = "points"
    flip: bool = True
    decode: Decode | None = None
    batch: int | None = None
    budget_px: float = 0.05
    overwrite: bool = False


def export_onnx(source: Bundle, output: str | Path, options: ExportOptions) -> Parity:
    """Write `output` and `<output>.parity.json`, both or neither.

    Parity is measured on the file's own bytes in ONNX Runtime's CPU provider, against the torch
    network in float32 and the numpy codecs.
    Raises ExportError, ParityError, SourceError, InputError.
    """
    output = Path(output)
    report = output.with_name(output.name + ".parity.json")
    for path in (output, report):
        if path.exists() and not options.overwrite:
            raise SourceError(f"{path}: exists; choose another -o or pass --overwrite")
    spec = source.pose_spec
    if options.decode is not None:
        spec = replace(spec, decode=options.decode)
    if options.batch is not None and options.batch < 1:
        raise InputError(f"--batch {options.batch}: wanted 1 or more")
    net = loaded(build(spec), source.weights)
    data = _model(net, source, spec, options=options).SerializeToString()
    parity = measure(data, net, spec, options=options, crops=_crops(source, spec, options))
    parity.check(options.budget_px, str(output))
    said = {
        "posekit": __version__,
        "model": {"name": source.name, "sha256": source.sha256},
        "outputs": options.outputs,
        "flip": options.flip and options.outputs != "raw",
        "decode": spec.decode,
        "precision": "fp32",
        "runtime": f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider",
        "budget_px": options.budget_px,
        **parity.to_dict(),
    }
    write_atomic(output, data)
    write_atomic(report, json.dumps(said, indent=1) + "\n")
    return parity


def _model(
    net: nn.Module, source: Bundle, spec: ModelSpec, *, options: ExportOptions
) -> onnx.ModelProto:
    """The stand-alone graph, checked in full, with the spec in its metadata."""
    model = network_graph(net, spec)
    if options.outputs == "points":
        model = points_graph(model, spec, flip=options.flip)
    elif options.outputs == "heatmaps":
        model = heatmaps_graph(model, spec, flip=options.flip)
    model = inline_weights(model, source.weights)
    for value in (*model.graph.input, *model.graph.output):
        if options.batch is not None:
            value.type.tensor_type.shape.dim[0].dim_value = options.batch
    said = {
        "posekit": __version__,
        "name": source.name,
        "source_sha256": source.sha256,
        "outputs": options.outputs,
        "flip": json.dumps(options.flip and options.outputs != "raw"),
        "spec": json.dumps(spec.to_dict()),
    }
    onnx.helper.set_model_props(model, said)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{source.name}: the exported graph is not valid: {error}") from error
    return model


def _crops(source: Bundle, spec: ModelSpec, options: ExportOptions) -> UInt8:
    crops: UInt8 = source.reference.get("crops", np.zeros(0, np.uint8))
    crops = crops if len(crops) else check_crops(spec)
    return crops if options.batch is None else np.resize(crops, (options.batch, *crops.shape[1:]))


def measure(
    data: bytes, net: nn.Module, spec: ModelSpec, *, options: ExportOptions, crops: UInt8
) -> Parity:
    """Run an exported file's bytes and compare with the source; maps are decoded by codecs."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    flip = options.flip and options.outputs != "raw"
    source = source_answer(net, crops, spec, flip=flip)
    if options.outputs == "points":
        points, scores = session.run(["points", "scores"], {"crops": crops})
        return compare(points, scores, source, crops=len(crops))
    raw = options.outputs == "raw"
    given = {"image": normalised(crops, spec)} if raw else {"crops": crops}
    (maps,) = session.run(["heatmaps"], given)
    points, scores = codecs.decode(maps, spec)
    return compare(points, scores, source, crops=len(crops))
