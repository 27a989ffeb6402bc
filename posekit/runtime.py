"""The plain runtime: OpenCV crops, ONNX Runtime runs the points graph."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from posekit import codecs
from posekit.bundle import Bundle, Weights
from posekit.calibration import Calibration
from posekit.errors import BundleError, InputError
from posekit.geometry import Warp
from posekit.onnx_scan import check_supplied
from posekit.providers import (
    CPU,
    Device,
    cgroup_cpus,
    check_onnxruntime,
    check_used,
    loading,
    run_bound,
    wanted,
)
from posekit.shift import Parity, compare
from posekit.types import Float32, ModelSpec, UInt8

if TYPE_CHECKING:
    import onnxruntime

    from posekit.video import SurfaceDecoders

_MOST = 8
"""Crops at a time on a CPU: more gain nothing there, and hold memory."""
_MOST_GPU = 64


class PoseRuntime(Protocol):
    """What an Estimator needs: `Runtime` here, or posekit_engines.gpu_runtime.GpuRuntime.

    What `crops` gives is the runtime's own affair; `infer` takes it.
    provider, device: what really runs it, and where.  notes: what is not as asked, a sentence each.
    decoders: of its GPU, for videos whose pictures `crops` can take where they lie.
    """

    bundle: Bundle
    spec: ModelSpec
    flip: bool
    threads: int
    calibration: Calibration | None
    provider: str
    device: str
    notes: list[str]
    decoders: SurfaceDecoders | None

    def ahead(self, images: Sequence[UInt8]) -> None:
        """These pictures come next: what can be done with them now may be done."""
        ...

    def crop(self, image: UInt8, warp: Warp) -> Any:
        """The persons of one picture."""
        ...

    def crops(self, images: Sequence[UInt8], warps: Sequence[Warp]) -> Any:
        """The persons of several."""
        ...

    def infer(self, crops: Any) -> tuple[Float32, Float32]:
        """Points float32 (N, K, 2), crop px, and scores (N, K)."""
        ...


class Runtime:
    """A pose model ready to run: `crop`, then `infer`.

    device: auto, cpu, cuda or cuda:N; only auto may fall back, and `notes` say so.
    threads: of the CPU, None for all that this process may use.  flip: run each crop mirrored too
    and merge the heatmaps.  graph: which one of the bundle's, None for flip or plain.
    tensorrt: on a GPU by ONNX Runtime's TensorRT provider.  `provider` is what ONNX Runtime really
    uses, `calibration` turns scores into chances. Raises BundleError, DeviceError.
    """

    decoders: SurfaceDecoders | None = None

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        flip: bool = True,
        graph: str | None = None,
        tensorrt: bool = False,
    ) -> None:
        self.bundle = bundle
        self.spec: ModelSpec = bundle.pose_spec
        self.flip = flip
        self.calibration = bundle.calibration(graph or ("flip" if flip else "plain"))
        self.threads = threads or usable_threads()
        self._graph = _graph(bundle, graph or ("flip" if flip else "plain"))
        self._device = device
        # Whole crops on single-threaded sessions use two cores better than one crop split
        # between them (deploy: 158 against 176 CPU ms for 4 crops); `_wide` serves the rest.
        self._narrow = open_session(
            self._graph, bundle.weights, device=device, threads=1, tensorrt=tensorrt
        )
        self._wide = self._narrow
        self.provider: str = self._narrow.get_providers()[0]
        self._on = (
            Device("cpu") if self.provider == CPU else Device("cuda", Device.of(device).index)
        )
        self.device = str(self._on)
        self.notes: list[str] = list(self._narrow.notes)
        self._pool: ThreadPoolExecutor | None = None
        if self.provider == CPU and self.threads > 1:
            self._wide = open_session(
                self._graph, bundle.weights, device="cpu", threads=self.threads
            )
            self._pool = ThreadPoolExecutor(self.threads, "posekit-infer")

    def crop(self, image: UInt8, warp: Warp) -> UInt8:
        """Cut the persons out: uint8 (H, W, 3) RGB to (N, h, w, 3); black beyond the frame."""
        return self.crops([image], [warp])

    def crops(self, images: Sequence[UInt8], warps: Sequence[Warp]) -> UInt8:
        """The same of several pictures: one warp each, all persons in one array."""
        width, height = self.spec.input_size
        count = sum(len(warp.matrix) for warp in warps)
        crops = np.empty((count, height, width, 3), np.uint8)
        rest = iter(crops)
        for image, warp in zip(images, warps, strict=True):
            for matrix in warp.matrix:
                out = next(rest)
                cv2.warpAffine(image, matrix, (width, height), dst=out, flags=cv2.INTER_LINEAR)
        return crops

    def ahead(self, images: Sequence[UInt8]) -> None:
        """Nothing can be done before the boxes are known: the crops are cut on the CPU."""

    def infer(self, crops: UInt8) -> tuple[Float32, Float32]:
        """uint8 (N, h, w, 3) RGB to points float32 (N, K, 2), crop px, and scores (N, K).

        On a CPU the crops are shared out among the threads. Raises InputError.
        """
        if len(crops) == 0:
            count = len(self.spec.skeleton)
            return np.zeros((0, count, 2), np.float32), np.zeros((0, count), np.float32)
        points, scores = self.answer(crops)
        return points, scores

    def answer(self, crops: UInt8) -> list[Float32]:
        """The graph's outputs for one crop or more, as `infer` takes them. Raises InputError."""
        width, height = self.spec.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3):
            wanted = f"uint8 (N, {height}, {width}, 3)"
            raise InputError(f"crops: wanted {wanted}, got {crops.dtype} {crops.shape}")
        if self._on.kind == "cuda":
            parts = np.array_split(crops, -(-len(crops) // _MOST_GPU))
            results = [run_bound(self._wide, "crops", part, device=self._on) for part in parts]
        elif self._pool is None or len(crops) < self.threads:
            parts = np.array_split(crops, -(-len(crops) // _MOST))
            results = [self._wide.run(None, {"crops": part}) for part in parts]
        else:
            parts = np.array_split(crops, max(self.threads, -(-len(crops) // _MOST)))
            run = self._narrow.run
            results = list(self._pool.map(lambda part: run(None, {"crops": part}), parts))
        if len(results) == 1:
            whole: list[Float32] = results[0]
            return whole
        return [np.concatenate(outputs) for outputs in zip(*results, strict=True)]


def _graph(bundle: Bundle, name: str) -> bytes:
    if name not in bundle.graphs:
        other = {"flip": "made without the flip test: pass --no-flip (flip=False)"}
        raise BundleError(
            f"{bundle.name}: {other.get(name, 'made with the flip test only: leave out --no-flip')}"
        )
    return bundle.graphs[name]


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
    """An ONNX Runtime session whose external initialisers come from `weights`, in memory.

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
            on, asked, CPU, said=str(error).splitlines()[0].rpartition(") ")[2]
        )


def _load_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph or provider that it cannot start; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken = (state.EPFail, state.RuntimeException, RuntimeError, ValueError)
    return (state.Fail, state.NotImplemented, *unfit, *broken)


def verify(bundle: Bundle) -> dict[str, float]:
    """`compared`, of each graph the largest shift alone, px. Raises BundleError."""
    return {name: found.max_px for name, found in compared(bundle).items()}


def compared(bundle: Bundle) -> dict[str, Parity]:
    """Check a bundle's graphs against its spec and the source network's stored answer.

    Returns what each pose graph strays. Raises BundleError where shapes differ, or a shift exceeds
    what it was when the bundle was made by more than 0.5 px.
    """
    found: dict[str, Parity] = {}
    for name in bundle.graphs:
        session = open_session(bundle.graphs[name], bundle.weights, device="cpu", threads=1)
        _check_shapes(session, bundle, name)
        if bundle.kind != "pose" or not bundle.reference:
            continue
        reference = bundle.reference
        view = "plain" if name == "maps" else name
        crops, source = reference["crops"], (f"{view}_points", f"{view}_scores")
        points, scores = _answer(session, crops, bundle.pose_spec)
        truth = reference[source[0]], reference[source[1]]
        found[name] = compare(points, scores, truth, crops=len(crops))
        far, most = found[name].max_px, 0.5 + _known_shift(bundle, view)
        if not far <= most:
            raise BundleError(
                f"{bundle.name}: graph {name} strays {far:.2f} px from the stored answer; wanted "
                f"at most {most:g}: the bundle is damaged or this machine computes wrongly"
            )
    return found


def _known_shift(bundle: Bundle, graph: str) -> float:
    """How far the graph strayed when it was made, px: reduced precision does."""
    told = json.loads(bundle.extras.get("parity.json", b"{}")).get(graph, {})
    return float(told.get("max_px", 0.0))


def _check_shapes(session: onnxruntime.InferenceSession, bundle: Bundle, name: str) -> None:
    width, height = bundle.spec.input_size
    taken = session.get_inputs()[0]
    sides = [{"H": height, "W": width}.get(side, side) for side in taken.shape[1:]]
    if taken.type != "tensor(uint8)" or sides != [height, width, 3]:
        raise BundleError(
            f"{bundle.name}: graph {name} takes {taken.type} {taken.shape}; its spec says "
            f"uint8 (N, {height}, {width}, 3)"
        )
    if isinstance(bundle.spec, ModelSpec):
        count, (columns, rows) = len(bundle.spec.skeleton), bundle.spec.heatmap_size
        wanted = [[count, rows, columns]] if name == "maps" else [[count, 2], [count]]
        given = [list(output.shape[1:]) for output in session.get_outputs()]
        if given != wanted:
            raise BundleError(f"{bundle.name}: graph {name} gives {given}; its spec says {wanted}")


def _answer(
    session: onnxruntime.InferenceSession, crops: UInt8, spec: ModelSpec
) -> tuple[Float32, Float32]:
    """Points and scores of a graph that gives them, or of one that gives heatmaps."""
    answer: list[Float32] = session.run(None, {"crops": crops})
    return (answer[0], answer[1]) if len(answer) == 2 else codecs.decode(answer[0], spec)
