"""Make a TensorRT plan: graph, engine, metadata, and the graph's parity with its source.

Parity is measured on the engine's own ONNX graph in ONNX Runtime's CPU provider (bfloat16: emulated
in torch); the report states that the engine itself was not executed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import onnx

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import ExportError
from posekit.inference.session import open_cpu_session
from posekit.stats.parity import Parity, compare
from posekit.types import Float32
from posekit.version import __version__
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.points import points_graph
from posekit_engines.onnx_file import MAX_INLINE_BYTES, apply_precision
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import MIN_CROPS, CheckCrops, load_check_crops
from posekit_engines.parity.feeds import feeds
from posekit_engines.precision.bf16 import to_bf16
from posekit_engines.trt import builder, cache, detector_graph, inspect
from posekit_engines.trt.graph import for_tensorrt, network_of, with_float_io
from posekit_engines.trt.library import RTX_CAPABILITIES, Gpu, is_rtx
from posekit_engines.trt.plan import DEFAULT_PROFILES, PlanOptions

NOT_RUN = "the engine itself was not executed"


@dataclass(frozen=True)
class BuildTarget:
    """TensorRT's module and the GPU to build for.  gpu: None for TensorRT for RTX without one."""

    trt: Any
    gpu: Gpu | None


def build_plan_of_bundle(
    bundle: Bundle, wanted: Mapping[str, Any], *, trt: Any, options: PlanOptions
) -> tuple[bytes, dict[str, Any]]:
    """The plan of a bundle and its metadata, which has `wanted` (see `plan.requirements`) in it.

    Raises ExportError, EngineError, DeviceError, ParityError (its graph is over its budget).
    """
    gpu = None if wanted["gpu"] is None else _NamedGpu(**wanted["gpu"])
    with tempfile.TemporaryDirectory() as inside:
        file = Path(inside) / "graph.onnx"
        parity = (
            _write_detector(bundle, file)
            if options.kind == "detect"
            else _write_pose(bundle, file, options)
        )
        profile = options.profile or DEFAULT_PROFILES[options.kind]
        settings = builder.BuilderSettings(
            profile, refit=options.refit, version_compatible=options.version_compatible
        )
        identity = {**plan_identity(bundle, wanted), "parity": parity}
        return build_checked(BuildTarget(trt, gpu), file, settings, identity=identity)


def _write_detector(bundle: Bundle, file: Path) -> dict[str, Any]:
    """Write the graph; returns its parity."""
    note = f"of the engine's graph in ONNX Runtime; {NOT_RUN}"
    return {**detector_graph.write_detector_graph(bundle, file), "note": note}


def _write_pose(bundle: Bundle, file: Path, options: PlanOptions) -> dict[str, Any]:
    """Write the graph; returns its parity."""
    outputs: Literal["raw", "points"] = "points" if options.kind == "points" else "raw"
    requested = ExportOptions(outputs=outputs, flip=options.flip, precision=options.precision)
    source_graph = write_graph(bundle, requested, file)
    return _measure_parity(source_graph, file, bundle=bundle, options=requested)


@dataclass(frozen=True)
class _NamedGpu:
    name: str
    capability: tuple[int, int]


def plan_identity(bundle: Bundle, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """First entries of a plan's metadata: its model and what it was built for."""
    model = {"name": bundle.name, "sha256": bundle.sha256}
    return {"posekit": __version__, "model": model, **wanted}


def build_checked(
    target: BuildTarget,
    file: Path,
    settings: builder.BuilderSettings,
    *,
    identity: Mapping[str, Any],
) -> tuple[bytes, dict[str, Any]]:
    """Build, check the precision of the result, save TensorRT's timings; plan and metadata.

    Raises ExportError, EngineError, DeviceError, InputError.
    """
    start = perf_counter()
    timings = cache.load_timing_cache(target.trt, target.gpu)
    with_timings = replace(settings, timing_cache=timings[1] if timings else None)
    engine = builder.build_engine(target.trt, file, with_timings)
    precision = str(identity["precision"])
    inspect.check_precision(engine.layers, precision, "the network as TensorRT reads it")
    dtypes = inspect.engine_dtypes(target.trt, engine.data) if target.gpu is not None else None
    # where the ends are float32, one fused layer may show only those
    if dtypes and _has_half_io(str(identity["kind"]), precision):
        inspect.check_engine_precision(dtypes, precision)
    if timings:
        cache.save_timing_cache(timings[0], engine.timing_cache)
    return engine.data, {
        **identity,
        **_target_metadata(target, settings),
        "onnx": hashlib.sha256(file.read_bytes()).hexdigest(),
        "profile": list(settings.profile),
        "shapes": engine.profile,
        "inputs": engine.inputs,
        "outputs": engine.outputs,
        "multiplies": dict(engine.layers),
        "read_back": dtypes if dtypes is not None else f"not read: no GPU here; {NOT_RUN}",
        "warnings": list(engine.messages),
        "build_s": round(perf_counter() - start, 1),
        "bytes": len(engine.data),
        "sha256": hashlib.sha256(engine.data).hexdigest(),
    }


def _target_metadata(target: BuildTarget, settings: builder.BuilderSettings) -> dict[str, Any]:
    """Metadata of what the plan runs on."""
    gpu = target.gpu
    rtx = is_rtx(target.trt)
    return {
        "library": str(target.trt.__name__),
        "version": str(target.trt.__version__),
        "gpu": None if gpu is None else {"name": gpu.name, "capability": list(gpu.capability)},
        "capabilities": [list(each) for each in RTX_CAPABILITIES] if rtx else None,
        "refit": settings.refit,
        "version_compatible": settings.version_compatible,
    }


def half_io(options: ExportOptions) -> bool:
    """Whether the engine's input and output are float16: the network alone in fp16."""
    return _has_half_io(options.outputs, options.precision)


def _has_half_io(kind: str, precision: str) -> bool:
    return kind == "raw" and precision == "fp16"


def write_for_tensorrt(
    model: onnx.ModelProto, options: ExportOptions, file: Path
) -> dict[str, Any]:
    """Convert a graph for TensorRT and write it to `file`; returns what is decided and contained.

    A graph with float16 ends is also written as `measured.onnx`, with float32 ends.
    """
    report: dict[str, Any] = {}
    model = for_tensorrt(model, half=half_io(options))
    if options.precision == "bf16":
        model, report["decided"] = to_bf16(model)
    onnx.save(model, str(file))
    if half_io(options):
        onnx.save(with_float_io(model), str(file.with_name("measured.onnx")))
    return {**report, "contained": dtype_summary(model)}


def write_graph(bundle: Bundle, options: ExportOptions, file: Path) -> onnx.ModelProto:
    """Write the graph of a bundle's engine; returns the bundle's own in float32, stand-alone.

    Raises BundleError, ExportError.
    """
    spec = bundle.pose_spec
    size = 4 * sum(value.size for value in bundle.weights.values())
    if size > MAX_INLINE_BYTES:
        raise ExportError(
            f"{bundle.name}: {size / 1e9:.1f} GB of weights in float32; an engine is built from a "
            f"graph in one file, up to {MAX_INLINE_BYTES / 1e9:g} GB"
        )
    whole = network_of(bundle)
    if options.outputs == "points":
        whole = points_graph(whole, spec, flip=options.flip)
    converted = whole if options.precision == "bf16" else apply_precision(whole, bundle, options)[0]
    write_for_tensorrt(converted, options, file)
    return whole


def _measure_parity(
    source_graph: onnx.ModelProto, file: Path, *, bundle: Bundle, options: ExportOptions
) -> dict[str, Any]:
    """Deviation of the engine's graph from the bundle's own. Raises ParityError."""
    if options.precision == "bf16":
        return {"note": f"bfloat16: {NOT_RUN}, nor its graph, which no CPU provider runs"}
    checks = load_check_crops(None, bundle.pose_spec).first(MIN_CROPS)
    measured = file.with_name("measured.onnx") if half_io(options) else file
    parity = _compare_graphs(source_graph, measured, checks, bundle=bundle, options=options)
    parity.check(options.budget.mean_px, f"{bundle.name}, the engine's graph")
    return {**parity.to_dict(), "note": f"of the engine's graph in ONNX Runtime; {NOT_RUN}"}


def _compare_graphs(
    source_graph: onnx.ModelProto,
    file: Path,
    checks: CheckCrops,
    *,
    bundle: Bundle,
    options: ExportOptions,
) -> Parity:
    """Points of the engine's graph against those of the bundle's in float32, both on the CPU."""
    spec = bundle.pose_spec
    decoded: list[tuple[Float32, Float32]] = []
    for graph in (source_graph.SerializeToString(), file):
        session = open_cpu_session(graph)
        runs = [session.run(None, each) for each in feeds(checks, spec, options)]
        outputs = [np.concatenate(each) for each in zip(*runs, strict=True)]
        raw = options.outputs == "raw"
        decoded.append(codecs.decode(outputs[0], spec) if raw else (outputs[0], outputs[1]))
    source, (points, scores) = decoded
    return compare(points, scores, source, crops=len(checks))
