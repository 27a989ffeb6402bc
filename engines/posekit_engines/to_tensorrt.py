"""TensorRT plans: graph, plan, metadata, and how far the graph strays from the source.

Parity is measured on the plan's own ONNX graph in ONNX Runtime's CPU provider (bfloat16: emulated
in torch); the report says that the plan itself was not executed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch

from posekit import __version__, codecs
from posekit.bundle import Bundle
from posekit.errors import ExportError
from posekit.shift import Parity, compare
from posekit.types import Float32
from posekit_engines import engine_cache, plan, plan_detect
from posekit_engines.crops import LEAST, Checks, crops_of
from posekit_engines.engine_cache import Gpu, PlanOptions
from posekit_engines.export import METADATA, PAGE, Ask, Job, Report, judged
from posekit_engines.graph import points_graph
from posekit_engines.options import ExportOptions
from posekit_engines.plan_graph import float_ends, network_of, suited
from posekit_engines.precision import contained, emulate_bf16, to_bf16
from posekit_engines.standalone import LIMIT, feeds, precise, write
from posekit_engines.strays import Given, truth

NOT_RUN = "the plan itself was not executed"


@dataclass(frozen=True)
class _Machine:
    """Where a plan is built.  gpu: None ahead of time, for TensorRT for RTX."""

    trt: Any
    gpu: Gpu | None


def build(job: Job, path: Path) -> Report:
    """Write the plan at `path`, `<path>.json` and the page beside it; returns the parity report.

    Raises ExportError, EngineError, ParityError, DeviceError, MissingExtraError.
    """
    start = perf_counter()
    options = job.options
    trt = engine_cache.library(options.library)
    with tempfile.TemporaryDirectory(dir=path.parent) as inside, engine_cache.machine(trt) as gpu:
        file = Path(inside) / "graph.onnx"
        told = _write_graph(job, file)
        settings = plan.PlanSettings(
            _profile(options),
            refit=options.refit,
            version_compatible=options.version_compatible,
        )
        here = _Machine(trt, gpu)
        wanted = {
            "kind": options.outputs,
            "precision": options.precision,
            "flip": options.merges,
            "decode": job.spec.decode,
            "affine": options.affine,
            "graph": engine_cache.graph_hash(job.source),
        }
        data, metadata = _planned(here, file, settings, told=_named(job.source, wanted))
        path.write_bytes(data)
        path.with_name(path.name + METADATA).write_text(json.dumps(metadata, indent=1) + "\n")
        said = {**told, "plan": metadata, "bytes": len(data), "runtime": _runtime(options)}
        said["export_s"] = round(perf_counter() - start, 1)
        ask = _emulated(job) if options.precision == "bf16" else None
        measured = file.with_name("measured.onnx") if _half_ends(options) else file
        report = judged(job, measured, said, page=path.with_name(path.name + PAGE), ask=ask)
    return {"to": "tensorrt", **report}


def _profile(options: ExportOptions) -> plan.Range:
    if options.batch is not None:
        return (options.batch,) * 3
    return options.profile or engine_cache.USUAL[options.outputs]


def make(
    bundle: Bundle, wanted: Mapping[str, Any], *, trt: Any, options: PlanOptions
) -> tuple[bytes, dict[str, Any]]:
    """The plan of a bundle and its metadata, `wanted` (see `engine_cache.wish`) in it.

    Raises ExportError, EngineError, DeviceError, ParityError (its graph strays over its budget).
    """
    gpu = None if wanted["gpu"] is None else _Named(**wanted["gpu"])
    with tempfile.TemporaryDirectory() as inside:
        file = Path(inside) / "graph.onnx"
        parity = (
            _detector(bundle, file) if options.kind == "detect" else _pose(bundle, file, options)
        )
        profile = options.profile or engine_cache.USUAL[options.kind]
        settings = plan.PlanSettings(
            profile, refit=options.refit, version_compatible=options.version_compatible
        )
        told = {**_named(bundle, wanted), "parity": parity}
        return _planned(_Machine(trt, gpu), file, settings, told=told)


def _detector(bundle: Bundle, file: Path) -> dict[str, Any]:
    note = f"of the plan's graph in ONNX Runtime; {NOT_RUN}"
    return {**plan_detect.write(bundle, file), "note": note}


def _pose(bundle: Bundle, file: Path, options: PlanOptions) -> dict[str, Any]:
    outputs: Literal["raw", "points"] = "points" if options.kind == "points" else "raw"
    asked = ExportOptions(outputs=outputs, flip=options.flip, precision=options.precision)
    whole = write_graph(bundle, asked, file)
    return _parity(whole, file, bundle=bundle, options=asked)


@dataclass(frozen=True)
class _Named:
    name: str
    capability: tuple[int, int]


def _named(bundle: Bundle, wanted: Mapping[str, Any]) -> dict[str, Any]:
    model = {"name": bundle.name, "sha256": bundle.sha256}
    return {"posekit": __version__, "model": model, **wanted}


def _planned(
    here: _Machine, file: Path, settings: plan.PlanSettings, *, told: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """Build, look at what was built, keep TensorRT's timings; the plan and all its metadata."""
    start = perf_counter()
    timing = engine_cache.timing(here.trt, here.gpu)
    made = plan.build_plan(here.trt, file, replace(settings, timing=timing[1] if timing else None))
    precision = str(told["precision"])
    plan.check_precision(made.layers, precision, "the network as TensorRT reads it")
    read = plan.read_back(here.trt, made.data) if here.gpu is not None else None
    if read and _half_ends_of(told):  # elsewhere one fused layer may show its float32 ends alone
        plan.check_found(read, precision)
    if timing:
        engine_cache.keep_timing(timing[0], made.timing)
    return made.data, {
        **told,
        **_where(here, settings),
        "onnx": hashlib.sha256(file.read_bytes()).hexdigest(),
        "profile": list(settings.profile),
        "shapes": made.profile,
        "inputs": made.inputs,
        "outputs": made.outputs,
        "multiplies": dict(made.layers),
        "read_back": read if read is not None else f"not read: no GPU here; {NOT_RUN}",
        "warnings": list(made.said),
        "build_s": round(perf_counter() - start, 1),
        "bytes": len(made.data),
        "sha256": hashlib.sha256(made.data).hexdigest(),
    }


def _where(here: _Machine, settings: plan.PlanSettings) -> dict[str, Any]:
    """What the plan is for."""
    gpu = here.gpu
    rtx = engine_cache.is_rtx(here.trt)
    return {
        "library": str(here.trt.__name__),
        "version": str(here.trt.__version__),
        "gpu": None if gpu is None else {"name": gpu.name, "capability": list(gpu.capability)},
        "capabilities": [list(each) for each in engine_cache.RTX_CAPABILITIES] if rtx else None,
        "refit": settings.refit,
        "version_compatible": settings.version_compatible,
    }


def _half_ends(options: ExportOptions) -> bool:
    """Whether the plan takes and gives float16: the network alone in fp16."""
    return _half_ends_of({"kind": options.outputs, "precision": options.precision})


def _half_ends_of(told: Mapping[str, Any]) -> bool:
    return bool(told["kind"] == "raw" and told["precision"] == "fp16")


def _write_graph(job: Job, file: Path) -> dict[str, Any]:
    """The graph of an export at `file`, and where its ends are float16 `measured.onnx` beside it.

    Raises ExportError.
    """
    options = job.options
    plain = replace(options, precision="fp32") if options.precision == "bf16" else options
    told = write(job.source, job.net, job.spec, options=plain, path=file)
    model = onnx.load(str(file), load_external_data=False)
    return {**told, **_finished(model, options, file)}


def _finished(model: onnx.ModelProto, options: ExportOptions, file: Path) -> dict[str, Any]:
    """The last changes for TensorRT, written; returns what they decided."""
    told: dict[str, Any] = {}
    model = suited(model, half=_half_ends(options))
    if options.precision == "bf16":
        model, told["decided"] = to_bf16(model)
    onnx.save(model, str(file))
    if _half_ends(options):
        onnx.save(float_ends(model), str(file.with_name("measured.onnx")))
    return {**told, "contained": contained(model)}


def write_graph(bundle: Bundle, options: ExportOptions, file: Path) -> onnx.ModelProto:
    """The graph of a bundle's plan at `file`; returns the bundle's own, in float32, stand-alone.

    Raises BundleError, ExportError.
    """
    spec = bundle.pose_spec
    size = 4 * sum(value.size for value in bundle.weights.values())
    if size > LIMIT:
        raise ExportError(
            f"{bundle.name}: {size / 1e9:.1f} GB of weights in float32; a plan is made of a graph "
            f"in one piece, up to {LIMIT / 1e9:g} GB"
        )
    whole = network_of(bundle)
    if options.outputs == "points":
        whole = points_graph(whole, spec, flip=options.flip)
    given = whole if options.precision == "bf16" else precise(whole, bundle, options)[0]
    _finished(given, options, file)
    return whole


def _parity(
    whole: onnx.ModelProto, file: Path, *, bundle: Bundle, options: ExportOptions
) -> dict[str, Any]:
    """How far the plan's graph strays from the bundle's own. Raises ParityError."""
    if options.precision == "bf16":
        return {"note": f"bfloat16: {NOT_RUN}, nor its graph, which no CPU provider runs"}
    checks = crops_of(None, bundle.pose_spec).first(LEAST)
    measured = file.with_name("measured.onnx") if _half_ends(options) else file
    found = _compared(whole, measured, checks, bundle=bundle, options=options)
    found.check(options.budget.mean_px, f"{bundle.name}, the plan's graph")
    return {**found.to_dict(), "note": f"of the plan's graph in ONNX Runtime; {NOT_RUN}"}


def _compared(
    whole: onnx.ModelProto, file: Path, checks: Checks, *, bundle: Bundle, options: ExportOptions
) -> Parity:
    """Points of the plan's graph against those of the bundle's in float32, both on the CPU."""
    spec = bundle.pose_spec
    answers: list[tuple[Float32, Float32]] = []
    for graph in (whole.SerializeToString(), str(file)):
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        parts = [session.run(None, each) for each in feeds(checks, spec, options)]
        outputs = [np.concatenate(each) for each in zip(*parts, strict=True)]
        raw = options.outputs == "raw"
        answers.append(codecs.decode(outputs[0], spec) if raw else (outputs[0], outputs[1]))
    source, (points, scores) = answers
    return compare(points, scores, source, crops=len(checks))


def _runtime(options: ExportOptions) -> str:
    """What answered when parity was measured."""
    if options.precision == "bf16":
        return f"torch {torch.__version__}: bfloat16 emulated on the CPU; {NOT_RUN}"
    return (
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider: the plan's graph; {NOT_RUN}"
    )


def _emulated(job: Job) -> Ask:
    """Asks torch in place of the file, which nothing on a CPU runs."""

    def ask(checks: Checks) -> Given:
        net = emulate_bf16(job.net)
        found = truth(net, checks.crops, job.spec, flip=job.options.merges)
        broken = int((~np.isfinite(found.maps)).sum())
        every = range(len(checks))
        return Given(found.points, found.scores, found.crop_s, found.maps, every, broken)

    return ask
