"""Runs the whole GPU runtime on the stand-in libcuda, for test_runtime.py.

Arguments: the driver package, the bundle, and the name of a trial. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posekit import bundle, video
from posekit.bundle import Bundle
from posekit.errors import PosekitError
from posekit.geometry import Warp, compose
from posekit.inference.runtime import Runtime
from posekit.inference.tta import TtaOptions, TtaRuntime, View, matrix_of
from posekit.stats.parity import compare
from posekit.types import Boxes, Float32, UInt8
from posekit_engines.cuda.open import open_device
from posekit_engines.ops import reference
from posekit_engines.runtime.runtime import GpuRuntime
from posekit_engines.trt.engine import TensorRTEngine
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.support.assets import shipped

PERSONS = {  # xyxy of people in the images, as found by the embedded detector
    "tests/data/coco_000000234748.jpg": [[273, 128, 414, 383]],
    "tests/data/coco_000000397133.jpg": [[384, 70, 497, 348]],
    "examples/sports2d_demo.mp4": [[783, 296, 857, 526], [279, 37, 379, 249]],
}


def load_images() -> tuple[list[UInt8], list[Boxes]]:
    images = []
    for name in PERSONS:
        if name.endswith(".mp4"):
            with video.read(shipped(name)) as reader:
                images.append(next(iter(reader)).image)
        else:
            images.append(np.ascontiguousarray(cv2.imread(str(shipped(name)))[..., ::-1]))
    return images, [Boxes(np.array(each, np.float32)) for each in PERSONS.values()]


def opened(driver: str, model: Bundle, **options: Any) -> GpuRuntime:
    device = open_device(0, driver)  # type: ignore[arg-type]
    half, max_images = options.pop("half", True), options.pop("images", 128)
    tta = TtaOptions(options.pop("flip", True), options.pop("views", None))
    engine = TensorRTEngine(trt, trt.plan_of(model, half=half, max_images=max_images), device)
    return GpuRuntime(model, device, engine, tta=tta, **options)


def deviations(
    points: Float32, scores: Float32, wanted: tuple[Float32, Float32]
) -> dict[str, float]:
    """Largest deviation of high-confidence points, crop px, of any score; points compared."""
    parity = compare(points, scores, wanted, crops=len(points))
    return {"px": parity.max_px, "score": parity.max_score, "compared": parity.points}


def reference_maps(
    model: Bundle, images: list[UInt8], warps: list[Warp], *, half: bool
) -> Iterator[Float32]:
    """Maps of the crops, then of the mirrored ones, without a GPU: numpy crops, ONNX Runtime."""
    frame_of = np.repeat(np.arange(len(images)), [len(warp) for warp in warps])
    to_frame = Warp(np.concatenate([warp.inverse().matrix for warp in warps]))
    crops = reference.crop_normalize(
        images, model.pose_spec, to_frame=to_frame, frame_of=frame_of.tolist()
    )
    session = trt.Engine({}, trt.raw_graph(model, half=half).SerializeToString()).session
    kind = np.float16 if half else np.float32
    return (session.run(None, {"image": view.astype(kind)})[0] for view in crops)


def reference_points(
    model: Bundle, images: list[UInt8], warps: list[Warp], *, flip: bool, half: bool
) -> tuple[Float32, Float32]:
    """The same arithmetic without a GPU, decoded in numpy."""
    maps, mirrored = reference_maps(model, images, warps, half=half)
    points = reference.decode_flip(maps, model.pose_spec, mirrored=mirrored if flip else None)
    return points[..., :2], points[..., 2]


def reference_views(
    model: Bundle, images: list[UInt8], warps: list[Warp], views: Sequence[View]
) -> tuple[Float32, Float32]:
    """The same arithmetic of several views, fused and decoded in numpy."""
    spec, turns = model.pose_spec, np.stack([matrix_of(view, model.pose_spec) for view in views])
    each = [Warp(compose(turns[None], w.matrix[:, None]).reshape(-1, 2, 3)) for w in warps]
    maps = next(reference_maps(model, images, each, half=True))
    together = maps.reshape(-1, len(views), *maps.shape[1:])
    points = reference.decode_flip(reference.fuse_views(together, spec, views), spec)
    return points[..., :2], points[..., 2]


def sensitivity(crops: UInt8, runtime: Runtime) -> float:
    """Deviation of the CPU's points for crops changed by one gray level in every byte, px."""
    noise = np.random.default_rng(0).integers(0, 2, crops.shape) * 2 - 1
    points, scores = runtime.infer(np.clip(crops + noise, 0, 255).astype(np.uint8))
    return deviations(points, scores, runtime.infer(crops))["px"]


def batch(driver: str, model: Bundle, *, flip: bool, half: bool = True) -> dict[str, Any]:
    """Real persons of three images in one batch: against the CPU runtime and numpy reference."""
    images, boxes = load_images()
    warps = [Warp.from_boxes(each, model.pose_spec) for each in boxes]
    runtime = opened(driver, model, flip=flip, half=half)
    found = runtime.infer(runtime.crops(images, warps))
    again = runtime.infer(runtime.crops(images, warps))
    cpu = Runtime(model, device="cpu", threads=1, flip=flip)
    crops = np.concatenate([cpu.crop(i, w) for i, w in zip(images, warps, strict=True)])
    return {
        "provider": runtime.provider,
        "notes": runtime.notes,
        "cpu": deviations(*found, cpu.infer(crops)),
        "reference": deviations(
            *found, reference_points(model, images, warps, flip=flip, half=half)
        ),
        "gray_level_px": sensitivity(crops, cpu),
        "again": bool(all((a == b).all() for a, b in zip(found, again, strict=True))),
        "runs": trt.RUNS,
    }


def several_views(driver: str, model: Bundle, views: int) -> dict[str, Any]:
    """Real persons in several views: against the CPU's TtaRuntime and the numpy reference."""
    images, boxes = load_images()
    warps = [Warp.from_boxes(each, model.pose_spec) for each in boxes]
    runtime = opened(driver, model, views=views)
    found = runtime.infer(runtime.crops(images, warps))
    cpu = TtaRuntime(model, views=views, device="cpu", threads=1)
    crops = np.concatenate([cpu.crop(i, w) for i, w in zip(images, warps, strict=True)])
    return {
        "cpu": deviations(*found, cpu.infer(crops)),
        "reference": deviations(*found, reference_views(model, images, warps, cpu.views)),
        "gray_level_px": sensitivity(crops, cpu),
        "calibrated": [each.calibration is not None for each in (runtime, cpu)],
        "buckets": runtime.buckets,
        "runs": trt.RUNS,
    }


def batches(driver: str, model: Bundle) -> dict[str, Any]:
    """Other numbers of persons than a bucket's, more than the largest, none, and one by one."""
    images, boxes = load_images()
    warps = [Warp.from_boxes(each, model.pose_spec) for each in boxes]
    runtime = opened(driver, model, flip=False, images=2)
    whole = runtime.infer(runtime.crops(images, warps))
    singly = [runtime.infer(runtime.crop(i, w)) for i, w in zip(images, warps, strict=True)]
    empty = Warp.from_boxes(Boxes(np.zeros((0, 4), np.float32)), model.pose_spec)
    none = runtime.infer(runtime.crop(images[0], empty))
    reversed_ = [image[:, ::-1] for image in images]  # not contiguous: must be copied too
    strided = runtime.infer(runtime.crops(reversed_, warps))
    copied = [np.ascontiguousarray(image) for image in reversed_]
    wide = opened(driver, model, flip=True)
    four = wide.infer(wide.crops(images, warps))
    three = wide.infer(wide.crops(images[1:], warps[1:]))
    return {
        "buckets": runtime.buckets,
        "filled up": float(np.abs(three[0] - four[0][1:]).max()),
        "singly": float(np.abs(np.concatenate([p for p, _ in singly]) - whole[0]).max()),
        "none": [list(each.shape) for each in none],
        "strided": float(np.abs(strided[0] - runtime.infer(runtime.crops(copied, warps))[0]).max()),
    }


def film(driver: str, model: Bundle, *, plant: str = "") -> dict[str, Any]:
    """Frames in turn, the next one prefetched, two batches queued; every output is compared.

    plant: an error in the calls, a name in MISTAKES.
    """
    with video.read(shipped("examples/sports2d_demo.mp4")) as reader:
        frames = [frame.image for frame, _ in zip(reader, range(6), strict=False)]
    frames = [frame if n % 2 else frame[::-1, ::-1] for n, frame in enumerate(frames)]
    boxes = Boxes(np.array(PERSONS["examples/sports2d_demo.mp4"], np.float32)[:1])
    warp = Warp.from_boxes(boxes, model.pose_spec)
    runtime = opened(driver, model, flip=False)
    runtime.prepare([1])
    wanted = [runtime.infer(runtime.crop(frame.copy(), warp)) for frame in frames]
    if plant:
        MISTAKES[plant](runtime)
    calls = record(runtime)
    found, previous = [], None
    for n, frame in enumerate(frames):
        pending = runtime.queue(runtime.crop(frame, warp))
        runtime.prefetch(frames[n + 1 : n + 2])
        if previous is not None:
            found.append(previous.result())
        previous = pending
    assert previous is not None
    found.append(previous.result())
    queued = [runtime.queue(runtime.crop(frame, warp)) for frame in frames]
    found += [each.result() for each in queued]
    off = [np.abs(a[0] - b[0]).max() for a, b in zip(found, 2 * wanted, strict=True)]
    return {"off": float(np.nan_to_num(np.max(off), nan=1e9)), "calls": calls}


def record(runtime: GpuRuntime) -> list[str]:
    """The driver's calls from now on, each with its stream or the event that it waits for."""
    driver: Any = runtime._runner._device.driver
    copying = runtime._frames.stream.handle
    ends = [staging.done.handle for staging in runtime._runner._staging]
    calls: list[str] = []

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            stream = named.get("stream", arguments[-1] if arguments else 0)
            if name == "wait":
                stream = arguments[0]
            where = "copying" if stream == copying else "computing"
            if name == "synchronize_event":
                where = "a batch" if arguments[0] in ends else "an upload"
            calls.append(f"{name} {where}")
            return real(*arguments, **named)

        return call

    for name in ("upload", "download", "replay", "launch", "wait", "record", "synchronize_event"):
        setattr(driver, name, recorded(name, getattr(driver, name)))
    return calls


class _NoneEverywhere(list[Any]):
    def __getitem__(self, index: Any) -> None:
        return None


def reuse_early(runtime: GpuRuntime) -> None:
    """Staging buffers are reused before their output was copied."""
    runtime._runner._previous = _NoneEverywhere(runtime._runner._previous)


def leave_out(*names: str, stream: str = "") -> Callable[[GpuRuntime], None]:
    """Leave out these calls of the driver, or only those on one stream.

    computing; copying: uploads of frames; decoding: any other.
    """

    def plant(runtime: GpuRuntime) -> None:
        driver: Any = runtime._runner._device.driver
        streams = {
            runtime._runner.stream.handle: "computing",
            runtime._frames.stream.handle: "copying",
        }
        for name in names:
            real = getattr(driver, name)

            def call(*arguments: Any, real: Any = real) -> None:
                at = next((streams[each] for each in arguments if each in streams), "decoding")
                if stream and stream != at:
                    real(*arguments)

            setattr(driver, name, call)

    return plant


# Errors that a GPU shows only with some timings; a schedule of the stand-in shows each.
MISTAKES: dict[str, Callable[[GpuRuntime], None]] = {
    "the batch does not wait for its frame": leave_out("wait", stream="computing"),
    "a frame is overwritten while it is read": leave_out("wait", stream="copying"),
    "the host waits for nothing": leave_out("synchronize_event"),
    "the end of a batch is not recorded": leave_out("record", stream="computing"),
    "the end of an upload is not recorded": leave_out("record", stream="copying"),
    "staging buffers are reused before their output was copied": reuse_early,
}


def how_it_ends(work: Callable[[], dict[str, Any]]) -> float | str:
    """The deviation of the outputs, px, or the error's message."""
    try:
        return float(work()["off"])
    except PosekitError as error:
        return str(error)


def refusals(driver: str, model: Bundle) -> dict[str, Any]:
    """Engines that do not match, and one that a graph cannot record."""
    device = open_device(0, driver)  # type: ignore[arg-type]
    plan = trt.plan_of(model)
    other = next(name for name in ("movenet-thunder", "movenet-lightning") if name != model.name)
    thunder = Bundle.open(bundle.find(other))
    messages = {}
    for name, work in {
        "not a plan": lambda: TensorRTEngine(trt, b"damaged" + plan, device),
        "another model": lambda: GpuRuntime(
            thunder, device, TensorRTEngine(trt, plan, device), tta=TtaOptions()
        ),
        "one image with flip": lambda: opened(driver, model, images=1),
    }.items():
        try:
            work()
        except PosekitError as error:
            messages[name] = f"{type(error).__name__}: {error}"
    runtime = opened(driver, model, flip=False)
    runtime._runner._engine.capturable = lambda count, stream: "it is still compiling"  # type: ignore[method-assign]
    images, boxes = load_images()
    warp = Warp.from_boxes(boxes[0], model.pose_spec)
    direct = [runtime.infer(runtime.crop(images[0], warp))[0] for _ in range(2)]
    notes = list(runtime.notes)
    runtime._runner._engine.capturable = lambda count, stream: ""  # type: ignore[method-assign]
    recorded = runtime.infer(runtime.crop(images[0], warp))[0]
    graphs = len(runtime._runner._recorded)
    off = float(np.abs(direct - recorded).max())
    return {**messages, "notes": notes, "later": runtime.notes, "graphs": graphs, "direct": off}


def main() -> None:
    driver, path, trial = sys.argv[1:4]
    model = Bundle.open(bundle.find(path) if path in bundle.embedded() else Path(path))
    trials: dict[str, Callable[[], dict[str, Any]]] = {
        "flip": lambda: batch(driver, model, flip=True),
        "plain": lambda: batch(driver, model, flip=False),
        "float32": lambda: batch(driver, model, flip=True, half=False),
        "film": lambda: film(driver, model),
        "special": lambda: {
            "batches": batches(driver, model),
            "refusals": refusals(driver, model),
            "film": film(driver, model),
        },
        "mistakes": lambda: {
            name: how_it_ends(lambda plant=name: film(driver, model, plant=plant))
            for name in ("", *MISTAKES)
        },
        "refusals": lambda: refusals(driver, model),
        "views": lambda: several_views(driver, model, 8),
    }
    try:
        result = trials[trial]()
    except PosekitError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
