"""Drives NVDEC's host code against the stand-ins: run by test_nvdec.py.

Arguments: the driver package, the bundle, and a name out of TRIALS. Prints one line of JSON.
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
from posekit.runtime import Runtime
from posekit.types import Boxes
from posekit.video import Coded
from posekit_engines.ops import reference
from posekit_engines.runtime import nvdec
from posekit_engines.runtime.buffers import Layout
from posekit_engines.runtime.runtime import GpuRuntime
from tests.assets import shipped
from tests.engines.cuda_emulation import drive_runtime, nvdec_stand_in

CLIP = "examples/sports2d_demo.mp4"
FRAMES = 8


def opened(driver: str, model: Bundle, **options: Any) -> tuple[GpuRuntime, nvdec.Nvdec]:
    runtime = drive_runtime.opened(driver, model, flip=False, **options)
    chip = nvdec.Nvdec(nvdec_stand_in, runtime._step._device, runtime._pictures)
    return runtime, chip


def person(model: Bundle) -> Warp:
    xyxy = np.array(drive_runtime.PERSONS[CLIP], np.float32)[:1]
    return Warp.from_boxes(Boxes(xyxy), model.pose_spec)


def frames(chip: nvdec.Nvdec | None, count: int = FRAMES) -> list[Any]:
    with video.read(shipped(CLIP), decoders=chip) as reader:
        return list(itertools.islice(reader, count))


def pictures(driver: str, model: Bundle) -> dict[str, Any]:
    """Points of decoded frames: against the twin on the same bytes, and the CPU; then the bytes."""
    runtime, chip = opened(driver, model)
    with video.read(shipped(CLIP), decoders=chip) as reader:
        found = list(itertools.islice(reader, FRAMES))
        told = [reader.decoder, *reader.notes]
    warp = person(model)
    points = [runtime.infer(runtime.crop(frame.pixels, warp)) for frame in found]
    spec, cpu = model.pose_spec, Runtime(model, device="cpu", threads=1, flip=False)
    surface = found[0].pixels
    height = surface.coded.size[1]
    off_twin, off_cpu, level = [], [], []
    for frame, (place, score) in zip(found, points, strict=True):
        nv12 = frame.pixels.nv12()
        rgb = reference.rgb_of_nv12(nv12[:height], nv12[height:], Layout.of(surface.coded).color)
        wanted = drive_runtime.twin_answer(model, [rgb], [warp], flip=False, half=True)
        off_twin.append(drive_runtime.strays(place, score, wanted))
        crops = cpu.crop(rgb, warp)
        level.append(drive_runtime.sensitivity(crops, cpu))
        off_cpu.append(drive_runtime.strays(place, score, cpu.infer(cpu.crop(frame.image, warp))))
    plain = frames(None)
    return {
        "told": told,
        "opened": nvdec_stand_in.OPENED,
        "spec": spec.input_size,
        "twin": off_twin,
        "cpu": off_cpu,
        "grey_level_px": level,
        "same": [bool((a.image == b.image).all()) for a, b in zip(found, plain, strict=True)],
        "times": [a.time_s == b.time_s for a, b in zip(found, plain, strict=True)],
        "points": np.concatenate([place for place, _ in points]).tolist(),
    }


def in_turn(driver: str, model: Bundle, *, plant: str = "") -> float:
    """How far the points of frames that are decoded while others are computed are off, px."""
    runtime, chip = opened(driver, model)
    warp = person(model)
    wanted = []
    for frame in frames(chip):  # all are there before the first is asked for
        runtime._pictures.stream.finish()
        frame.pixels.nv12()
        wanted.append(runtime.infer(runtime.crop(frame.pixels, warp))[0])
    del frame
    gc.collect()
    if plant:
        MISTAKES[plant](runtime, chip)
    found, waiting = [], []
    # With one picture ahead, slots come back soon and are used again at once.
    options = video.ReadOptions(prefetch=1)
    with video.read(shipped(CLIP), options=options, decoders=chip) as reader:
        for frame in itertools.islice(reader, FRAMES):
            waiting.append(runtime.queue(runtime.crop(frame.pixels, warp)))
            if len(waiting) > 1:
                found.append(waiting.pop(0).result()[0])
        if reader.decoder != chip.name:
            raise AssertionError(f"{reader.decoder}: {reader.notes}")
    found.append(waiting.pop().result()[0])
    off = [np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)]
    return float(np.nan_to_num(np.max(off), nan=1e9))


def forget(*names: str, stream: str = "") -> Callable[[GpuRuntime, nvdec.Nvdec], None]:
    """Leave out these calls of the driver, or only those on one of the streams."""
    return lambda runtime, _: drive_runtime.forget(*names, stream=stream)(runtime)


def no_copy(runtime: GpuRuntime, _: nvdec.Nvdec) -> None:
    """Slots keep what lay in them."""
    driver: Any = runtime._step._device.driver
    driver.copy = lambda *_, **__: None


def copy_elsewhere(runtime: GpuRuntime, chip: nvdec.Nvdec) -> None:
    """Copies run on a stream of their own, which does not wait for the decoder's."""
    real = chip.open

    def opened_(coded: Coded) -> nvdec.NvdecDecoder:
        decoder = real(coded)
        decoder.kept = decoder._stream  # type: ignore[attr-defined]
        decoder._stream = runtime._step._device.stream()
        return decoder

    chip.open = opened_  # type: ignore[method-assign]


# Each leaves out what only a GPU's timing would show.
MISTAKES: dict[str, Callable[[GpuRuntime, nvdec.Nvdec], None]] = {
    "a batch does not wait for its picture": forget("wait", stream="computing"),
    "nobody waits for anybody": forget("wait"),
    "nothing is copied": no_copy,
    "copies do not wait for the decoder": copy_elsewhere,
}


def overwritten(driver: str, model: Bundle, *, forgetful: bool) -> float:
    """How far off the points of a picture are whose memory a later one was given, px.

    forgetful: the decoder's copy does not wait for the batch that reads what lay there.

    The batch is queued and its picture given up; then the decoder's work is done before the batch's
    as far as it may, by waiting for the decoder alone.
    """
    runtime, chip = opened(driver, model)
    warp, first = person(model), frames(chip, 1)[0]
    wanted = runtime.infer(runtime.crop(first.pixels, warp))[0]
    if forgetful:
        forget("wait", stream="decoding")(runtime, chip)
    waiting, slot = runtime.queue(runtime.crop(first.pixels, warp)), first.pixels.slot
    del first
    gc.collect()
    # More than a reader leaves behind: free memory is used again in turn.
    if not any(frame.pixels.slot is slot for frame in frames(chip, 4 * FRAMES)):
        raise AssertionError("no later picture took the first one's memory")
    slot.uploaded.reach()
    return float(np.abs(waiting.result()[0] - wanted).max())


def mixed(driver: str, model: Bundle) -> dict[str, Any]:
    """Decoded and uploaded pictures in one batch, as where the GPU's decoder stops midway."""
    runtime, chip = opened(driver, model)
    warp = person(model)
    decoded, plain = frames(chip, 2), frames(None, 2)
    both = runtime.infer(runtime.crops([decoded[0].pixels, plain[1].image], [warp, warp]))[0]
    wanted = runtime.infer(runtime.crops([each.image for each in plain], [warp, warp]))[0]
    alone = runtime.infer(runtime.crops([each.pixels for each in decoded], [warp, warp]))[0]
    again = runtime.infer(runtime.crops([each.image for each in plain], [warp, warp]))[0]
    nobody = Warp.from_boxes(Boxes(np.zeros((0, 4), np.float32)), model.pose_spec)
    none = runtime.infer(runtime.crop(decoded[0].pixels, nobody))[0]
    slots = len(runtime._pictures._free)
    del decoded
    gc.collect()
    return {
        "mixed": float(np.abs(both - wanted).max()),
        "again": float(np.abs(again - wanted).max()),
        "other layout": float(np.abs(alone - wanted).max()),
        "graphs": len(runtime._step._recorded),
        "none": list(none.shape),
        "given back": len(runtime._pictures._free) - slots,
    }


def refusals(driver: str, model: Bundle) -> dict[str, Any]:
    """What the chip cannot do, said in one line each."""
    _, chip = opened(driver, model)
    said = {}
    for name, coded in {
        "codec": Coded("mpeg4", (64, 64)),
        "large": Coded("h264", (8192, 4320)),
        "small": Coded("h264", (32, 32)),
    }.items():
        try:
            chip.open(coded)
        except PosekitError as error:
            said[name] = f"{type(error).__name__}: {error}"
    stream = chip.open(Coded("h264", (960, 540)))
    try:
        stream.decode(b"no start code", 0)
    except PosekitError as error:
        said["damaged"] = f"{type(error).__name__}: {error}"
    stream.close()
    stream.close()
    nvdec_stand_in.LIMITS["supported"] = 0
    _, other = opened(driver, model)
    try:
        other.open(Coded("av1", (960, 540)))
    except PosekitError as error:
        said["unsupported"] = f"{type(error).__name__}: {error}"
    return said


def main() -> None:
    driver, path, trial = sys.argv[1:4]
    model = Bundle.open(bundle.find(path))
    trials: dict[str, Callable[[], dict[str, Any]]] = {
        "pictures": lambda: pictures(driver, model),
        "in turn": lambda: {name: in_turn(driver, model, plant=name) for name in ("", *MISTAKES)},
        "again": lambda: {
            str(forgetful): overwritten(driver, model, forgetful=forgetful)
            for forgetful in (False, True)
        },
        "right": lambda: {"off": in_turn(driver, model)},
        "odds": lambda: {"mixed": mixed(driver, model), "refusals": refusals(driver, model)},
    }
    print(json.dumps(trials[trial]()))


if __name__ == "__main__":
    main()
