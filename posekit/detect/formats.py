"""Person detectors as ONNX graphs: posekit's own, and what the public exporters write.

A graph is recognized by the names and shapes of what goes in and out, never by its file name.
A person is COCO's first class, or the only one.

Source: the export scripts of YOLOX (Megvii), MMDeploy, RT-DETR (Zhao et al.) and transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posekit.bundle import Bundle
from posekit.errors import BundleError, EngineError
from posekit.inference.session import open_session, session_errors
from posekit.inputs.onnx_scan import check_supplied
from posekit.inputs.parsing import reason, shown
from posekit.types import DetectorSpec, Float32, UInt8

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Shapes = dict[str, list[Any]]
Outputs = dict[str, NDArray[Any]]
Found = tuple[Float32, Float32]

_DEFAULT_SIZE = 640  # of an export that takes any size
_STRIDES = (8, 16, 32)
_CLASSES = 80  # of COCO


@dataclass(frozen=True)
class Format:
    """How a kind of graph takes its image and encodes its detections.

    read: outputs by name and the image's (W, H), to xyxy (A, 4), px, and scores (A,).
    fill: gray around the image.  stretch: fill the input, whatever the aspect.
    raw: takes float32 (1, 3, H, W); `scale` times 0..255, blue first with `bgr`; else uint8.
    overlap: IoU above which two boxes are one person.  min_score: default threshold.
    misses_large: persons who fill the image are found in a smaller one.
    """

    read: Callable[[Outputs, tuple[int, int]], Found]
    fill: int = 114
    stretch: bool = False
    raw: bool = True
    scale: float = 1.0
    bgr: bool = False
    overlap: float = 0.65
    min_score: float = 0.3
    misses_large: bool = False


class Graph(Protocol):
    """A detector's graph with its runtime: ONNX Runtime, or TensorRT on a GPU.

    provider: what runs it.  inputs: their names, the image's first.
    """

    provider: str
    inputs: tuple[str, ...]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Outputs:
        """The outputs by name."""
        ...


class OnnxGraph:
    """A `Graph` in ONNX Runtime."""

    def __init__(self, session: InferenceSession) -> None:
        self.provider = str(session.get_providers()[0])
        self.inputs = tuple(value.name for value in session.get_inputs())
        self._names = [output.name for output in session.get_outputs()]
        self._session = session

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Outputs:
        """The outputs by name. Raises EngineError: it cannot be run."""
        try:
            outputs = self._session.run(self._names, dict(feed))
        except session_errors() as error:
            raise EngineError(
                f"detector: ONNX Runtime could not run it: {reason(error)}"
            ) from error
        return dict(zip(self._names, outputs, strict=True))


@dataclass(frozen=True, eq=False)
class Network:
    """An opened graph and its format.

    size: (W, H) of the largest input.  step: sides are multiples of it; 0 where all are `size`.
    """

    graph: Graph
    format: Format
    size: tuple[int, int]
    step: int = 0

    def run(self, canvas: UInt8) -> Found:
        """uint8 (H, W, 3) RGB to xyxy float32 (A, 4), input px, and scores (A,).

        Raises EngineError: the graph cannot be run, or gives something else.
        """
        height, width = canvas.shape[:2]
        first, *others = self.graph.inputs
        feed: Outputs = {first: self.planes(canvas) if self.format.raw else canvas[None]}
        for name in others:  # RT-DETR's orig_target_sizes
            feed[name] = np.array([[width, height]], np.int64)
        outputs = self.graph.run(feed)
        try:
            xyxy, scores = self.format.read(outputs, (width, height))
        except (LookupError, TypeError, ValueError) as error:
            raise EngineError(_unlike(outputs)) from error
        if scores.ndim != 1 or xyxy.shape != (len(scores), 4) or xyxy.dtype.kind != "f":
            raise EngineError(_unlike(outputs))
        return xyxy, scores

    def planes(self, canvas: UInt8) -> Float32:
        """uint8 (H, W, 3) RGB as the format's float32 (1, 3, H, W)."""
        ordered = canvas[:, :, ::-1] if self.format.bgr else canvas
        planes = np.ascontiguousarray(ordered.transpose(2, 0, 1)[None], np.float32)
        return planes if self.format.scale == 1 else planes * np.float32(self.format.scale)


def _unlike(outputs: Outputs) -> str:
    found = ", ".join(f"{shown(name)} {array.shape}" for name, array in outputs.items())
    return f"detector: its graph gives {found}, which are no boxes and scores: it is damaged"


def open_bundle(
    bundle: Bundle, *, device: str, threads: int | None, graph: Graph | None = None
) -> Network:
    """The network of a detector's bundle; graph: run elsewhere, at its largest size.

    Raises BundleError, DeviceError.
    """
    spec = bundle.spec
    if not isinstance(spec, DetectorSpec) or "detect" not in bundle.graphs:
        raise BundleError(
            f"{bundle.name}: a {bundle.kind} bundle with graphs {sorted(bundle.graphs)}; wanted a "
            "person detector with a graph 'detect'"
        )
    if graph is not None:
        return Network(graph, _posekit(spec), spec.input_size)
    session = open_session(bundle.graphs["detect"], bundle.weights, device=device, threads=threads)
    sides = session.get_inputs()[0].shape[1:3]
    step = 0 if all(isinstance(side, int) for side in sides) else _STRIDES[-1]
    return Network(OnnxGraph(session), _posekit(spec), spec.input_size, step)


def open_onnx(path: Path, *, device: str, threads: int | None) -> Network:
    """The network of an exported `.onnx`. Raises BundleError for one of an unknown kind."""
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_supplied(graph, {}, str(path))
    session = open_session(graph, {}, device=device, threads=threads)
    taken = session.get_inputs()
    inputs: Shapes = {value.name: list(value.shape) for value in taken}
    outputs: Shapes = {value.name: list(value.shape) for value in session.get_outputs()}
    shape = taken[0].shape
    found = None
    if taken[0].type == "tensor(float)" and len(shape) == 4 and shape[1] == 3:
        height, width = (n if isinstance(n, int) and n > 0 else _DEFAULT_SIZE for n in shape[2:])
        found = _recognized(inputs, outputs, (width, height))
    if found is None:
        raise BundleError(_unknown(path, inputs, outputs))
    network = Network(OnnxGraph(session), found, (width, height))
    return _settled(network) if found.read is _yolox_grid else network


def _unknown(path: Path, inputs: Shapes, outputs: Shapes) -> str:
    return (
        f"{path}: not a detector that posekit knows: it takes {inputs} and gives {outputs}; wanted "
        "float (1, 3, H, W) and YOLOX's output (1, A, 5 + classes), dets and labels (YOLOX by "
        "MMDeploy), RT-DETR's labels, boxes and scores, or transformers' logits and pred_boxes, "
        "with COCO's 80 classes or one"
    )


def _recognized(inputs: Shapes, outputs: Shapes, size: tuple[int, int]) -> Format | None:
    """The format that these names and shapes mean, or None."""
    names, shapes = set(outputs), list(outputs.values())
    match names:
        case _ if {"logits", "pred_boxes"} <= names and len(inputs) == 1:
            known = outputs["logits"][-1] in (1, _CLASSES)
            return Format(_logits, stretch=True, scale=1 / 255, **_SET) if known else None
        case _ if names == {"labels", "boxes", "scores"} and len(inputs) == 2:
            return Format(_rt_detr, stretch=True, scale=1 / 255, **_SET)
        case _ if names == {"dets", "labels"} and outputs["dets"][-1] == 5:
            return Format(_mmdeploy, bgr=True)
        case _ if len(shapes) == 1 and len(inputs) == 1 and len(shapes[0]) == 3:
            cells, values = shapes[0][1:]
            fits = cells == len(_centers(size)) or not isinstance(cells, int)
            return Format(_yolox_grid, bgr=True) if fits and values in (6, 85) else None
    return None


_SET: dict[str, Any] = {"overlap": 1.0, "min_score": 0.5}
"""A network that predicts a set gives each person once."""


def _posekit(spec: DetectorSpec) -> Format:
    return Format(
        lambda outputs, _: (outputs["boxes"][0], outputs["scores"][0]),
        fill=spec.fill,
        raw=False,
        overlap=0.5,
        misses_large=True,
    )


def _settled(network: Network) -> Network:
    """YOLOX with or without its decoding, which the boxes of a blank image show.

    Decoded centers follow the grid; raw ones are offsets within a cell, the same everywhere.
    """
    width, height = network.size
    blank = network.planes(np.full((height, width, 3), network.format.fill, np.uint8))
    (output,) = network.graph.run({network.graph.inputs[0]: blank}).values()
    grid = _centers(network.size)
    if output.shape[1] != len(grid):
        raise BundleError(
            f"YOLOX-style detector: gives {output.shape[1]} boxes for {width} x {height} px; "
            f"wanted {len(grid)}, those of strides 8, 16 and 32"
        )
    # Raw offsets are a few cells at most; decoded centers are spread like the grid itself.
    decoded = output[0, :, :2].std(0) > grid[:, :2].std(0) / 2
    read = _yolox if decoded.all() else _yolox_grid
    return dataclasses.replace(network, format=dataclasses.replace(network.format, read=read))


def _centers(size: tuple[int, int]) -> Float32:
    """Column and row of each cell's corner, px, and its stride: (A, 3), finest level first."""
    width, height = size
    levels = []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size, int)], 1)
        levels.append(cells.astype(np.float32) * np.float32(stride))
    return np.concatenate(levels)


def _corners(centers: Float32, sizes: Float32) -> Float32:
    """Boxes by center and size, edges counted from 0, as xyxy in posekit's pixels."""
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], 1).astype(np.float32) - 0.5


def _yolox(outputs: Outputs, _size: tuple[int, int]) -> Found:
    """Decoded: x, y, w, h in px, objectness, classes."""
    (rows,) = (output[0] for output in outputs.values())
    return _corners(rows[:, :2], rows[:, 2:4]), rows[:, 4] * rows[:, 5]


def _yolox_grid(outputs: Outputs, size: tuple[int, int]) -> Found:
    """Raw: x, y in cells from the cell's corner, log of w, h in cells, objectness, classes."""
    (rows,) = (output[0] for output in outputs.values())
    grid = _centers(size)
    strides = grid[:, 2:]
    sizes = np.exp(np.minimum(rows[:, 2:4], 20)) * strides  # no overflow on a wild cell
    return _corners(rows[:, :2] * strides + grid[:, :2], sizes), rows[:, 4] * rows[:, 5]


def _mmdeploy(outputs: Outputs, _size: tuple[int, int]) -> Found:
    dets, labels = outputs["dets"][0], outputs["labels"][0]
    person = dets[labels == 0]
    return person[:, :4] - np.float32(0.5), person[:, 4]


def _rt_detr(outputs: Outputs, _size: tuple[int, int]) -> Found:
    person = outputs["labels"][0] == 0
    return outputs["boxes"][0][person] - np.float32(0.5), outputs["scores"][0][person]


def _logits(outputs: Outputs, size: tuple[int, int]) -> Found:
    boxes = outputs["pred_boxes"][0] * np.tile(np.array(size, np.float32), 2)
    logits = np.clip(outputs["logits"][0, :, 0], -80, 80)  # exp stays finite in float32
    return _corners(boxes[:, :2], boxes[:, 2:]), 1 / (1 + np.exp(-logits))
