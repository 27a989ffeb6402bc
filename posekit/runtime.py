"""The plain runtime: OpenCV crops, ONNX Runtime runs the points graph."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from posekit import codecs
from posekit.bundle import Bundle, Weights
from posekit.errors import BundleError, DeviceError, InputError
from posekit.geometry import Warp
from posekit.providers import check_onnxruntime
from posekit.types import Float32, ModelSpec, UInt8

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_MOST = 8
"""Crops at a time on a CPU: more gain nothing there, and hold memory."""


class Runtime:
    """A pose model ready to run: `crop`, then `infer`.

    device: auto, cpu, cuda or cuda:N; only auto may fall back.  threads: of the CPU, None for all
    that this process may use.  flip: run each crop mirrored too and merge the heatmaps.
    graph: which one of the bundle's, None for flip or plain.
    `calibration` turns scores into chances, where the bundle has it.
    `provider` is the one that ONNX Runtime really uses. Raises BundleError, DeviceError.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        flip: bool = True,
        graph: str | None = None,
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
        self._narrow = open_session(self._graph, bundle.weights, device=device, threads=1)
        self._wide = self._narrow
        self.provider: str = self._narrow.get_providers()[0]
        self._pool: ThreadPoolExecutor | None = None
        if self.provider == CPU and self.threads > 1:
            self._wide = open_session(
                self._graph, bundle.weights, device="cpu", threads=self.threads
            )
            self._pool = ThreadPoolExecutor(self.threads, "posekit-infer")

    def crop(self, image: UInt8, warp: Warp) -> UInt8:
        """Cut the persons out: uint8 (H, W, 3) RGB to (N, h, w, 3); black beyond the frame."""
        width, height = self.spec.input_size
        crops = np.empty((len(warp.matrix), height, width, 3), np.uint8)
        for matrix, crop in zip(warp.matrix, crops, strict=True):
            cv2.warpAffine(image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
        return crops

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
        if self._pool is None or len(crops) < self.threads:
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
    """CPU threads that this process may use (its affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_session(
    graph: bytes, weights: Weights, *, device: str = "auto", threads: int | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session whose external initialisers come from `weights`, in memory.

    An explicit device that ONNX Runtime would silently replace is an error; auto takes what is
    there. Threads do not spin, so that idle cores stay free for decoding and encoding.
    Raises DeviceError, BundleError, MissingExtraError.
    """
    check_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if b"weights.safetensors" not in graph:  # they lie inside: surplus ones would be refused
        weights = {}
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a) for name, a in arrays.items()}
    options.add_external_initializers(list(values), list(values.values()))
    wanted = _provider(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=[wanted] if wanted == CPU else [wanted, CPU]
        )
    except _load_errors() as error:
        raise BundleError(f"graph: ONNX Runtime cannot load it ({error})") from error
    session.kept_weights = arrays  # ONNX Runtime reads them where they lie
    used = session.get_providers()[0]
    if device not in ("auto", "cpu") and used == CPU:
        raise DeviceError(
            f"--device {device}: ONNX Runtime has the provider but cannot start it here (driver, "
            "CUDA 13 or cuDNN 9 missing); run `posekit doctor`, or use --device cpu"
        )
    return session


def _load_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for bytes that are not a graph it can run; no common parent."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unfit = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    return (state.Fail, state.NotImplemented, *unfit)


def _provider(device: str, available: list[str]) -> Any:
    """What to ask ONNX Runtime for. Raises DeviceError, InputError."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise InputError(f"--device {device}: wanted auto, cpu, cuda or cuda:N")
    if kind == "cpu" or (kind == "auto" and CUDA not in available):
        return CPU
    if CUDA not in available:
        raise DeviceError(
            f"--device {device}: this ONNX Runtime has no CUDA provider, only "
            f"{', '.join(available)}; pip uninstall onnxruntime, then pip install 'posekit[gpu]', "
            "or use --device cpu"
        )
    return (CUDA, {"device_id": index or "0"})


def open_model(path: Path) -> Bundle:
    """A pose model: a bundle, or an `.onnx` that `posekit export` wrote with points inside.

    Raises BundleError.
    """
    if path.suffix.lower() != ".onnx":
        return Bundle.open(path)
    graph = path.read_bytes()
    said = open_session(graph, {}, device="cpu", threads=1).get_modelmeta().custom_metadata_map
    if said.get("outputs") != "points":
        found = f"outputs {said['outputs']}" if "outputs" in said else "no posekit metadata"
        raise BundleError(
            f"{path}: holds {found}; infer runs what `posekit export --outputs points` writes"
        )
    if said.get("affine") == "true":
        raise BundleError(
            f"{path}: takes the way back to the frame as an input (--affine); infer runs what "
            "`posekit export` writes without it"
        )
    try:
        spec = ModelSpec.from_dict(json.loads(said["spec"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: its metadata is damaged ({error})") from error
    name = "flip" if said.get("flip") == "true" else "plain"
    sha256 = hashlib.sha256(graph).hexdigest()
    return Bundle(said.get("name", path.stem), spec, {}, {name: graph}, sha256=sha256)


def verify(bundle: Bundle) -> dict[str, float]:
    """Check a bundle's graphs against its spec and its stored answer.

    Returns the largest shift in px of each pose graph from the reference points, where the
    reference is confident. Raises BundleError where shapes differ or a shift exceeds 0.5 px.
    """
    shifts: dict[str, float] = {}
    for name in bundle.graphs:
        session = open_session(bundle.graphs[name], bundle.weights, device="cpu", threads=1)
        _check_shapes(session, bundle, name)
        if bundle.kind != "pose" or not bundle.reference:
            continue
        reference = bundle.reference
        view = "plain" if name == "maps" else name
        points = _points(session, reference["crops"], bundle.pose_spec)
        sure = reference[f"{view}_scores"] > 0.2
        shift = np.abs(points - reference[f"{view}_points"]).max(2)[sure]
        shifts[name] = float(shift.max(initial=0.0))
        most = 0.5 + _known_shift(bundle, view)
        if not shifts[name] <= most:
            raise BundleError(
                f"{bundle.name}: graph {name} strays {shifts[name]:.2f} px from the stored answer; "
                f"wanted at most {most:g}: the bundle is damaged or this machine computes wrongly"
            )
    return shifts


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


def _points(session: onnxruntime.InferenceSession, crops: UInt8, spec: ModelSpec) -> Float32:
    """Points of a graph that gives them, or of one that gives heatmaps."""
    answer: list[Float32] = session.run(None, {"crops": crops})
    return answer[0] if len(answer) == 2 else codecs.decode(answer[0], spec)[0]
