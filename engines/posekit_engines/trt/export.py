"""`posekit export -o x.plan`: one TensorRT engine as a plan file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from posekit_engines.onnx_file import write
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import CheckCrops
from posekit_engines.parity.judge import (
    METADATA,
    PAGE,
    ParityJob,
    Report,
    RunExport,
    measure_parity,
)
from posekit_engines.parity.outputs import ExportOutputs, source_outputs
from posekit_engines.precision.bf16 import emulate_bf16
from posekit_engines.trt import builder
from posekit_engines.trt.library import gpu_context, library
from posekit_engines.trt.make import (
    NOT_RUN,
    BuildTarget,
    build_checked,
    half_io,
    plan_identity,
    write_for_tensorrt,
)
from posekit_engines.trt.plan import DEFAULT_PROFILES, graph_hash


def build(job: ParityJob, path: Path) -> Report:
    """Write the plan at `path`, `<path>.json` and the page beside it; returns the parity report.

    Raises ExportError, EngineError, ParityError, DeviceError, MissingExtraError.
    """
    start = perf_counter()
    options = job.options
    trt = library(options.library)
    with tempfile.TemporaryDirectory(dir=path.parent) as inside, gpu_context(trt) as gpu:
        file = Path(inside) / "graph.onnx"
        contents = _write_graph(job, file)
        settings = builder.BuilderSettings(
            _profile(options),
            refit=options.refit,
            version_compatible=options.version_compatible,
        )
        target = BuildTarget(trt, gpu)
        wanted = {
            "kind": options.outputs,
            "precision": options.precision,
            "flip": options.merges,
            "decode": job.spec.decode,
            "affine": options.affine,
            "graph": graph_hash(job.source),
        }
        identity = plan_identity(job.source, wanted)
        data, metadata = build_checked(target, file, settings, identity=identity)
        path.write_bytes(data)
        path.with_name(path.name + METADATA).write_text(json.dumps(metadata, indent=1) + "\n")
        facts = {**contents, "plan": metadata, "bytes": len(data), "runtime": _runtime(options)}
        facts["export_s"] = round(perf_counter() - start, 1)
        run = _emulated(job) if options.precision == "bf16" else None
        measured = file.with_name("measured.onnx") if half_io(options) else file
        page = path.with_name(path.name + PAGE)
        report = measure_parity(job, measured, facts, page=page, run_export=run)
    return {"to": "tensorrt", **report}


def _profile(options: ExportOptions) -> builder.Profile:
    if options.batch is not None:
        return (options.batch,) * 3
    return options.profile or DEFAULT_PROFILES[options.outputs]


def _write_graph(job: ParityJob, file: Path) -> dict[str, Any]:
    """Write the graph of an export to `file`, and with float16 ends also `measured.onnx` beside it.

    Raises ExportError.
    """
    options = job.options
    written = replace(options, precision="fp32") if options.precision == "bf16" else options
    contents = write(job.source, job.net, job.spec, options=written, path=file)
    model = onnx.load(str(file), load_external_data=False)
    return {**contents, **write_for_tensorrt(model, options, file)}


def _runtime(options: ExportOptions) -> str:
    """What ran the graph when parity was measured."""
    if options.precision == "bf16":
        return f"torch {torch.__version__}: bfloat16 emulated on the CPU; {NOT_RUN}"
    return f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider: engine's graph; {NOT_RUN}"


def _emulated(job: ParityJob) -> RunExport:
    """Outputs of an emulation in torch instead of the file, which nothing on a CPU can run."""

    def run(checks: CheckCrops) -> ExportOutputs:
        net = emulate_bf16(job.net)
        found = source_outputs(net, checks.crops, job.spec, flip=job.options.merges)
        broken = int((~np.isfinite(found.maps)).sum())
        every = range(len(checks))
        return ExportOutputs(found.points, found.scores, found.crop_s, found.maps, every, broken)

    return run
