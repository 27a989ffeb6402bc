"""`posekit export`: a model as one file, folder or bundle, with a report of its parity."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from posekit.atomic import AtomicFiles, explained
from posekit.bundle import Bundle
from posekit.nets import build
from posekit_engines.bundles.reexport import reexport_bundle
from posekit_engines.graphs.weights import load_weights
from posekit_engines.onnx_file import write
from posekit_engines.options import ExportOptions
from posekit_engines.parity.judge import METADATA, PAGE, REPORT, ParityJob, Report, measure_parity


def export(source: Bundle, output: str | Path, options: ExportOptions) -> Report:
    """Write `output` with `<output>.parity.json` and `.parity.html` beside it: all or none.

    source: a bundle, or a checkpoint by `bundle_of_checkpoint`.  Parity is that of the written
    file, run by ONNX Runtime on the CPU, against the torch network in float32 and the numpy
    codecs. Returns the report.
    Raises ExportError, ParityError, SourceError, InputError, MissingExtraError, DeviceError.
    """
    output = Path(output)
    target = options.target(output)
    options.check_for(target)
    options = replace(options, to=target)
    spec = source.pose_spec
    if options.decode is not None:
        spec = replace(spec, decode=options.decode)
    build_plan = _plan_builder(options) if target == "tensorrt" else None
    job = ParityJob(source, spec, load_weights(build(spec), source.weights), options)
    outputs = outputs_of(output, target)
    with AtomicFiles(outputs, overwrite=options.overwrite) as files, explained(output):
        path = files.place(output)
        if build_plan is not None:
            report: Report = build_plan(job, path)
        else:
            report = _WRITERS[target](job, path)
        files.place(outputs[2]).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def outputs_of(output: Path, target: str | None = None) -> list[Path]:
    """The files that an export to `target` may write, `output` first; None: to any target."""
    of_plans = [METADATA] if target in ("tensorrt", None) else []
    suffixes = ["", ".data", REPORT, PAGE, *of_plans]
    return [output.with_name(output.name + suffix) for suffix in suffixes]


def _plan_builder(options: ExportOptions) -> Callable[[ParityJob, Path], Report]:
    """The function that builds TensorRT plans, after a check that this machine can.

    Raises MissingExtraError, DeviceError.
    """
    from posekit_engines.trt.export import build  # an ONNX export needs no TensorRT
    from posekit_engines.trt.library import check_ready

    check_ready(options.library)
    return build


def _onnx(job: ParityJob, path: Path) -> Report:
    contents = _write_timed(job, path)
    page = path.with_name(path.name + PAGE)
    return {"to": "onnx", **measure_parity(job, path, contents, page=page)}


def _write_timed(job: ParityJob, path: Path) -> dict[str, Any]:
    """Write the job's ONNX file; what the report adds of it, with the seconds."""
    start = perf_counter()
    contents = write(job.source, job.net, job.spec, options=job.options, path=path)
    return {**contents, "export_s": round(perf_counter() - start, 1)}


def _triton(job: ParityJob, path: Path) -> Report:
    from posekit_engines import triton  # it looks for TensorRT plans

    name = triton.model_name(path.name)
    version = path / name / "1"
    version.mkdir(parents=True)
    file = version / "model.onnx"
    contents = _write_timed(job, file)
    report = measure_parity(job, file, contents, page=path.with_name(path.name + PAGE))
    plans = triton.describe(path, name, job.source, spec=job.spec, options=job.options)
    return {"to": "triton", **report, "plans": plans}


def _bundle(job: ParityJob, path: Path) -> Report:
    """Parity is that of the points graph in its precision, which then goes into the bundle."""
    file = path.with_name("points.onnx")
    contents = _write_timed(job, file)
    report = measure_parity(job, file, contents, page=path.with_name(path.name + PAGE))
    bundle = reexport_bundle(job.source, job.spec, options=job.options, points=file, parity=report)
    path.write_bytes(bundle.to_bytes())
    report["bytes"] = path.stat().st_size
    return {"to": "bundle", **report}


_WRITERS = {"onnx": _onnx, "triton": _triton, "bundle": _bundle}
