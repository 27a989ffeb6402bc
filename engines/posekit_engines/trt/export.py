"""`posekit export -o x.plan`: one TensorRT plan as a file."""

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
    Machine,
    build_checked,
    finished_metadata,
    half_io,
    plan_identity,
)
from posekit_engines.trt.plan import USUAL, graph_hash


def build(job: ParityJob, path: Path) -> Report:
    """Write the plan at `path`, `<path>.json` and the page beside it; returns the parity report.

    Raises ExportError, EngineError, ParityError, DeviceError, MissingExtraError.
    """
    start = perf_counter()
    options = job.options
    trt = library(options.library)
    with tempfile.TemporaryDirectory(dir=path.parent) as inside, gpu_context(trt) as gpu:
        file = Path(inside) / "graph.onnx"
        told = _write_graph(job, file)
        settings = builder.PlanSettings(
            _profile(options),
            refit=options.refit,
            version_compatible=options.version_compatible,
        )
        here = Machine(trt, gpu)
        wanted = {
            "kind": options.outputs,
            "precision": options.precision,
            "flip": options.merges,
            "decode": job.spec.decode,
            "affine": options.affine,
            "graph": graph_hash(job.source),
        }
        data, metadata = build_checked(here, file, settings, told=plan_identity(job.source, wanted))
        path.write_bytes(data)
        path.with_name(path.name + METADATA).write_text(json.dumps(metadata, indent=1) + "\n")
        said = {**told, "plan": metadata, "bytes": len(data), "runtime": _runtime(options)}
        said["export_s"] = round(perf_counter() - start, 1)
        run = _emulated(job) if options.precision == "bf16" else None
        measured = file.with_name("measured.onnx") if half_io(options) else file
        page = path.with_name(path.name + PAGE)
        report = measure_parity(job, measured, said, page=page, run_export=run)
    return {"to": "tensorrt", **report}


def _profile(options: ExportOptions) -> builder.Range:
    if options.batch is not None:
        return (options.batch,) * 3
    return options.profile or USUAL[options.outputs]


def _write_graph(job: ParityJob, file: Path) -> dict[str, Any]:
    """The graph of an export at `file`, and where its ends are float16 `measured.onnx` beside it.

    Raises ExportError.
    """
    options = job.options
    plain = replace(options, precision="fp32") if options.precision == "bf16" else options
    told = write(job.source, job.net, job.spec, options=plain, path=file)
    model = onnx.load(str(file), load_external_data=False)
    return {**told, **finished_metadata(model, options, file)}


def _runtime(options: ExportOptions) -> str:
    """What answered when parity was measured."""
    if options.precision == "bf16":
        return f"torch {torch.__version__}: bfloat16 emulated on the CPU; {NOT_RUN}"
    return (
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider: the plan's graph; {NOT_RUN}"
    )


def _emulated(job: ParityJob) -> RunExport:
    """Runs an emulation in torch in place of the file, which nothing on a CPU runs."""

    def run(checks: CheckCrops) -> ExportOutputs:
        net = emulate_bf16(job.net)
        found = source_outputs(net, checks.crops, job.spec, flip=job.options.merges)
        broken = int((~np.isfinite(found.maps)).sum())
        every = range(len(checks))
        return ExportOutputs(found.points, found.scores, found.crop_s, found.maps, every, broken)

    return run
