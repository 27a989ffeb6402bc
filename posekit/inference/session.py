"""ONNX Runtime sessions: every one is opened here, with weights supplied in memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Weights
from posekit.errors import BundleError, EngineError
from posekit.inference.providers import (
    CPU,
    Device,
    cgroup_cpus,
    check_onnxruntime,
    check_used,
    loading,
    wanted,
)
from posekit.inputs.onnx_scan import check_supplied
from posekit.inputs.parsing import number, reason
from posekit.types import UInt8

if TYPE_CHECKING:
    import onnxruntime

MOST_THREADS = 1024


def usable_threads() -> int:
    """CPU threads that this process may use: its affinity, and its container's share of CPUs."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    granted = cgroup_cpus()
    return count if granted is None else min(count, math.ceil(granted))


def resolve_threads(threads: int | None) -> int:
    """The requested number of CPU threads, for None all usable ones. Raises InputError."""
    if threads is None:
        return usable_threads()
    return int(number(threads, name="threads", low=1, high=MOST_THREADS, whole=True))


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """How many crops the graph takes at a time, where it takes no other number."""
    count = session.get_inputs()[0].shape[0]
    return count if isinstance(count, int) else None


def filled(crops: UInt8, batch: int) -> list[UInt8]:
    """Crops (N, H, W, 3) in parts of exactly `batch`, the last one filled up with black."""
    missing = np.zeros((-len(crops) % batch, *crops.shape[1:]), np.uint8)
    whole = np.concatenate([crops, missing]) if len(missing) else crops
    return np.split(whole, len(whole) // batch)


def run_graph(session: onnxruntime.InferenceSession, crops: UInt8) -> list[NDArray[Any]]:
    """The session's outputs for one crop or more, (N, H, W, 3), its only input.

    Raises EngineError: it cannot be run, such as for lack of memory.
    """
    name, batch = session.get_inputs()[0].name, fixed_batch(session)
    parts = [crops] if batch is None else filled(crops, batch)
    try:
        results = [session.run(None, {name: part}) for part in parts]
    except session_errors() as error:
        raise EngineError(f"ONNX Runtime could not run the graph: {reason(error)}") from error
    joined = [np.concatenate(outputs) for outputs in zip(*results, strict=True)]
    return [output[: len(crops)] for output in joined]


def open_session(
    graph: bytes,
    weights: Weights,
    *,
    device: str = "auto",
    threads: int | None = None,
    tensorrt: bool = False,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session whose external initializers come from `weights`, in memory.

    An explicit device that ONNX Runtime would silently replace is an error; auto takes what is
    available, and the session's `notes` name what it fell back from.
    Raises DeviceError, BundleError, InputError (threads), MissingExtraError.
    """
    options = session_options(threads)
    import onnxruntime

    names = check_supplied(graph, weights, "graph")  # ONNX Runtime rejects others
    arrays = {name: np.ascontiguousarray(weights[name]) for name in names}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a) for name, a in arrays.items()}
    options.add_external_initializers(list(values), list(values.values()))
    on = Device.of(device)
    requested = wanted(on, onnxruntime.get_available_providers(), tensorrt=tensorrt)
    session, note = _start(graph, options, on=on, requested=requested)
    if not (taken := session.get_inputs()) or not taken[0].shape:
        raise BundleError("graph: takes no images: it is damaged")
    session.kept_weights = arrays  # ONNX Runtime reads them in place
    session.notes = [note] if note else []
    return session


def session_options(
    threads: int | None = None, *, optimize: bool = True
) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options as every session has them; its threads do not spin while idle.

    threads: None for as many as this process may use.  optimize: False runs every operator of the
    graph as it is. Raises MissingExtraError.
    """
    check_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = resolve_threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return options


def open_cpu_session(
    graph: bytes | Path, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session of a stand-alone graph on the CPU; a file may have its weights beside it.

    Raises BundleError where ONNX Runtime cannot load the graph, MissingExtraError.
    """
    options = options or session_options()
    source = str(graph) if isinstance(graph, Path) else graph
    return _start(source, options, on=Device("cpu"), requested=[CPU])[0]


def _start(
    graph: bytes | str, options: onnxruntime.SessionOptions, *, on: Device, requested: list[Any]
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session on the requested providers or, for auto, on the CPU, and a note about that.

    Raises BundleError (a graph that the CPU cannot load either), DeviceError.
    """
    import onnxruntime

    try:
        with loading(requested):
            # ONNX Runtime's own fallback prints, and may also happen in the middle of a run.
            session = onnxruntime.InferenceSession(
                graph, options, providers=requested, enable_fallback=0
            )
        return session, check_used(on, requested, session.get_providers()[0])
    except session_errors() as error:
        if requested == [CPU]:
            raise BundleError(f"graph: ONNX Runtime cannot load it ({reason(error)})") from error
        session, _ = _start(graph, options, on=Device("cpu"), requested=[CPU])
        why = str(error).splitlines()[0].rpartition(") ")[2]
        return session, check_used(on, requested, CPU, reason=why)


def session_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph that it cannot start or run; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken = (state.EPFail, state.RuntimeException, RuntimeError, ValueError, MemoryError)
    return (state.Fail, state.NotImplemented, *unfit, *broken)
