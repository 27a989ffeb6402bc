"""An ONNX Runtime session, its weights supplied in memory."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Weights
from posekit.errors import BundleError, EngineError
from posekit.onnx_scan import check_supplied
from posekit.parsing import number
from posekit.providers import (
    CPU,
    Device,
    cgroup_cpus,
    check_onnxruntime,
    check_used,
    loading,
    wanted,
)
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
    """As many CPU threads as asked for, of None all usable ones. Raises InputError."""
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
        raise EngineError(f"ONNX Runtime could not run the graph: {first_line(error)}") from error
    joined = [np.concatenate(outputs) for outputs in zip(*results, strict=True)]
    return [output[: len(crops)] for output in joined]


def first_line(error: Exception) -> str:
    """Why ONNX Runtime stopped: its messages go on for many lines."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


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
    Raises DeviceError, BundleError, InputError (threads), MissingExtraError.
    """
    check_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = resolve_threads(threads)
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
    except session_errors() as error:
        if asked == [CPU]:
            raise BundleError(f"graph: ONNX Runtime cannot load it ({error})") from error
        session, _ = _started(graph, options, on=Device("cpu"), asked=[CPU])
        return session, check_used(
            on, asked, CPU, said=str(error).splitlines()[0].rpartition(") ")[2]
        )


def session_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph that it cannot start or run; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken = (state.EPFail, state.RuntimeException, RuntimeError, ValueError, MemoryError)
    return (state.Fail, state.NotImplemented, *unfit, *broken)
