"""Runs NVDEC's host code on the stand-ins, for test_nvdec.py.

Arguments: the driver package, the bundle, and the name of a trial. Prints one line of JSON.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from posekit import bundle, video
from posekit.bundle import Bundle
from posekit.errors import PosekitError
from posekit.geometry import Warp
from posekit.inference.runtime import Runtime
from posekit.types import Boxes
from posekit.video import Coded
from posekit_engines.ops import reference
from posekit_engines.runtime import nvdec
from posekit_engines.runtime.buffers import Layout
from posekit_engines.runtime.runtime import GpuRuntime
from tests.engines.cuda_emulation import drive_runtime, nvdec_stand_in
from tests.support.assets import shipped

CLIP = "examples/sports2d_demo.mp4"
FRAMES = 8


def opened(driver: str, model: Bundle, **options: Any) -> tuple[GpuRuntime, nvdec.Nvdec]:
    runtime = drive_runtime.opened(driver, model, flip=False, **options)
    chip = nvdec.Nvdec(nvdec_stand_in, runtime._runner._device, runtime._frames)
    return runtime, chip


def person(model: Bundle) -> Warp:
    xyxy = np.array(drive_runtime.PERSONS[CLIP], np.float32)[:1]
    return Warp.from_boxes(Boxes(xyxy), model.pose_spec)


def frames(chip: nvdec.Nvdec | None, count: int = FRAMES) -> list[Any]:
    with video.read(shipped(CLIP), decoders=chip) as reader:
        return list(itertools.islice(reader, count))


def decoded(driver: str, model: Bundle) -> dict[str, Any]:
    """Points of decoded frames against the reference on the same bytes, and against the CPU's."""
    runtime, chip = opened(driver, model)
    with video.read(shipped(CLIP), decoders=chip) as reader:
        found = list(itertools.islice(reader, FRAMES))
        reported = [reader.decoder, *reader.notes]
    warp = person(model)
    points = [runtime.infer(runtime.crop(frame.pixels, warp)) for frame in found]
    spec, cpu = model.pose_spec, Runtime(model, device="cpu", threads=1, flip=False)
    surface = found[0].pixels
    height = surface.coded.size[1]
    off_reference, off_cpu, level = [], [], []
    for frame, (place, score) in zip(found, points, strict=True):
        nv12 = frame.pixels.nv12()
        rgb = reference.rgb_of_nv12(nv12[:height], nv12[height:], Layout.of(surface.coded).color)
        wanted = drive_runtime.reference_points(model, [rgb], [warp], flip=False, half=True)
        off_reference.append(drive_runtime.deviations(place, score, wanted))
        crops = cpu.crop(rgb, warp)
        level.append(drive_runtime.sensitivity(crops, cpu))
        off_cpu.append(
            drive_runtime.deviations(place, score, cpu.infer(cpu.crop(frame.image, warp)))
        )
    plain = frames(None)
    return {
        "reported": reported,
        "opened": nvdec_stand_in.OPENED,
        "spec": spec.input_size,
        "reference": off_reference,
        "cpu": off_cpu,
        "gray_level_px": level,
        "same": [bool((a.image == b.image).all()) for a, b in zip(found, plain, strict=True)],
        "times": [a.time_s == b.time_s for a, b in zip(found, plain, strict=True)],
        "points": np.concatenate([place for place, _ in points]).tolist(),
    }


def in_turn(driver: str, model: Bundle, *, plant: str = "") -> float:
    """Deviation of points of frames that are decoded while others are computed, px."""
    runtime, chip = opened(driver, model)
    warp = person(model)
    wanted = []
    for frame in frames(chip):  # all are decoded before the first is used
        runtime._frames.stream.synchronize()
        frame.pixels.nv12()
        wanted.append(runtime.infer(runtime.crop(frame.pixels, warp))[0])
    del frame
    gc.collect()
    if plant:
        MISTAKES[plant](runtime, chip)
    found, pending = [], []
    # with one frame ahead, slots are freed early and reused at once
    options = video.ReadOptions(prefetch=1)
    with video.read(shipped(CLIP), options=options, decoders=chip) as reader:
        for frame in itertools.islice(reader, FRAMES):
            pending.append(runtime.queue(runtime.crop(frame.pixels, warp)))
            if len(pending) > 1:
                found.append(pending.pop(0).result()[0])
        if reader.decoder != chip.name:
            raise AssertionError(f"{reader.decoder}: {reader.notes}")
    found.append(pending.pop().result()[0])
    off = [np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)]
    return float(np.nan_to_num(np.max(off), nan=1e9))


def leave_out(*names: str, stream: str = "") -> Callable[[GpuRuntime, nvdec.Nvdec], None]:
    """Leave out these calls of the driver, or only those on one of the streams."""
    return lambda runtime, _: drive_runtime.leave_out(*names, stream=stream)(runtime)


def no_copy(runtime: GpuRuntime, _: nvdec.Nvdec) -> None:
    """Slots keep their old content."""
    driver: Any = runtime._runner._device.driver
    driver.copy = lambda *_, **__: None


def copy_elsewhere(runtime: GpuRuntime, chip: nvdec.Nvdec) -> None:
    """Copies run on a stream of their own, which does not wait for the decoder's."""
    real = chip.open

    def opened_(coded: Coded) -> nvdec.NvdecDecoder:
        decoder = real(coded)
        decoder.original = decoder._stream  # type: ignore[attr-defined]
        decoder._stream = runtime._runner._device.stream()
        return decoder

    chip.open = opened_  # type: ignore[method-assign]


# Errors that a GPU shows only with some timings.
MISTAKES: dict[str, Callable[[GpuRuntime, nvdec.Nvdec], None]] = {
    "a batch does not wait for its frame": leave_out("wait", stream="computing"),
    "no stream waits for another": leave_out("wait"),
    "nothing is copied": no_copy,
    "copies do not wait for the decoder": copy_elsewhere,
}


def overwritten(driver: str, model: Bundle, *, without_wait: bool) -> float:
    """Deviation of a frame's points whose memory was reused for a later frame, px.

    without_wait: the decoder's copy does not wait for the batch that reads the old content.

    The batch is queued and its frame released; waiting only for the decoder then runs the decoder's
    work before the batch's as far as is allowed.
    """
    runtime, chip = opened(driver, model)
    warp, first = person(model), frames(chip, 1)[0]
    wanted = runtime.infer(runtime.crop(first.pixels, warp))[0]
    if without_wait:
        leave_out("wait", stream="decoding")(runtime, chip)
    pending, slot = runtime.queue(runtime.crop(first.pixels, warp)), first.pixels.slot
    del first
    gc.collect()
    # more than a reader leaves behind: free memory is reused in turn
    if not any(frame.pixels.slot is slot for frame in frames(chip, 4 * FRAMES)):
        raise AssertionError("no later frame reused the first one's memory")
    slot.uploaded.synchronize()
    return float(np.abs(pending.result()[0] - wanted).max())


def mixed(driver: str, model: Bundle) -> dict[str, Any]:
    """Decoded and uploaded frames in one batch, as where the GPU's decoder stops midway."""
    runtime, chip = opened(driver, model)
    warp = person(model)
    decoded, plain = frames(chip, 2), frames(None, 2)
    both = runtime.infer(runtime.crops([decoded[0].pixels, plain[1].image], [warp, warp]))[0]
    wanted = runtime.infer(runtime.crops([each.image for each in plain], [warp, warp]))[0]
    alone = runtime.infer(runtime.crops([each.pixels for each in decoded], [warp, warp]))[0]
    again = runtime.infer(runtime.crops([each.image for each in plain], [warp, warp]))[0]
    empty = Warp.from_boxes(Boxes(np.zeros((0, 4), np.float32)), model.pose_spec)
    none = runtime.infer(runtime.crop(decoded[0].pixels, empty))[0]
    slots = len(runtime._frames._free)
    del decoded
    gc.collect()
    return {
        "mixed": float(np.abs(both - wanted).max()),
        "again": float(np.abs(again - wanted).max()),
        "other layout": float(np.abs(alone - wanted).max()),
        "graphs": len(runtime._runner._recorded),
        "none": list(none.shape),
        "released": len(runtime._frames._free) - slots,
    }


def refusals(driver: str, model: Bundle) -> dict[str, Any]:
    """Messages for video that the decoder does not support."""
    _, chip = opened(driver, model)
    messages = {}
    for name, coded in {
        "codec": Coded("mpeg4", (64, 64)),
        "large": Coded("h264", (8192, 4320)),
        "small": Coded("h264", (32, 32)),
    }.items():
        try:
            chip.open(coded)
        except PosekitError as error:
            messages[name] = f"{type(error).__name__}: {error}"
    stream = chip.open(Coded("h264", (960, 540)))
    try:
        stream.decode(b"no start code", 0)
    except PosekitError as error:
        messages["damaged"] = f"{type(error).__name__}: {error}"
    stream.close()
    stream.close()
    nvdec_stand_in.LIMITS["supported"] = 0
    _, other = opened(driver, model)
    try:
        other.open(Coded("av1", (960, 540)))
    except PosekitError as error:
        messages["unsupported"] = f"{type(error).__name__}: {error}"
    return messages


def main() -> None:
    driver, path, trial = sys.argv[1:4]
    model = Bundle.open(bundle.find(path))
    trials: dict[str, Callable[[], dict[str, Any]]] = {
        "decoded": lambda: decoded(driver, model),
        "in turn": lambda: {name: in_turn(driver, model, plant=name) for name in ("", *MISTAKES)},
        "again": lambda: {
            str(without_wait): overwritten(driver, model, without_wait=without_wait)
            for without_wait in (False, True)
        },
        "right": lambda: {"off": in_turn(driver, model)},
        "special": lambda: {"mixed": mixed(driver, model), "refusals": refusals(driver, model)},
    }
    print(json.dumps(trials[trial]()))


if __name__ == "__main__":
    main()
