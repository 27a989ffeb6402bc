"""Time of each of posekit's kernels on a GPU, by CUDA events, and its bandwidth.

A kernel of a few microseconds cannot be timed one launch at a time: many are recorded in one graph,
each on its own data, and the graph is replayed between two events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from posekit.geometry import Warp
from posekit.inference.tta import VIEWS
from posekit.skeletons import COCO_17
from posekit.types import Boxes, ModelSpec, UInt8
from posekit_engines.cuda.device import Buffer, Device, Stream
from posekit_engines.ops.crop_normalize import Crops, Frames, crop_normalize, frame_table
from posekit_engines.ops.decode_flip import DecodeTables, decode_flip
from posekit_engines.ops.fuse_views import ViewTables, fuse_views
from posekit_engines.ops.launch import Maps

SPEC = ModelSpec(
    "hrnet", (192, 256), (48, 64), COCO_17, decode="quarter", flip_shift=1.0, padding=1.25
)
"""The timed sizes, those of most published models: 192 x 256 px, 48 x 64 cells, 17 keypoints."""
FRAME = (1920, 1080)
HALF = np.dtype(np.float16)


@dataclass(frozen=True)
class Effort:
    """How much is measured.  persons: batch sizes.  seconds: for each figure.

    launches: maximum in a graph.  pool_bytes: memory that they read in turn, so that the GPU's
    cache holds no more than in real use.
    """

    persons: tuple[int, ...] = (1, 8, 32, 64)
    seconds: float = 1.0
    launches: int = 256
    pool_bytes: int = 512 << 20


Queue = Callable[[int, Stream], None]
"""Queues launch number n on a stream."""


def quantiles(ms: Sequence[float]) -> dict[str, float]:
    """Median, p99 and minimum of times in milliseconds, as microseconds, and their number."""
    us = 1e3 * np.asarray(ms, np.float64)
    named = {"p50_us": np.median(us), "p99_us": np.percentile(us, 99), "min_us": us.min()}
    return {**{name: round(float(value), 3) for name, value in named.items()}, "runs": len(us)}


def repeated(once: Callable[[], float], seconds: float, min_runs: int = 3) -> list[float]:
    """Results of `once`, called repeatedly for `seconds` and at least `min_runs` times."""
    end = perf_counter() + seconds
    found: list[float] = []
    while perf_counter() < end or len(found) < min_runs:
        found.append(once())
    return found


def wall_ms(work: Callable[[], object]) -> Callable[[], float]:
    """`work`, which must be synchronous, timed by the host's clock."""

    def once() -> float:
        start = perf_counter()
        work()
        return 1e3 * (perf_counter() - start)

    return once


def graph_ms(device: Device, queue: Queue, launches: int, *, seconds: float) -> list[float]:
    """Milliseconds per launch, from replays of a graph of `launches`. Raises KernelError."""
    stream = device.stream()
    queue(0, stream)  # compiled and loaded before anything is recorded
    stream.synchronize()
    with device.capture(stream) as graph:
        for n in range(launches):
            queue(n, stream)
    start, end = device.event(), device.event()

    def once() -> float:
        start.record(stream)
        graph.replay(stream)
        end.record(stream)
        stream.synchronize()
        return end.since_ms(start) / launches

    once()
    return repeated(once, seconds)


def launches_for(size: int, effort: Effort) -> int:
    """Number of launches of `size` bytes each that fit the pool; at least 4 if that is allowed."""
    return max(min(effort.launches, effort.pool_bytes // max(size, 1)), min(4, effort.launches))


def kernels(device: Device, effort: Effort) -> dict[str, Any]:
    """Each kernel at each number of persons: times, bytes moved, achieved bandwidth.

    Raises KernelError, DeviceError.
    """
    floor = graph_ms(device, _smallest(device), effort.launches, seconds=effort.seconds)
    rows = {}
    for persons in effort.persons:
        for name, make in QUEUES.items():
            rows[f"{name}, {persons}"] = _timed(device, make, persons, effort=effort)
    return {"floor_us": quantiles(floor)["p50_us"], "rows": rows}


def _timed(
    device: Device, make: Callable[..., tuple[Queue, int]], persons: int, *, effort: Effort
) -> dict[str, Any]:
    _, size = make(device, persons, 1)
    launches = launches_for(size, effort)
    queue, size = make(device, persons, launches)
    found = quantiles(graph_ms(device, queue, launches, seconds=effort.seconds))
    rate = size / (found["p50_us"] * 1e-6)
    setup = {"persons": persons, "bytes": size, "launches": launches}
    return {**setup, **found, "bytes_per_s": float(f"{rate:.4g}")}


def _smallest(device: Device) -> Queue:
    """decode_flip with almost no work: the cost of a launch."""
    spec = ModelSpec("hrnet", (4, 4), (1, 1), COCO_17, decode="argmax")
    return decode_queue(device, 1, 1, spec=spec)[0]


def decode_queue(
    device: Device, persons: int, slots: int, *, spec: ModelSpec = SPEC
) -> tuple[Queue, int]:
    """decode_flip on `slots` batches of FP16 maps in turn, and the bytes moved by one launch."""
    pool = heatmap_pool(device, persons, slots, spec=spec)
    tables = DecodeTables.of(device, spec)
    out = device.buffer((persons, len(spec.skeleton), 3), np.float32)

    def queue(n: int, stream: Stream) -> None:
        layout = Maps.of(row_of(pool, n), persons, flip=True)
        decode_flip(device, layout, tables, out=out, stream=stream)

    return queue, pool.nbytes // slots + out.nbytes


def crop_queue(
    device: Device, persons: int, slots: int, *, spec: ModelSpec = SPEC
) -> tuple[Queue, int]:
    """crop_normalize of one RGB frame into `slots` batches in turn, and the bytes of one launch.

    Each byte of the frame under a box and each byte written is counted once.
    """
    image, boxes = scene(persons)
    width, height = spec.input_size
    frame = device.upload(image)
    table = frame_table([(frame.address, *FRAME, 3 * FRAME[0])], "rgb")
    of = device.upload(np.zeros(persons, np.int32))
    frames = Frames(device.upload(table), of)
    to_frame = Warp.from_boxes(boxes, spec).inverse()
    matrices = device.upload(to_frame.matrix.astype(np.float32))
    pool = device.buffer((slots, 2 * persons, 3, height, width), HALF)

    def queue(n: int, stream: Stream) -> None:
        _ = frame  # kept alive: the table has only its address
        crops = Crops.of(row_of(pool, n), persons, flip=True)
        crop_normalize(device, frames, spec, crops=crops, to_frame=matrices, stream=stream)

    read = min(int(np.abs(np.linalg.det(to_frame.matrix[:, :, :2])).sum() * width * height) * 3,
               frame.nbytes)  # fmt: skip
    return queue, pool.nbytes // slots + read


def fuse_queue(
    device: Device, persons: int, slots: int, *, spec: ModelSpec = SPEC
) -> tuple[Queue, int]:
    """fuse_views on `slots` batches of FP16 maps of eight views in turn, and the bytes of one.

    Each cell of the maps is counted once. The weights are those of the first batch.
    """
    views = VIEWS[8]
    images = persons * len(views)
    pool = heatmap_pool(device, images // 2, slots, spec=spec)
    found = device.buffer((*pool.shape[1:3], 3), np.float32)
    peaks = DecodeTables.of(device, dataclasses.replace(spec, decode="argmax"))
    decode_flip(device, Maps.of(row_of(pool, 0), images, flip=False), peaks, out=found)
    device.driver.synchronize_stream(0)
    tables = ViewTables.of(device, spec, views)
    out = device.buffer((persons, *pool.shape[2:]), np.float32)

    def queue(n: int, stream: Stream) -> None:
        layout = Maps.of(row_of(pool, n), images, flip=False)
        fuse_views(device, layout, tables, found=found, out=out, stream=stream)

    return queue, pool.nbytes // slots + found.nbytes + out.nbytes


QUEUES = {"decode_flip": decode_queue, "crop_normalize": crop_queue, "fuse_views": fuse_queue}


def row_of(pool: Buffer, n: int) -> Buffer:
    """Row n of a buffer, modulo the number of rows."""
    size = pool.nbytes // pool.shape[0]
    return pool.view(n % pool.shape[0] * size, pool.shape[1:], pool.dtype)


def heatmap_pool(device: Device, persons: int, slots: int, *, spec: ModelSpec) -> Buffer:
    """`slots` batches of different heatmaps, float16 (slots, 2 N, K, h, w)."""
    (width, height), keypoints = spec.heatmap_size, len(spec.skeleton)
    pool = device.buffer((slots, 2 * persons, keypoints, height, width), HALF)
    for n in range(slots):
        row_of(pool, n).upload(hard_heatmaps(persons, spec, seed=n))
    return pool


def hard_heatmaps(persons: int, spec: ModelSpec, seed: int = 0) -> np.ndarray[Any, Any]:
    """A peak in noise for each keypoint, float16 (2 N, K, h, w), the mirrored ones last.

    One block of persons repeated: a map's content does not change the time to read it. One cell of
    each map is raised: the merge has a single highest cell, since torch breaks ties arbitrarily.
    """
    (width, height), random = spec.heatmap_size, np.random.default_rng(seed)
    distinct = min(2 * persons, 4)
    maps = 0.05 * random.standard_normal((distinct, len(spec.skeleton), height, width))
    y, x = np.mgrid[:height, :width]
    at = random.uniform(0, 1, (*maps.shape[:2], 2)) * (height, width)
    squared = (y - at[..., :1, None]) ** 2 + (x - at[..., 1:, None]) ** 2
    maps += np.exp(-squared / 8)
    top = at.astype(int)
    rows, columns = np.resize(top, (2 * persons, *top.shape[1:])).transpose(2, 0, 1)
    both = np.resize(maps.astype(HALF), (2 * persons, *maps.shape[1:]))
    heights = np.repeat([4, 2], persons)[:, None]  # 4 and any noise are above 2 and another peak
    both[np.arange(2 * persons)[:, None], np.arange(len(spec.skeleton)), rows, columns] = heights
    return both


def scene(persons: int) -> tuple[UInt8, Boxes]:
    """A frame of noise, (1080, 1920, 3), and boxes of people 200 to 700 px high."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (FRAME[1], FRAME[0], 3), np.uint8)
    height = random.uniform(200, 700, persons)
    left, top = random.uniform(0, 1, (2, persons)) * (FRAME[0] - height / 2, FRAME[1] - height)
    xyxy = np.stack([left, top, left + height / 2, top + height], 1)
    return image, Boxes(xyxy.astype(np.float32))
