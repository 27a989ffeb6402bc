"""A rival's whole way from frames to points: end_to_end_rivals.py runs it in its environment.

    python rival_whole.py rtmlib|vitpose|mediapipe|MODEL FOLDER

MODEL is one of posekit's, or a bundle in FOLDER, run in posekit's own environment.

FOLDER/in.npz holds frames (F, H, W, 3) RGB and boxes (P, 4); what comes out goes to FOLDER/out.npz:
points where there are some, seconds of CPU and wall time after a round to warm up, peak memory.
"""

import functools
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ANSWER = ("points", "scores")
"""Of posekit's poses."""


def rtmlib(folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """Its ViTPose class with the same ONNX network, person by person, on our threads."""
    import cv2
    import onnxruntime
    from rtmlib.tools.pose_estimation.vitpose import ViTPose

    cv2.setNumThreads(1)
    # RGB, as the network and rtmlib's own mean and deviation want it.
    with np.load(f"{folder}/in.npz") as given:
        size = tuple(given["size"].tolist()) if "size" in given else (192, 256)
        own = {name: tuple(given[name].tolist()) for name in ("mean", "std") if name in given}
    # It leaves the threads to ONNX Runtime, which takes cores that this process is not held to.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    onnxruntime.InferenceSession = functools.partial(
        onnxruntime.InferenceSession, sess_options=options
    )
    pose = ViTPose(f"{folder}/net.onnx", size, backend="onnxruntime", device="cpu", **own)
    return lambda: {"points": np.stack([pose(frame, boxes)[0] for frame in frames])}


def vitpose(folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """transformers' ViTPose-B, random weights, all persons of a frame in a batch."""
    del folder
    import torch
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation
    from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(out_features=["stage12"], out_indices=[12])
    labels = {n: str(n) for n in range(17)}
    config = VitPoseConfig(backbone_config=backbone, id2label=labels, use_simple_decoder=True)
    network, processor = VitPoseForPoseEstimation(config).eval(), VitPoseImageProcessorPil()
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()

    def look(frame: Any) -> Any:
        given = processor([frame], boxes=[sizes], return_tensors="pt")
        with torch.inference_mode():
            found = network(**given)
        people = processor.post_process_pose_estimation(found, boxes=[sizes])[0]
        return np.stack([np.asarray(person["keypoints"]) for person in people])

    return lambda: {"points": np.stack([look(frame) for frame in frames])}


def mediapipe(folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """BlazePose (full), which looks for one person: each has its cut-out and its own tracker."""
    del folder
    from mediapipe.python.solutions.pose import Pose

    trackers = [Pose(model_complexity=1, smooth_landmarks=False) for _ in boxes]
    places = [tuple(int(side) for side in box) for box in boxes]

    def run() -> Any:
        for frame in frames:
            for tracker, (left, top, right, bottom) in zip(trackers, places, strict=True):
                tracker.process(np.ascontiguousarray(frame[top:bottom, left:right]))

    return run


def posekit(model: str, folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """Our own way with the boxes given, on as many threads as the process may use."""
    import cv2

    from posekit import Bundle, EstimateOptions, Estimator, bundle
    from posekit.runtime import Runtime

    cv2.setNumThreads(1)
    path = f"{folder}/{model}" if model.endswith(".posekit") else bundle.find(model)
    runtime = Runtime(Bundle.open(path), device="cpu", flip=False)
    estimator = Estimator(runtime, lambda _: boxes, EstimateOptions())

    def run() -> Any:
        seen = [estimator(frame, boxes) for frame in frames]
        return {name: np.stack([getattr(each, name) for each in seen]) for name in ANSWER}

    return run


def seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Its answer, CPU and wall seconds of the second time, and the peak of memory."""
    work()
    cpu, wall = seconds(), time.perf_counter()
    answer = work() or {}
    cpu, wall = seconds() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb(), **answer}


def peak_mb() -> float:
    """The most memory held; ru_maxrss would count the process that started this one, too."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) / 1e3


def main() -> None:
    task, folder = sys.argv[1:]
    with np.load(f"{folder}/in.npz") as given:
        frames, boxes = given["frames"], given["boxes"]
    rivals = {"rtmlib": rtmlib, "vitpose": vitpose, "mediapipe": mediapipe}
    prepare = rivals.get(task) or functools.partial(posekit, task)
    np.savez(f"{folder}/out.npz", **timed(prepare(folder, frames, boxes)))


if __name__ == "__main__":
    main()
