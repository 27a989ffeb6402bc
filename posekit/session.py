"""An ONNX Runtime session, its weights supplied in memory."""

from __future__ import annotations

import math
import os
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
    there, and the session's `notes` say what it fell back from. Threads do not spin, so that idle
    cores stay free for decoding and encoding.
    Raises DeviceError, BundleError, MissingExtraError.
    """
    check_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    taken = check_supplied(graph, weights, "graph")  # surplus ones would be refused
    arrays = {name: np.ascontiguousarray(weights[name]) for name in taken}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a) for name, a in arrays.items()}
    options.add_external_initializers(list(values), list(values.values()))
    on = Device.of(device)
    asked = wanted(on, onnxruntime.get_available_providers(), tensorrt=tensorrt)
    session, note = _started(graph, options, on=on, asked=asked)
    session.kept_weights = arrays  # ONNX Runtime reads them where they lie
    session.notes = [note] if note else []
    return session


def _started(
    graph: bytes, options: onnxruntime.SessionOptions, *, on: Device, asked: list[Any]
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session on what is asked for or, for auto, on the CPU, with what to say of that.

    Raises BundleError (a graph that the CPU cannot load either), DeviceError.
    """
    import onnxruntime

    try:
        with loading(asked):
            # Its own fallback prints, and would strike in the middle of a run too.
            session = onnxruntime.InferenceSession(
                graph, options, providers=asked, enable_fallback=0
            )
        return session, check_used(on, asked, session.get_providers()[0])
    except _load_errors() as error:
        if asked == [CPU]:
            raise BundleError(f"graph: ONNX Runtime cannot load it ({error})") from error
        session, _ = _started(graph, options, on=Device("cpu"), asked=[CPU])
        return session, check_used(
            on, asked, CPU, reason=str(error).splitlines()[0].rpartition(") ")[2]
        )


def _load_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph or provider that it cannot start; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken = (state.EPFail, state.RuntimeException, RuntimeError, ValueError)
    return (state.Fail, state.NotImplemented, *unfit, *broken)
