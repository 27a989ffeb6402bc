"""One batch on the GPU: upload the launch table, crop, network, decode, download; one CUDA graph.

Batches are padded to the size of a bucket, since a graph has a fixed size. All batches run one
after another on one stream and share the GPU's memory; the host has two sets of staging buffers,
so that the next batch can be queued while one is computed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from posekit.errors import DeviceError, EngineError
from posekit.inference.tta import TtaOptions, View
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
IN_FLIGHT = 2
_UNRECORDED = "no CUDA graph: "


class PendingBatch:
    """The output of one queued batch, as a future."""

    def __init__(self, staging: StagingBuffers, count: int) -> None:
        self._staging, self._count = staging, count
        self._points: Float32 | None = None
        self._lock = threading.Lock()  # the next batch in these buffers may call `result` too

    def result(self) -> Float32:
        """x, y (crop px) and score, float32 (N, K, 3). Raises DeviceError, KernelError."""
        with self._lock:
            if self._points is None:
                self._staging.done.synchronize()
                self._points = self._staging.points[: self._count].copy()
            return self._points


class ViewFusion:
    """Heatmaps of a batch's views to one map per person: finds the peaks, which are the weights."""

    def __init__(self, device: Device, spec: ModelSpec, views: Sequence[View]) -> None:
        self._device = device
        self._argmax = DecodeTables.of(device, dataclasses.replace(spec, decode="argmax"))
        self._tables = ViewTables.of(device, spec, views)

    def __call__(self, maps: Maps, batch: Batch, stream: Stream) -> None:
        """Two launches; the output is `batch.fused`. Raises KernelError."""
        peaks, out = batch.peaks, batch.fused
        decode_flip(self._device, maps, self._argmax, out=peaks, stream=stream)
        fuse_views(self._device, maps, self._tables, found=peaks, out=out, stream=stream)


class BatchRunner:
    """Runs batches through `engine` on `device`.

    tta: the flip test, merged in the decode, or several views, fused before it.
    max_persons: of the largest batch; the engine may lower it.  graphs: record each bucket once
    and replay it; what cannot be recorded is launched call by call, with a note in `notes`.
    stream: runs all but the upload of frames.  Raises EngineError: no bucket fits the engine.
    """

    def __init__(
        self,
        device: Device,
        engine: Engine,
        spec: ModelSpec,
        *,
        tta: TtaOptions,
        max_persons: int,
        graphs: bool,
    ) -> None:
        check_fits(engine, spec)
        flip = tta.flip and tta.views is None
        self._views = len(tta.each)
        self._images = self._views * (1 + flip)
        self.notes: list[str] = []
        self.stream: Stream = device.stream()
        self.buckets = _buckets(engine, max_persons, self._images)
        self._device, self._engine, self._spec, self._flip = device, engine, spec, flip
        self._graphs = graphs
        self._tables = DecodeTables.of(device, spec)
        self._fuse = ViewFusion(device, spec, tta.each) if self._views > 1 else None
        largest = self.buckets[-1]
        self._batch = Batch(device, engine, largest, flip=flip, views=self._views)
        self._staging = [
            StagingBuffers(device, spec, largest, views=self._views) for _ in range(IN_FLIGHT)
        ]
        self._previous: list[PendingBatch | None] = [None] * IN_FLIGHT
        self._next = 0
        self._recorded: dict[tuple[int, int, Layout], Graph] = {}
        self._prepared: set[int] = set()
        self._ran: set[tuple[int, Layout]] = set()
        self._lock = threading.Lock()

    def queue(self, request: CropRequest, start: int, stop: int) -> PendingBatch:
        """Queue persons `start` to `stop`, at most the largest bucket's. Raises EngineError."""
        with self._lock:
            number, self._next = self._next, (self._next + 1) % IN_FLIGHT
            if (previous := self._previous[number]) is not None:
                previous.result()  # its pinned memory is free again
            staging, count = self._staging[number], stop - start
            bucket = self.bucket(count)
            table = LaunchTable.on_host(staging.launch_table, bucket * self._views)
            table.fill(request, start * self._views, stop * self._views)
            for slot in request.slots:
                self.stream.wait(slot.uploaded)
            self._run(number, bucket, request.layout)
            for slot in request.slots:
                slot.read.record(self.stream)
            staging.done.record(self.stream)
            pending = self._previous[number] = PendingBatch(staging, count)
            return pending

    def bucket(self, count: int) -> int:
        """The smallest batch size for `count` persons."""
        return next(size for size in self.buckets if size >= count)

    def prepare(self, persons: Sequence[int]) -> None:
        """Compile, run once and record what batches of these numbers of persons need."""
        with self._lock:
            self.stream.synchronize()
            for number, staging in enumerate(self._staging):
                if (previous := self._previous[number]) is not None:
                    previous.result()
                for count in persons:
                    bucket = self.bucket(min(count, self.buckets[-1]))
                    LaunchTable.on_host(staging.launch_table, bucket * self._views).clear()
                    self._ensure_ready(number, bucket, RGB)

    def _run(self, number: int, bucket: int, layout: Layout) -> None:
        self._ensure_ready(number, bucket, layout)
        graph = self._recorded.get((number, bucket, layout))
        if graph is None:
            self._launch(number, bucket, layout)
        else:
            graph.replay(self.stream)

    def _ensure_ready(self, number: int, bucket: int, layout: Layout) -> None:
        """Run a bucket once on first use: nothing can be loaded while a graph is recorded."""
        if bucket not in self._prepared:
            batch, count = self._batch, bucket * self._images
            self._engine.prepare(batch.images.address, batch.heatmaps.address, count=count)
            self._prepared.add(bucket)
        if (bucket, layout) not in self._ran:
            self._launch(number, bucket, layout)
            self.stream.synchronize()
            self._ran.add((bucket, layout))
        if self._graphs and (number, bucket, layout) not in self._recorded:
            self._record(number, bucket, layout)

    def _record(self, number: int, bucket: int, layout: Layout) -> None:
        """Record a bucket's graph; an engine that cannot be recorded yet is retried each batch."""
        count = bucket * self._images
        reason = self._engine.capturable(count, self.stream.handle)
        if not reason:
            try:
                with self._device.capture(self.stream) as graph:
                    self._launch(number, bucket, layout)
                self._recorded[number, bucket, layout] = graph
            except (EngineError, DeviceError) as error:
                reason, self._graphs = str(error), False
        self.notes[:] = [note for note in self.notes if not note.startswith(_UNRECORDED)]
        if reason:
            self.notes.append(f"{_UNRECORDED}{reason}")

    def _launch(self, number: int, bucket: int, layout: Layout) -> None:
        """All work of a batch, in order; the graph records exactly this."""
        staging, batch, stream = self._staging[number], self._batch, self.stream
        crops = bucket * self._views
        table = LaunchTable.on_gpu(batch.launch_table, crops)
        used = table.to_frame.address + table.to_frame.nbytes - batch.launch_table.address
        batch.launch_table.upload(staging.launch_table[:used], stream)
        crop_normalize(
            self._device,
            Frames(table.frames, table.frame_of, layout.format, layout.color),
            self._spec,
            crops=Crops.of(batch.images, crops, flip=self._flip),
            to_frame=table.to_frame,
            stream=stream,
        )
        self._engine.enqueue(bucket * self._images, stream.handle)
        maps = Maps.of(batch.heatmaps, crops, flip=self._flip)
        if self._fuse is not None:
            self._fuse(maps, batch, stream)
            maps = Maps.of(batch.fused, bucket, flip=False)
        decode_flip(self._device, maps, self._tables, out=batch.points, stream=stream)
        batch.points.download(staging.points[:bucket], stream)


def _buckets(engine: Engine, max_persons: int, views: int) -> tuple[int, ...]:
    """The buckets that the engine takes, up to `max_persons`. Raises EngineError."""
    low, high = engine.min_images, engine.max_images
    fitting = [size for size in BUCKETS if low <= size * views <= high]
    wanted = [size for size in fitting if size <= max_persons] or fitting[:1]
    if not wanted:
        raise EngineError(
            f"{engine.name}: takes {low} to {high} images at a time; wanted a number of {views} to "
            f"{BUCKETS[-1] * views}"
        )
    return tuple(wanted)


def joined_points(batches: Sequence[PendingBatch], keypoints: int) -> tuple[Float32, Float32]:
    """Points (N, K, 2), crop px, and scores (N, K) of all batches. Raises DeviceError."""
    rows = [batch.result() for batch in batches]
    whole = np.concatenate([np.zeros((0, keypoints, 3), np.float32), *rows])
    return np.ascontiguousarray(whole[..., :2]), np.ascontiguousarray(whole[..., 2])
