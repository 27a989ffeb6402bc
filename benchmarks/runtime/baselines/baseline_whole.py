"""A library from frames to points, timed as a whole; end_to_end_baselines runs it.

    python baseline_whole.py rtmlib|vitpose|mediapipe|MODEL FOLDER

MODEL is one of posekit's, or a file in FOLDER, run in posekit's own environment.

FOLDER/in.npz holds frames (F, H, W, 3) RGB and boxes (P, 4). FOLDER/out.npz gets points where there
are some, seconds of CPU and wall time after a round to warm up, and peak memory.
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

COMPARED = ("points", "scores")
"""Fields of posekit's poses that are written."""


def rtmlib(folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """Its ViTPose class with the same ONNX network, one person after another, on our threads."""
    import cv2
    import onnxruntime
    from rtmlib.tools.pose_estimation.vitpose import ViTPose

    cv2.setNumThreads(1)
    # RGB, as the network and rtmlib's own mean and deviation expect it.
    with np.load(f"{folder}/in.npz") as inputs:
        size = tuple(inputs["size"].tolist()) if "size" in inputs else (192, 256)
        own = {name: tuple(inputs[name].tolist()) for name in ("mean", "std") if name in inputs}
    # It leaves the threads to ONNX Runtime, which takes cores outside this process's affinity.
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

    def predict(frame: Any) -> Any:
        inputs = processor([frame], boxes=[sizes], return_tensors="pt")
        with torch.inference_mode():
            found = network(**inputs)
        people = processor.post_process_pose_estimation(found, boxes=[sizes])[0]
        return np.stack([np.asarray(person["keypoints"]) for person in people])

    return lambda: {"points": np.stack([predict(frame) for frame in frames])}


def mediapipe(folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """BlazePose (full), which finds one person: each has its cut-out and its own tracker."""
    del folder
    from mediapipe.python.solutions.pose import Pose

    trackers = [Pose(model_complexity=1, smooth_landmarks=False) for _ in boxes]
    places = [tuple(int(side) for side in box) for box in boxes]

    def run() -> Any:
        for frame in frames:
            for tracker, (left, top, right, bottom) in zip(trackers, places, strict=True):
                tracker.process(np.ascontiguousarray(frame[top:bottom, left:right]))

    return run


def own(model: str, folder: str, frames: Any, boxes: Any) -> Callable[[], Any]:
    """posekit with the boxes given, on as many threads as the process may use."""
    import cv2

    import posekit

    cv2.setNumThreads(1)
    path = f"{folder}/{model}" if model.endswith(".onnx") else model
    estimator = posekit.load(path, "cpu", flip=False, boxes=lambda _: boxes)

    def run() -> Any:
        poses = [estimator(frame, boxes) for frame in frames]
        return {name: np.stack([getattr(each, name) for each in poses]) for name in COMPARED}

    return run


def seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Outputs, CPU and wall seconds of the second run, and peak memory."""
    work()
    cpu, wall = seconds(), time.perf_counter()
    outputs = work() or {}
    cpu, wall = seconds() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb(), **outputs}


def peak_mb() -> float:
    """Peak resident memory; ru_maxrss would include the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def main() -> None:
    task, folder = sys.argv[1:]
    with np.load(f"{folder}/in.npz") as inputs:
        frames, boxes = inputs["frames"], inputs["boxes"]
    baselines = {"rtmlib": rtmlib, "vitpose": vitpose, "mediapipe": mediapipe}
    prepare = baselines.get(task) or functools.partial(own, task)
    np.savez(f"{folder}/out.npz", **timed(prepare(folder, frames, boxes)))


if __name__ == "__main__":
    main()
