"""A model to one deployable file, folder or bundle, with proof of how far it strays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from posekit.atomic import AtomicFiles, explained
from posekit.bundle import Bundle
from posekit.nets import build
from posekit_engines import triton
from posekit_engines.bundles import reexport
from posekit_engines.graphs.weights import load_weights
from posekit_engines.onnx_file import write
from posekit_engines.options import ExportOptions
from posekit_engines.parity.judge import METADATA, PAGE, REPORT, ParityJob, Report, measure_parity
from posekit_engines.trt.library import check_ready


def export(source: Bundle, output: str | Path, options: ExportOptions) -> Report:
    """Write `output` with `<output>.parity.json` and `.parity.html` beside it, all or none.

    source: a bundle, or a checkpoint as `pack.unpacked` gives it.  Parity is measured on the
    file's own bytes in ONNX Runtime's CPU provider, against the torch network in float32 and the
    numpy codecs. Returns the report.
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
            report = _MAKERS[target](job, path)
        files.place(outputs[2]).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def outputs_of(output: Path, target: str | None = None) -> list[Path]:
    """All that an export to `target` may write, `output` first; None: to any target."""
    ends = ["", ".data", REPORT, PAGE, *([METADATA] if target in ("tensorrt", None) else [])]
    return [output.with_name(output.name + end) for end in ends]


def _plan_builder(options: ExportOptions) -> Callable[[ParityJob, Path], Report]:
    """The maker of plans, once it is known that one can be made here.

    Raises MissingExtraError, DeviceError.
    """
    from posekit_engines.trt import export  # it stands on this module

    check_ready(options.library)
    return export.build


def _onnx(job: ParityJob, path: Path) -> Report:
    start = perf_counter()
    told = write(job.source, job.net, job.spec, options=job.options, path=path)
    told["export_s"] = round(perf_counter() - start, 1)
    return {"to": "onnx", **measure_parity(job, path, told, page=path.with_name(path.name + PAGE))}


def _triton(job: ParityJob, path: Path) -> Report:
    name = triton.model_name(path.name)
    version = path / name / "1"
    version.mkdir(parents=True)
    file = version / "model.onnx"
    start = perf_counter()
    told = write(job.source, job.net, job.spec, options=job.options, path=file)
    told["export_s"] = round(perf_counter() - start, 1)
    report = measure_parity(job, file, told, page=path.with_name(path.name + PAGE))
    plans = triton.describe(path, name, job.source, spec=job.spec, options=job.options)
    return {"to": "triton", **report, "plans": plans}


def _bundle(job: ParityJob, path: Path) -> Report:
    """The points graph in its precision is judged alone, then packed with the rest."""
    start = perf_counter()
    file = path.with_name("points.onnx")
    told = write(job.source, job.net, job.spec, options=job.options, path=file)
    told["export_s"] = round(perf_counter() - start, 1)
    report = measure_parity(job, file, told, page=path.with_name(path.name + PAGE))
    packed = reexport.reexport_bundle(
        job.source, job.spec, options=job.options, points=file, parity=report
    )
    path.write_bytes(packed.to_bytes())
    report["bytes"] = path.stat().st_size
    return {"to": "bundle", **report}


_MAKERS = {"onnx": _onnx, "triton": _triton, "bundle": _bundle}
