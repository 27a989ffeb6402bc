"""TensorRT plans: graph, plan, metadata, and how far the graph strays from the source.

Parity is measured on the plan's own ONNX graph in ONNX Runtime's CPU provider (bfloat16: emulated
in torch); the report says that the plan itself was not executed.
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
from posekit.parity import Parity, compare
from posekit.session import open_cpu_session
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
from posekit_engines.trt.plan import USUAL, PlanOptions

NOT_RUN = "the plan itself was not executed"


@dataclass(frozen=True)
class Machine:
    """Where a plan is built.  gpu: None ahead of time, for TensorRT for RTX."""

    trt: Any
    gpu: Gpu | None


def build_plan_of_bundle(
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
        profile = options.profile or USUAL[options.kind]
        settings = builder.PlanSettings(
            profile, refit=options.refit, version_compatible=options.version_compatible
        )
        told = {**plan_identity(bundle, wanted), "parity": parity}
        return build_checked(Machine(trt, gpu), file, settings, told=told)


def _detector(bundle: Bundle, file: Path) -> dict[str, Any]:
    note = f"of the plan's graph in ONNX Runtime; {NOT_RUN}"
    return {**detector_graph.write(bundle, file), "note": note}


def _pose(bundle: Bundle, file: Path, options: PlanOptions) -> dict[str, Any]:
    outputs: Literal["raw", "points"] = "points" if options.kind == "points" else "raw"
    asked = ExportOptions(outputs=outputs, flip=options.flip, precision=options.precision)
    whole = write_graph(bundle, asked, file)
    return _parity(whole, file, bundle=bundle, options=asked)


@dataclass(frozen=True)
class _Named:
    name: str
    capability: tuple[int, int]


def plan_identity(bundle: Bundle, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Whose plan it is and what it was built for: the head of its metadata."""
    model = {"name": bundle.name, "sha256": bundle.sha256}
    return {"posekit": __version__, "model": model, **wanted}


def build_checked(
    here: Machine, file: Path, settings: builder.PlanSettings, *, told: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """Build, look at what was built, keep TensorRT's timings; the plan and all its metadata."""
    start = perf_counter()
    timing = cache.load_timing_cache(here.trt, here.gpu)
    made = builder.build_plan(
        here.trt, file, replace(settings, timing=timing[1] if timing else None)
    )
    precision = str(told["precision"])
    inspect.check_precision(made.layers, precision, "the network as TensorRT reads it")
    read = inspect.read_back(here.trt, made.data) if here.gpu is not None else None
    if read and _half_ends_of(told):  # elsewhere one fused layer may show its float32 ends alone
        inspect.check_found(read, precision)
    if timing:
        cache.save_timing_cache(timing[0], made.timing)
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


def _where(here: Machine, settings: builder.PlanSettings) -> dict[str, Any]:
    """What the plan is for."""
    gpu = here.gpu
    rtx = is_rtx(here.trt)
    return {
        "library": str(here.trt.__name__),
        "version": str(here.trt.__version__),
        "gpu": None if gpu is None else {"name": gpu.name, "capability": list(gpu.capability)},
        "capabilities": [list(each) for each in RTX_CAPABILITIES] if rtx else None,
        "refit": settings.refit,
        "version_compatible": settings.version_compatible,
    }


def half_io(options: ExportOptions) -> bool:
    """Whether the plan takes and gives float16: the network alone in fp16."""
    return _half_ends_of({"kind": options.outputs, "precision": options.precision})


def _half_ends_of(told: Mapping[str, Any]) -> bool:
    return bool(told["kind"] == "raw" and told["precision"] == "fp16")


def finished_metadata(model: onnx.ModelProto, options: ExportOptions, file: Path) -> dict[str, Any]:
    """The last changes for TensorRT, written; returns what they decided."""
    told: dict[str, Any] = {}
    model = for_tensorrt(model, half=half_io(options))
    if options.precision == "bf16":
        model, told["decided"] = to_bf16(model)
    onnx.save(model, str(file))
    if half_io(options):
        onnx.save(with_float_io(model), str(file.with_name("measured.onnx")))
    return {**told, "contained": dtype_summary(model)}


def write_graph(bundle: Bundle, options: ExportOptions, file: Path) -> onnx.ModelProto:
    """The graph of a bundle's plan at `file`; returns the bundle's own, in float32, stand-alone.

    Raises BundleError, ExportError.
    """
    spec = bundle.pose_spec
    size = 4 * sum(value.size for value in bundle.weights.values())
    if size > MAX_INLINE_BYTES:
        raise ExportError(
            f"{bundle.name}: {size / 1e9:.1f} GB of weights in float32; a plan is made of a graph "
            f"in one piece, up to {MAX_INLINE_BYTES / 1e9:g} GB"
        )
    whole = network_of(bundle)
    if options.outputs == "points":
        whole = points_graph(whole, spec, flip=options.flip)
    given = whole if options.precision == "bf16" else apply_precision(whole, bundle, options)[0]
    finished_metadata(given, options, file)
    return whole


def _parity(
    whole: onnx.ModelProto, file: Path, *, bundle: Bundle, options: ExportOptions
) -> dict[str, Any]:
    """How far the plan's graph strays from the bundle's own. Raises ParityError."""
    if options.precision == "bf16":
        return {"note": f"bfloat16: {NOT_RUN}, nor its graph, which no CPU provider runs"}
    checks = load_check_crops(None, bundle.pose_spec).first(MIN_CROPS)
    measured = file.with_name("measured.onnx") if half_io(options) else file
    found = _compared(whole, measured, checks, bundle=bundle, options=options)
    found.check(options.budget.mean_px, f"{bundle.name}, the plan's graph")
    return {**found.to_dict(), "note": f"of the plan's graph in ONNX Runtime; {NOT_RUN}"}


def _compared(
    whole: onnx.ModelProto,
    file: Path,
    checks: CheckCrops,
    *,
    bundle: Bundle,
    options: ExportOptions,
) -> Parity:
    """Points of the plan's graph against those of the bundle's in float32, both on the CPU."""
    spec = bundle.pose_spec
    decoded: list[tuple[Float32, Float32]] = []
    for graph in (whole.SerializeToString(), file):
        session = open_cpu_session(graph)
        runs = [session.run(None, each) for each in feeds(checks, spec, options)]
        outputs = [np.concatenate(each) for each in zip(*runs, strict=True)]
        raw = options.outputs == "raw"
        decoded.append(codecs.decode(outputs[0], spec) if raw else (outputs[0], outputs[1]))
    source, (points, scores) = decoded
    return compare(points, scores, source, crops=len(checks))
