"""The whole runtime on a GPU, from frame to points, and the bare engine beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from posekit.bundle import Bundle
from posekit.geometry import Warp
from posekit.types import UInt8
from posekit_engines.cuda.device import Device, Stream
from posekit_engines.gpu_check.plans import PlanSource, open_gpu_runtime, plan_summary
from posekit_engines.gpu_check.timing import Effort, graph_ms, quantiles, repeated, scene, wall_ms
from posekit_engines.runtime.runtime import GpuRuntime
from posekit_engines.trt.engine import TensorRTEngine
from posekit_engines.trt.plan import PlanOptions

_IN_FLIGHT = 2


def end_to_end(
    device: Device, bundle: Bundle, plans: PlanSource, *, effort: Effort
) -> dict[str, Any]:
    """For each number of persons in a 1080p frame: latency, frames a second, the bare engine.

    Raises EngineError, DeviceError, MissingExtraError.
    """
    runtime, plan = open_gpu_runtime(device, bundle, plans)
    engine = TensorRTEngine(plans.trt, plans.find(bundle, device, PlanOptions()).data, device)
    rows = {}
    for persons in effort.persons:
        if persons > runtime.buckets[-1]:
            rows[str(persons)] = {"not run": f"the engine takes at most {runtime.buckets[-1]}"}
            continue
        rows[str(persons)] = _row(runtime, device, engine, persons=persons, effort=effort)
    return {
        "model": bundle.name,
        "architecture": runtime.spec.architecture,
        "provider": runtime.provider,
        "plan": plan_summary(plan),
        "notes": list(runtime.notes),
        "rows": rows,
    }


def _row(
    runtime: GpuRuntime, device: Device, engine: TensorRTEngine, *, persons: int, effort: Effort
) -> dict[str, Any]:
    image, boxes = scene(persons)
    warp = Warp.from_boxes(boxes, runtime.spec)
    frames = [image, image[::-1].copy()]
    runtime.prepare([persons])
    number = iter(range(1 << 60))

    def one() -> None:
        runtime.infer(runtime.crop(frames[next(number) % 2], warp))

    one()
    latency = quantiles(repeated(wall_ms(one), effort.seconds))
    rate = _rate(runtime, frames, warp, seconds=effort.seconds)
    count = persons * (1 + runtime.flip)
    bare = quantiles(_bare(device, engine, count, effort=effort))
    return {
        "latency": latency,
        "frames_per_s": round(rate, 2),
        "persons_per_s": round(rate * persons, 1),
        "bare engine": bare,
        "share": round(rate * bare["p50_us"] * 1e-6, 4),
    }


def _rate(runtime: GpuRuntime, frames: Sequence[UInt8], warp: Warp, *, seconds: float) -> float:
    """Frames per second with two in flight and the next one's upload started."""
    pending: deque[Any] = deque()
    count, start = 0, perf_counter()
    end = start + seconds
    while perf_counter() < end or count < _IN_FLIGHT:
        frame = frames[count % 2]
        pending.append(runtime.queue(runtime.crop(frame, warp)))
        runtime.prefetch([frames[(count + 1) % 2]])
        if len(pending) > _IN_FLIGHT - 1:
            pending.popleft().result()
        count += 1
    while pending:
        pending.popleft().result()
    return count / (perf_counter() - start)


def _bare(device: Device, engine: TensorRTEngine, count: int, *, effort: Effort) -> list[float]:
    """Milliseconds of the network alone on `count` images, in a graph where it can be recorded."""
    images = device.upload(np.zeros((count, *engine.image), engine.image_dtype))
    maps = device.buffer((count, *engine.heatmaps), engine.heatmaps_dtype)
    engine.prepare(images.address, maps.address, count=count)
    stream = device.stream()
    engine.enqueue(count, stream.handle)
    stream.synchronize()
    if not engine.capturable(count, stream.handle):

        def queue(_: int, on: Stream) -> None:
            engine.enqueue(count, on.handle)

        return graph_ms(device, queue, min(effort.launches, 8), seconds=effort.seconds)
    start, end = device.event(), device.event()

    def once() -> float:
        start.record(stream)
        engine.enqueue(count, stream.handle)
        end.record(stream)
        stream.synchronize()
        return end.since_ms(start)

    return repeated(once, effort.seconds)
