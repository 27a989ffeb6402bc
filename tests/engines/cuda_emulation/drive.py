"""Runs the real host code on the stand-in libcuda, for test_host.py.

Arguments: the driver package, and `planted` to try each error in a process of its own. Prints
one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from posekit.errors import PosekitError
from posekit.geometry import Warp
from posekit.skeletons import COCO_17
from posekit.types import Boxes, ModelSpec
from posekit_engines.cuda.device import Device
from posekit_engines.cuda.driver import Launch
from posekit_engines.cuda.open import open_device
from posekit_engines.ops import reference
from posekit_engines.ops.crop_normalize import Crops, Frames, crop_normalize, frame_table
from posekit_engines.ops.decode_flip import DECODE_FLIP, DecodeTables, decode_flip
from posekit_engines.ops.launch import Maps

PERSONS = 3
SPEC = ModelSpec("movenet", (64, 96), (48, 64), COCO_17, decode="dark", map_offset=(1.5, 1.5))


def changed_argument(**fields: Any) -> Callable[[Launch], Launch]:
    """Give the struct of decode_flip other values."""

    def change(launch: Launch) -> Launch:
        argument = np.frombuffer(launch.argument, DECODE_FLIP).copy()
        for name, value in fields.items():
            argument[name] = value(argument) if callable(value) else value
        return replace(launch, argument=argument.tobytes())

    return change


# Errors in the launch of decode_flip: each must be refused, fault or change the output.
PLANTED: dict[str, Callable[[Launch], Launch]] = {
    "grid exchanged": lambda launch: replace(launch, grid=(PERSONS, 17, 1)),
    "one person too few": lambda launch: replace(launch, grid=(17, PERSONS - 1, 1)),
    "half the threads": lambda launch: replace(launch, threads=64),
    "no room for the patch": lambda launch: replace(launch, shared_bytes=32),
    "shared memory in floats": lambda launch: replace(
        launch, shared_bytes=launch.shared_bytes // 4
    ),
    "mirrored maps left out": changed_argument(mirrored=0),
    "maps and mirrored exchanged": changed_argument(
        maps=lambda a: a["mirrored"], mirrored=lambda a: a["maps"]
    ),
    "mirror and blur exchanged": changed_argument(
        mirror=lambda a: a["blur"], blur=lambda a: a["mirror"]
    ),
    "strides in bytes": changed_argument(strides=lambda a: 2 * a["strides"]),
    "width before height": changed_argument(size=lambda a: a["size"][:, ::-1]),
    "no shift": changed_argument(share=0, toward=0),
    "no transform to the frame": changed_argument(to_frame=0),
    "an argument cut short": lambda launch: replace(launch, argument=launch.argument[:-8]),
}


def main() -> None:
    driver, planting = sys.argv[1], len(sys.argv) > 2
    try:
        device = open_device(0, driver)  # type: ignore[arg-type]
        result = run_batch(device, graph=not planting)
    except PosekitError as error:
        result = {"error": str(error)}
    if planting:
        result = {name: in_a_child(device, change) for name, change in PLANTED.items()}
    print(json.dumps(result))


def in_a_child(device: Device, change: Callable[[Launch], Launch]) -> str:
    """How a batch ends with a planted error, which may end the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        plant(device, change)
        try:
            result = f"off by {run_batch(device, graph=False)['points']}"
        except PosekitError as error:
            result = str(error)
        os.write(writing, result.encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        return file.read() or f"ended by signal {status}"


def plant(device: Device, change: Callable[[Launch], Launch]) -> None:
    """Change the arguments of decode_flip's launch."""
    real = device.driver.launch

    def launch(function: int, launch: Launch, stream: int) -> None:
        decoding = len(launch.argument) == DECODE_FLIP.itemsize
        real(function, change(launch) if decoding else launch, stream)

    device.driver.launch = launch  # type: ignore[method-assign]


def run_batch(device: Device, *, graph: bool) -> dict[str, Any]:
    """One batch: upload a frame, crop, (maps instead of a network), decode, download points."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (120, 160, 3), np.uint8)
    xyxy = np.array([[5, 8, 70, 100], [40, 20, 150, 119], [-10, -5, 60, 60]], np.float32)
    to_frame = Warp.from_boxes(Boxes(xyxy), SPEC).inverse()
    maps = random.standard_normal((2 * PERSONS, 17, 64, 48)).astype(np.float16)

    pinned_image, stream = device.pinned(image.shape, np.uint8), device.stream()
    pinned_points = device.pinned((PERSONS, 17, 3), np.float32)
    frame = device.buffer(image.shape, np.uint8)
    row = frame_table([(frame.address, 160, 120, 480)], "rgb")
    frames = Frames(device.upload(row), device.upload(np.zeros(PERSONS, np.int32)))
    matrices = device.upload(to_frame.matrix.astype(np.float32))
    crops = device.buffer((2 * PERSONS, 3, 96, 64), np.float16)
    heatmaps, tables = device.upload(maps), DecodeTables.of(device, SPEC)
    points = device.buffer((PERSONS, 17, 3), np.float32)

    def once() -> None:
        frame.upload(pinned_image, stream)
        output = Crops.of(crops, PERSONS, flip=True)
        crop_normalize(device, frames, SPEC, crops=output, to_frame=matrices, stream=stream)
        layout = Maps.of(heatmaps, PERSONS, flip=True)
        decode_flip(device, layout, tables, out=points, to_frame=matrices, stream=stream)
        points.download(pinned_points, stream)

    pinned_image[:] = image
    once()
    stream.synchronize()
    wanted = reference.decode_flip(maps[:PERSONS], SPEC, mirrored=maps[PERSONS:], to_frame=to_frame)
    upright, mirrored = reference.crop_normalize(
        [image], SPEC, to_frame=to_frame, frame_of=[0] * PERSONS
    )
    result = {
        "points": float(np.abs(pinned_points - wanted).max()),
        "crops": float(np.abs(crops.download() - np.concatenate([upright, mirrored])).max()),
        "device": device.info.name,
        "driver": device.driver.name,
    }
    return {**result, **(replayed(device, once, stream, pinned_points, wanted) if graph else {})}


def replayed(device: Device, once: Any, stream: Any, points: Any, wanted: Any) -> dict[str, Any]:
    """The same batch recorded and replayed, between two events."""
    points[:] = 0
    with device.capture(stream) as graph:
        once()
    before = float(np.abs(points).max())  # recording runs nothing
    start, end = device.event(), device.event()
    start.record(stream)
    graph.replay(stream)
    end.record(stream)
    stream.synchronize()
    return {
        "before": before,
        "replayed": float(np.abs(points - wanted).max()),
        "ms": end.since_ms(start),
    }


if __name__ == "__main__":
    main()
