"""Runs a detector's plan on the stand-ins, for test_detector_engine.py.

Argument: the driver package. Prints one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from posekit import bundle
from posekit.bundle import Bundle
from posekit.detect import Detector
from posekit.errors import PosekitError
from posekit.types import Frame
from posekit_engines.cuda.open import open_device
from posekit_engines.trt.detector_engine import TensorRTDetector
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.support.assets import shipped

IMAGES = ("tests/data/coco_000000234748.jpg", "tests/data/coco_000000397133.jpg")


def frames() -> list[Frame]:
    images = [np.ascontiguousarray(cv2.imread(str(shipped(name)))[..., ::-1]) for name in IMAGES]
    return [Frame(image) for image in [*images, np.full((90, 40, 3), 90, np.uint8), *images]]


def boxes_of(detector: Detector) -> list[Any]:
    found = [detector(frame) for frame in frames()]
    return [np.column_stack([each.xyxy, each.scores]).tolist() for each in found]


def refused(work: Callable[[], object]) -> str:
    try:
        work()
    except PosekitError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    device = open_device(0, sys.argv[1])  # type: ignore[arg-type]
    model = Bundle.open(bundle.find("nanodet-person"))
    plan = trt.detect_plan_of(model)
    graph = TensorRTDetector(trt, plan, device)
    found = Detector(model, graph=graph)
    plain = Detector(model, device="cpu", threads=1)
    whole = Detector(model, device="cpu", threads=1)
    whole.network = dataclasses.replace(whole.network, step=0)  # the same canvas
    lightning = Bundle.open(bundle.find("movenet-lightning"))
    result = {
        "provider": found.provider,
        "found": boxes_of(found),
        "whole": boxes_of(whole),
        "plain": boxes_of(plain),
        "size": graph.size,
        "damaged": refused(lambda: TensorRTDetector(trt, b"x" + plan, device)),
        "pose": refused(lambda: TensorRTDetector(trt, trt.plan_of(lightning), device)),
    }
    graph._context.set_device_memory(0, 0)
    result["no run"] = refused(lambda: found(frames()[0]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
