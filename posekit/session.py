"""ONNX Runtime sessions: every one is opened here, with weights supplied in memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posekit.bundle import Weights
from posekit.errors import BundleError
from posekit.onnx_scan import check_supplied
from posekit.providers import (
    CPU,
    Device,
    cgroup_cpus,
    check_onnxruntime,
    check_used,
    loading,
    wanted,
)

if TYPE_CHECKING:
    import onnxruntime


def usable_threads() -> int:
    """CPU threads that this process may use: its affinity, and its container's share of CPUs."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    granted = cgroup_cpus()
    return count if granted is None else min(count, math.ceil(granted))


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
    Raises DeviceError, BundleError, MissingExtraError.
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
    options.intra_op_num_threads = threads or usable_threads()
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
    except _load_errors() as error:
        if requested == [CPU]:
            raise BundleError(f"graph: ONNX Runtime cannot load it ({error})") from error
        session, _ = _start(graph, options, on=Device("cpu"), requested=[CPU])
        reason = str(error).splitlines()[0].rpartition(") ")[2]
        return session, check_used(on, requested, CPU, said=reason)


def _load_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's errors for a graph or provider that it cannot start; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken = (state.EPFail, state.RuntimeException, RuntimeError, ValueError)
    return (state.Fail, state.NotImplemented, *unfit, *broken)
