"""The plain runtime: OpenCV crops, ONNX Runtime runs the points graph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import BundleError, EngineError, InputError
from posekit.geometry import Warp
from posekit.inference.providers import CPU, Device, run_bound
from posekit.inference.session import (
    filled,
    fixed_batch,
    open_session,
    resolve_threads,
    session_errors,
)
from posekit.inputs.parsing import reason
from posekit.stats.calibration import Calibration
from posekit.types import Float32, ModelSpec, UInt8

if TYPE_CHECKING:
    from posekit.video import SurfaceDecoders

_MOST = 8
"""Crops at a time on a CPU: more gain nothing there, and hold memory."""
_MOST_GPU = 64
_SAME = np.eye(2, 3, dtype=np.float32)[None]
"""A warp from crop pixels to crop pixels."""


class PoseRuntime(Protocol):
    """What an Estimator needs: `Runtime` here, or posekit_engines.runtime.runtime.GpuRuntime.

    What `crops` gives is the runtime's own type; `infer` takes it.
    provider, device: what really runs it, and where.  notes: deviations from the request.
    decoders: of its GPU, for videos whose images `crops` can take where they lie.
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

    def prefetch(self, images: Sequence[UInt8]) -> None:
        """Images that `crops` will get next: a runtime may start uploading them."""
        ...

    def crop(self, image: UInt8, warp: Warp) -> Any:
        """The persons of one image."""
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
    uses, `calibration` turns scores into probabilities. Raises BundleError, DeviceError.
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
        self.threads = resolve_threads(threads)
        self._graph = _graph(bundle, graph or ("flip" if flip else "plain"))
        self._device = device
        # Whole crops on single-threaded sessions use two cores better than one crop split
        # between them (deploy: 158 against 176 CPU ms for 4 crops); `_wide` serves the rest.
        self._narrow = open_session(
            self._graph, bundle.weights, device=device, threads=1, tensorrt=tensorrt
        )
        self._wide = self._narrow
        self._batch = fixed_batch(self._narrow)
        # an export with --affine maps its points on; here `Warp.to_frame` does that
        self._affine = any(each.name == "warp" for each in self._narrow.get_inputs())
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
        """The same of several images: one warp each, all persons in one array."""
        width, height = self.spec.input_size
        count = sum(len(warp.matrix) for warp in warps)
        crops = np.empty((count, height, width, 3), np.uint8)
        rest = iter(crops)
        for image, warp in zip(images, warps, strict=True):
            for matrix in warp.matrix:
                out = next(rest)
                cv2.warpAffine(image, matrix, (width, height), dst=out, flags=cv2.INTER_LINEAR)
        return crops

    def prefetch(self, images: Sequence[UInt8]) -> None:
        """Nothing to do: the crops are made on the CPU once the boxes are known."""

    def infer(self, crops: UInt8) -> tuple[Float32, Float32]:
        """uint8 (N, h, w, 3) RGB to points float32 (N, K, 2), crop px, and scores (N, K).

        On a CPU the crops are shared among the threads. Raises InputError, EngineError.
        """
        count = len(self.spec.skeleton.keypoints)
        if len(crops) == 0:
            return np.zeros((0, count, 2), np.float32), np.zeros((0, count), np.float32)
        outputs = self.run(crops)
        wanted = (len(crops), count)
        fits = len(outputs) == 2 and outputs[0].shape == (*wanted, 2) and outputs[1].shape == wanted
        if not fits:
            given = ", ".join(str(each.shape) for each in outputs[:4])
            raise EngineError(
                f"{self.bundle.name}: its graph gives {given}; wanted points and scores of {count} "
                "keypoints: it is damaged, or made for something else"
            )
        return outputs[0], outputs[1]

    def run(self, crops: UInt8) -> list[Float32]:
        """The graph's outputs for one crop or more, as `infer` takes them.

        Raises InputError, EngineError (the graph cannot be run), DeviceError.
        """
        width, height = self.spec.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3):
            wanted = f"uint8 (N, {height}, {width}, 3)"
            raise InputError(f"crops: wanted {wanted}, got {crops.dtype} {crops.shape}")
        spread = 1 if self._pool is None or len(crops) < self.threads else self.threads
        if self._batch is None:
            most = _MOST_GPU if self._on.kind == "cuda" else _MOST
            parts = np.array_split(crops, max(spread, -(-len(crops) // most)))
        else:
            parts = filled(crops, self._batch)
        feeds: list[dict[str, NDArray[Any]]] = [
            {"crops": part, **({"warp": _SAME.repeat(len(part), 0)} if self._affine else {})}
            for part in parts
        ]
        try:
            if self._on.kind == "cuda":
                results = [run_bound(self._wide, feed, device=self._on) for feed in feeds]
            elif self._pool is None or spread == 1:
                results = [self._wide.run(None, feed) for feed in feeds]
            else:
                run = self._narrow.run
                results = list(self._pool.map(lambda feed: run(None, feed), feeds))
        except session_errors() as error:
            raise EngineError(
                f"{self.bundle.name}: ONNX Runtime could not run it: {reason(error)}"
            ) from error
        joined = (
            results[0]
            if len(results) == 1
            else [np.concatenate(each) for each in zip(*results, strict=True)]
        )
        return [output[: len(crops)] for output in joined]


def _graph(bundle: Bundle, name: str) -> bytes:
    if name not in bundle.graphs:
        why = {
            "flip": "made without the flip test: pass --no-flip (flip=False)",
            "plain": "made with the flip test only: leave out --no-flip",
        }
        none = f"it has no graph {name}, as an exported file: --views does not work with it"
        raise BundleError(f"{bundle.name}: {why.get(name, none)}")
    return bundle.graphs[name]
