"""One batch on the GPU: small block up, crop, network, decode, points down; one CUDA graph.

Batches have sizes of a few buckets, filled up with nobody, since a graph holds one size. All
batches run one after another on one stream and share the GPU's memory; on the host there are two
lanes, so that the next batch can be queued while one is computed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from posekit.errors import DeviceError, EngineError
from posekit.tta import TtaOptions, View
from posekit.types import Float32, ModelSpec
from posekit_engines.cuda.device import Device, Graph, Stream
from posekit_engines.ops.crop_normalize import Crops, Frames, crop_normalize
from posekit_engines.ops.decode_flip import DecodeTables, decode_flip
from posekit_engines.ops.fuse_views import ViewTables, fuse_views
from posekit_engines.ops.launch import Maps
from posekit_engines.runtime.buffers import (
    RGB,
    Batch,
    CropRequest,
    LaunchTable,
    Layout,
    StagingBuffers,
)
from posekit_engines.runtime.engine import Engine, check_fits

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
LANES = 2
_UNRECORDED = "no CUDA graph: "


class PendingBatch:
    """The answer of one batch, as soon as it is there: `result`."""

    def __init__(self, lane: StagingBuffers, count: int) -> None:
        self._lane, self._count = lane, count
        self._points: Float32 | None = None
        self._lock = threading.Lock()  # the lane's next batch may ask at the same time

    def result(self) -> Float32:
        """x, y (crop px) and score, float32 (N, K, 3). Raises DeviceError, KernelError."""
        with self._lock:
            if self._points is None:
                self._lane.done.reach()
                self._points = self._lane.points[: self._count].copy()
            return self._points


class Fuse:
    """The views' maps of a batch to one each: their peaks first, which weigh them."""

    def __init__(self, device: Device, spec: ModelSpec, views: Sequence[View]) -> None:
        self._device = device
        self._peaks = DecodeTables.of(device, dataclasses.replace(spec, decode="argmax"))
        self._tables = ViewTables.of(device, spec, views)

    def __call__(self, maps: Maps, batch: Batch, stream: Stream) -> None:
        """Two launches; the answer is `batch.fused`. Raises KernelError."""
        found, out = batch.found, batch.fused
        decode_flip(self._device, maps, self._peaks, out=found, stream=stream)
        fuse_views(self._device, maps, self._tables, found=found, out=out, stream=stream)


class BatchRunner:
    """Runs batches through `engine` on `device`.

    look: the mirrored crops too, merged in the decode; or several views, fused before it.
    most: persons of the largest batch; the engine may bring it down.  graphs: record each bucket
    once and replay it; what cannot be recorded is launched piece by piece, and `notes` say so.
    `stream` is where all but the pictures' upload runs. Raises EngineError: it fits no bucket.
    """

    def __init__(
        self,
        device: Device,
        engine: Engine,
        spec: ModelSpec,
        *,
        look: TtaOptions,
        most: int,
        graphs: bool,
    ) -> None:
        check_fits(engine, spec)
        flip = look.flip and look.views is None
        self._views = len(look.each)
        self._images = self._views * (1 + flip)
        self.notes: list[str] = []
        self.stream: Stream = device.stream()
        self.buckets = _buckets(engine, most, self._images)
        self._device, self._engine, self._spec, self._flip = device, engine, spec, flip
        self._graphs = graphs
        self._tables = DecodeTables.of(device, spec)
        self._fuse = Fuse(device, spec, look.each) if self._views > 1 else None
        largest = self.buckets[-1]
        self._batch = Batch(device, engine, largest, flip=flip, views=self._views)
        self._lanes = [
            StagingBuffers(device, spec, largest, views=self._views) for _ in range(LANES)
        ]
        self._last: list[PendingBatch | None] = [None] * LANES
        self._next = 0
        self._recorded: dict[tuple[int, int, Layout], Graph] = {}
        self._prepared: set[int] = set()
        self._ran: set[tuple[int, Layout]] = set()
        self._lock = threading.Lock()

    def queue(self, cut: CropRequest, start: int, stop: int) -> PendingBatch:
        """Queue persons `start` to `stop`, at most the largest bucket's. Raises EngineError."""
        with self._lock:
            number, self._next = self._next, (self._next + 1) % LANES
            if (before := self._last[number]) is not None:
                before.result()  # the lane's pinned memory is free again
            lane, count = self._lanes[number], stop - start
            bucket = self.bucket(count)
            control = LaunchTable.on_host(lane.control, bucket * self._views)
            control.fill(cut, start * self._views, stop * self._views)
            for slot in cut.slots:
                self.stream.wait(slot.uploaded)
            self._run(number, bucket, cut.layout)
            for slot in cut.slots:
                slot.read.record(self.stream)
            lane.done.record(self.stream)
            part = self._last[number] = PendingBatch(lane, count)
            return part

    def bucket(self, count: int) -> int:
        """The size of the batch that takes `count` persons."""
        return next(size for size in self.buckets if size >= count)

    def prepare(self, persons: Sequence[int]) -> None:
        """Compile, run once and record what batches of so many persons need."""
        with self._lock:
            self.stream.finish()
            for number, lane in enumerate(self._lanes):
                if (before := self._last[number]) is not None:
                    before.result()
                for count in persons:
                    bucket = self.bucket(min(count, self.buckets[-1]))
                    LaunchTable.on_host(lane.control, bucket * self._views).clear()
                    self._get_ready(number, bucket, RGB)

    def _run(self, number: int, bucket: int, layout: Layout) -> None:
        self._get_ready(number, bucket, layout)
        graph = self._recorded.get((number, bucket, layout))
        if graph is None:
            self._launch(number, bucket, layout)
        else:
            graph.replay(self.stream)

    def _get_ready(self, number: int, bucket: int, layout: Layout) -> None:
        """The first use of a bucket runs it once: nothing may be loaded while a graph records."""
        if bucket not in self._prepared:
            batch, count = self._batch, bucket * self._images
            self._engine.prepare(batch.images.address, batch.heatmaps.address, count=count)
            self._prepared.add(bucket)
        if (bucket, layout) not in self._ran:
            self._launch(number, bucket, layout)
            self.stream.finish()
            self._ran.add((bucket, layout))
        if self._graphs and (number, bucket, layout) not in self._recorded:
            self._record(number, bucket, layout)

    def _record(self, number: int, bucket: int, layout: Layout) -> None:
        """An engine that cannot be recorded yet is asked again at the next batch."""
        count = bucket * self._images
        why = self._engine.capturable(count, self.stream.handle)
        if not why:
            try:
                with self._device.capture(self.stream) as graph:
                    self._launch(number, bucket, layout)
                self._recorded[number, bucket, layout] = graph
            except (EngineError, DeviceError) as error:
                why, self._graphs = str(error), False
        self.notes[:] = [note for note in self.notes if not note.startswith(_UNRECORDED)]
        if why:
            self.notes.append(f"{_UNRECORDED}{why}")

    def _launch(self, number: int, bucket: int, layout: Layout) -> None:
        """All of a batch, in order; the graph records exactly this."""
        lane, batch, stream = self._lanes[number], self._batch, self.stream
        crops = bucket * self._views
        control = LaunchTable.on_gpu(batch.control, crops)
        used = control.to_frame.address + control.to_frame.nbytes - batch.control.address
        batch.control.upload(lane.control[:used], stream)
        crop_normalize(
            self._device,
            Frames(control.table, control.frame_of, layout.format, layout.color),
            self._spec,
            crops=Crops.of(batch.images, crops, flip=self._flip),
            to_frame=control.to_frame,
            stream=stream,
        )
        self._engine.enqueue(bucket * self._images, stream.handle)
        maps = Maps.of(batch.heatmaps, crops, flip=self._flip)
        if self._fuse is not None:
            self._fuse(maps, batch, stream)
            maps = Maps.of(batch.fused, bucket, flip=False)
        decode_flip(self._device, maps, self._tables, out=batch.points, stream=stream)
        batch.points.download(lane.points[:bucket], stream)


def _buckets(engine: Engine, most: int, views: int) -> tuple[int, ...]:
    """Those that the engine takes, up to `most` persons. Raises EngineError."""
    fitting = [size for size in BUCKETS if engine.least <= size * views <= engine.most]
    wanted = [size for size in fitting if size <= most] or fitting[:1]
    if not wanted:
        raise EngineError(
            f"{engine.name}: takes {engine.least} to {engine.most} images at a time; wanted a "
            f"number of {views} to {BUCKETS[-1] * views}"
        )
    return tuple(wanted)


def joined(parts: Sequence[PendingBatch], keypoints: int) -> tuple[Float32, Float32]:
    """Points (N, K, 2), crop px, and scores (N, K) of all parts. Raises DeviceError."""
    rows = [part.result() for part in parts]
    whole = np.concatenate([np.zeros((0, keypoints, 3), np.float32), *rows])
    return np.ascontiguousarray(whole[..., :2]), np.ascontiguousarray(whole[..., 2])
