"""Frame to Boxes: letterbox, network, non-maximum suppression."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np

from posekit import bundle
from posekit.detect.formats import Graph, Network, open_bundle, open_onnx
from posekit.errors import InputError
from posekit.types import Boxes, Float32, Frame, Int64, UInt8

_CANDIDATES = 300
"""Boxes of one pass that are kept: bounds the time on noise."""

_LOW_SCORE = 0.1
"""A large box that scores between this and the threshold calls for a second, smaller pass."""

_LARGE = 0.6
"""Share of the frame's longer side from which a box is large, at half of it in the second pass."""

_SECOND_PASS = 256 / 416
"""Scale of the second pass: 28 % of the first one's time (benchmarks/accuracy/detector.py)."""


class Detector:
    """Finds persons in frames of any size.

    model: a detector's bundle or its name or path; or an `.onnx` made by YOLOX, MMDeploy, RT-DETR
    or transformers.  device, threads: as for Runtime.  min_score: None for the format's own.
    graph: of the bundle, opened by another runtime than ONNX Runtime.  `notes`: what differs
    from the request.  `sha256` is the model's; `second_passes` and `whole_images` count frames
    that needed them.
    Raises BundleError, DeviceError, InputError.
    """

    def __init__(
        self,
        model: bundle.Bundle | str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        min_score: float | None = None,
        graph: Graph | None = None,
    ) -> None:
        if not isinstance(model, bundle.Bundle) and Path(model).suffix.lower() == ".onnx":
            self.network: Network = open_onnx(Path(model), device=device, threads=threads)
            self.sha256 = hashlib.sha256(Path(model).read_bytes()).hexdigest()
        else:
            if not isinstance(model, bundle.Bundle):
                model = bundle.Bundle.open(bundle.find(model))
            self.network = open_bundle(model, device=device, threads=threads, graph=graph)
            self.sha256 = model.sha256
        self.min_score = self.network.format.min_score if min_score is None else min_score
        if not 0 <= self.min_score <= 1:
            raise InputError(f"detector: min_score {min_score}; wanted a number from 0 to 1")
        self.second_passes = 0
        self.whole_images = 0
        self.notes: list[str] = []

    @property
    def provider(self) -> str:
        """What runs it: a provider of ONNX Runtime, or TensorRT."""
        return self.network.graph.provider

    def __call__(self, frame: Frame, *, fallback: bool = False) -> Boxes:
        """The persons of a frame, best first, in its pixels and clipped to it.

        A person who fills the image is often too large for the network; where a large box scores
        low, the frame is passed through it again, smaller. With `fallback` (for still images) a
        frame without detections gives itself as one box that scores 0.
        """
        image = frame.image
        boxes = self._detect(image, 1.0, min(_LOW_SCORE, self.min_score))
        confident = boxes.scores >= self.min_score
        large = _shares(boxes, image) >= _LARGE
        if self.network.format.misses_large and (large & ~confident).any():
            self.second_passes += 1
            small = self._detect(image, _SECOND_PASS, self.min_score)
            small = small.select(_shares(small, image) >= _LARGE / 2)
            boxes = _merge(boxes.select(confident), small, self.network.format.overlap)
        elif not confident.all():
            boxes = boxes.select(confident)
        if fallback and len(boxes) == 0:
            self.whole_images += 1
            return dataclasses.replace(full_frame(frame), scores=np.zeros(1, np.float32))
        return boxes

    def _detect(self, image: UInt8, scale: float, min_score: float) -> Boxes:
        """What the network detects at `scale` of its input size."""
        height, width = image.shape[:2]
        canvas, per_pixel = self._fit(image, scale)
        xyxy, scores = self.network.run(canvas)
        kept = np.flatnonzero(scores >= min_score)
        kept = kept[np.argsort(-scores[kept], kind="stable")][:_CANDIDATES]
        xyxy = (xyxy[kept] + 0.5) * np.tile(per_pixel, 2) - 0.5
        np.clip(xyxy, -0.5, np.tile([width - 0.5, height - 0.5], 2), out=xyxy)
        real = np.isfinite(xyxy).all(1) & (xyxy[:, 2:] > xyxy[:, :2]).all(1)
        boxes = Boxes(xyxy[real], np.minimum(scores[kept][real], 1))
        return boxes.select(_suppress(boxes, self.network.format.overlap))

    def _fit(self, image: UInt8, scale: float) -> tuple[UInt8, Float32]:
        """The image in the network's input, top left, and frame pixels per input pixel (x, y)."""
        network = self.network
        height, width = image.shape[:2]
        size = np.array(network.size) * scale
        factors = size / (width, height)
        if not network.format.stretch:
            factors[:] = factors.min()
        columns, rows = np.maximum(np.round(factors * (width, height)).astype(int), 1).tolist()
        how = cv2.INTER_LINEAR
        # Four samples a pixel where it shrinks by more than two: averaging everything (INTER_AREA)
        # costs 8 ms for a frame of 1080 lines, this 2 ms.
        if columns * 2 < width and rows * 2 < height:
            image = np.asarray(cv2.resize(image, (columns * 2, rows * 2)), np.uint8)
            how = cv2.INTER_AREA
        resized = np.asarray(cv2.resize(image, (columns, rows), interpolation=how), np.uint8)
        step = network.step
        wide, high = (-(-n // step) * step for n in (columns, rows)) if step else network.size
        per_pixel = np.array([width / columns, height / rows], np.float32)
        if (wide, high) == (columns, rows):
            return resized, per_pixel
        canvas = np.full((high, wide, 3), network.format.fill, np.uint8)
        canvas[:rows, :columns] = resized
        return canvas, per_pixel


def full_frame(frame: Frame) -> Boxes:
    """The whole frame as one box: from -0.5 to W - 0.5, for an image of one person."""
    width, height = frame.size
    return Boxes(np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32))


def _shares(boxes: Boxes, image: UInt8) -> Float32:
    """The longer side of each box as a share of the image's longer side, (N,)."""
    sizes = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    shares: Float32 = sizes.max(1) / max(image.shape[:2])
    return shares


def _merge(first: Boxes, second: Boxes, overlap: float) -> Boxes:
    """Both, best first, without duplicates."""
    scores = np.concatenate([first.scores, second.scores])
    order = np.argsort(-scores, kind="stable")
    boxes = Boxes(np.concatenate([first.xyxy, second.xyxy])[order], scores[order])
    return boxes.select(_suppress(boxes, overlap))


def _suppress(boxes: Boxes, overlap: float) -> Int64:
    """Rows of boxes, given best first, that no better kept one overlaps by more than `overlap`."""
    corners = boxes.xyxy.astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    ranks = [float(n) for n in range(len(boxes), 0, -1)]  # the order counts, not the scores
    kept = cv2.dnn.NMSBoxes(np.hstack([corners[:, :2], sizes]).tolist(), ranks, 0.0, overlap)
    return np.asarray(kept, np.int64).reshape(-1)
