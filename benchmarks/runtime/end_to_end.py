"""Overhead over bare inference and video decoding: `python -m benchmarks end_to_end`.

1. A whole run of `infer` without an overlay, two threads, against the bare calls that it needs:
   ONNX Runtime on both networks, as often and in the same batches, and PyAV decoding to RGB. CPU
   seconds as a ratio, and wall time over its own CPU seconds.
2. rtmlib with the same ONNX network and the same boxes, where `scripts/baselines` has made its
   environment: CPU milliseconds per person for crop and decode, and end to end, one thread.

Ratios are of one run on one machine; other work on it disturbs them less than seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
from onnx import helper

import posekit
from benchmarks.exported import exported_bytes, random_network, weights_of
from benchmarks.results_file import ASSETS, ROOT, command, one_thread, save
from posekit import Boxes, Bundle, EstimateOptions, ModelSpec, Warp
from posekit.bundle import find
from posekit.infer import InferOptions, run
from posekit.inference.runtime import Runtime
from posekit.inference.session import open_session
from posekit.output.outputs import OutputOptions
from posekit.skeletons import COCO_17

PYTHON = ROOT / ".baselines" / "bin" / "python"
BASELINE = Path(__file__).parent / "baselines" / "baseline_rtmlib.py"
RESNET = ModelSpec(
    "simple-baseline-r50", (192, 256), (48, 64), COCO_17, decode="udp", flip_shift=0.75
)


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def whole_run(video: Path, model: str, *, flip: bool, rounds: int) -> dict[str, float]:
    """`infer` on a video against the bare calls it is made of."""
    estimator = posekit.load(model, "cpu", 2, flip=flip)
    batches: list[int] = []
    detections = [0]
    infer, detect = estimator.runtime.infer, estimator.find

    def counting_infer(crops: Any) -> Any:
        batches.append(len(crops))
        return infer(crops)

    def counting_find(frame: Any) -> Boxes:
        detections[0] += 1
        return detect(frame)

    estimator.runtime.infer = counting_infer  # type: ignore[method-assign]
    estimator.find = counting_find
    runs = []
    bare = float("inf")
    for _ in range(rounds):  # alternating, so that both have the same load; the minimum counts
        batches.clear()
        detections[0] = 0
        with tempfile.TemporaryDirectory() as folder:
            options = InferOptions(OutputOptions(Path(folder) / "out", overlay=False))
            job = functools.partial(run, estimator, [str(video)], options)
            runs.append(measured(job))
        bare = min(bare, bare_calls(video, model, batches, detections[0], flip=flip))
    wall, cpu = min(runs, key=lambda each: each[1])
    return {
        "frames": count_frames(video),
        "persons": sum(batches),
        "detections": detections[0],
        "wall_s": wall,
        "cpu_s": cpu,
        "bare_cpu_s": bare,
        "cpu_ratio": cpu / bare,
        "wall_over_cpu": wall / cpu,
    }


def bare_calls(
    video: Path, model: str, batches: list[int], detections: int, *, flip: bool
) -> float:
    """CPU seconds of the networks and of decoding alone."""
    pose = Bundle.open(find(model))
    graph = open_session(pose.graphs["flip" if flip else "plain"], pose.weights, threads=2)
    detector = Bundle.open(find("nanodet-person"))
    detect = open_session(detector.graphs["detect"], detector.weights, threads=2)
    width, height = pose.pose_spec.input_size
    crops = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)
    taken = detect.get_inputs()[0]
    shape = [1 if isinstance(n, str) else n for n in taken.shape]
    frame = read_first(video)
    if shape[1] == 1:  # any size: that of this video's letterbox
        scale = 416 / max(frame.shape[:2])
        shape[1:3] = [-(-round(n * scale) // 32) * 32 for n in frame.shape[:2]]
    image = np.full(shape, 100, np.uint8)

    def networks() -> None:
        for count in batches:
            if count:
                graph.run(None, {"crops": np.resize(crops, (count, height, width, 3))})
        for _ in range(detections):
            detect.run(None, {taken.name: image})

    return measured(networks)[1] + measured(lambda: count_frames(video))[1]


def count_frames(video: Path) -> int:
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        count = 0
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
            count += 1
        return count


def read_first(video: Path) -> Any:
    with av.open(str(video)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def cheap_network(spec: ModelSpec) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    """A node in place of the network, and its weights: every fourth pixel, channels mixed."""
    mix = np.random.default_rng(0).standard_normal((len(spec.skeleton), 3, 4, 4))
    node = helper.make_node("Conv", ["image", "mix"], ["heatmaps"], strides=[4, 4])
    return node, onnx.numpy_helper.from_array(mix.astype(np.float32), "mix")


def with_cheap_network(points: bytes, spec: ModelSpec) -> bytes:
    """An exported points graph whose network is the cheap one; crop and decode as they were."""
    model = onnx.load_from_string(points)
    node, mix = cheap_network(spec)
    needed, before, after = {"heatmaps"}, [], []
    for each in reversed(model.graph.node):
        inside = bool(needed & set(each.output)) and "image" not in each.output
        if inside:
            needed |= set(each.input)
        elif "image" in each.output or before:
            before.insert(0, each)
        else:
            after.insert(0, each)
    nodes = [*before, node, *after]
    used = {name for each in nodes for name in each.input}
    weights = [each for each in model.graph.initializer if each.name in used]
    graph = helper.make_graph(
        nodes, "cheap", model.graph.input, model.graph.output, [*weights, mix]
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(made.SerializeToString())


def cheap_alone(spec: ModelSpec) -> bytes:
    """The cheap network as a model of its own."""
    (width, height), (columns, rows) = spec.input_size, spec.heatmap_size
    kind = onnx.TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", kind, ["N", 3, height, width])
    maps = helper.make_tensor_value_info("heatmaps", kind, ["N", len(spec.skeleton), rows, columns])
    node, mix = cheap_network(spec)
    graph = helper.make_graph([node], "cheap", [image], [maps], [mix])
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def runtime_of(points: bytes) -> Runtime:
    """A runtime of a points graph without the flip test, one thread."""
    return Runtime(
        Bundle("bench", RESNET, {}, {"plain": points}), device="cpu", threads=1, flip=False
    )


def best_ms(work: Callable[[], Any], repeats: int) -> float:
    """The minimum CPU milliseconds of a call."""
    work()
    return min(measured(work)[1] for _ in range(repeats)) * 1e3


def against_rtmlib(frame: Any, persons: int) -> dict[str, float]:
    """CPU milliseconds per person: posekit's here, rtmlib's in its own environment."""
    weights = weights_of(random_network(RESNET))
    points = exported_bytes(RESNET, weights, flip=False)
    height, width = frame.shape[:2]
    left = np.linspace(0, width * 0.8, persons)
    boxes = np.stack([left, left * 0 + 50, left + width * 0.15, left * 0 + height * 0.9], 1)
    warp = Warp.from_boxes(Boxes(boxes), RESNET)
    cheap, real = runtime_of(with_cheap_network(points, RESNET)), runtime_of(points)
    crops = cheap.crop(frame, warp)
    repeats = 30
    around = best_ms(lambda: cheap.crop(frame, warp), repeats)
    around += best_ms(lambda: cheap.infer(crops), repeats)
    around -= bare_ms(crops, repeats)
    estimator = posekit.Estimator(real, lambda _: Boxes(boxes), EstimateOptions(min_score=-1e9))
    whole = best_ms(lambda: estimator(frame), 5)
    figures = {"ours_around_ms": around / persons, "ours_whole_ms": whole / persons}
    with tempfile.TemporaryDirectory() as folder:
        network = exported_bytes(RESNET, weights, outputs="raw")
        Path(folder, "net.onnx").write_bytes(network)
        np.savez(f"{folder}/in.npz", frame=frame[:, :, ::-1], boxes=boxes)
        run_rtmlib = [str(PYTHON), str(BASELINE), folder]
        done = subprocess.run(
            run_rtmlib, capture_output=True, text=True, check=True, env=one_thread()
        )
    baseline = json.loads(done.stdout.splitlines()[-1])
    figures |= {f"rtmlib_{name}": value / persons for name, value in baseline.items()}
    figures["around_ratio"] = figures["rtmlib_around_ms"] / figures["ours_around_ms"]
    figures["whole_ratio"] = figures["rtmlib_whole_ms"] / figures["ours_whole_ms"]
    figures["network_share_ours"] = 1 - figures["ours_around_ms"] / figures["ours_whole_ms"]
    return figures


def bare_ms(crops: Any, repeats: int) -> float:
    """CPU milliseconds of the cheap network alone, to be subtracted."""
    session = open_session(cheap_alone(RESNET), {}, device="cpu", threads=1)
    image = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32)
    return best_ms(lambda: session.run(None, {"image": image}), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    assets = ASSETS / "video" / "sports2d_demo.mp4"
    example = ROOT / "examples" / "sports2d_demo.mp4"
    parser.add_argument("--video", type=Path, default=assets if assets.exists() else example)
    options = parser.parse_args()
    figures: dict[str, Any] = {"video": options.video.name}
    for model, flip in (("movenet-lightning", False), ("movenet-thunder", True)):
        row = whole_run(options.video, model, flip=flip, rounds=1 if flip else 3)
        figures[f"{model}{'-flip' if flip else ''}"] = row
        print(
            f"{model} flip={flip}: {row['frames']} frames, {row['cpu_s']:.1f} CPU s against "
            f"{row['bare_cpu_s']:.1f} bare = {row['cpu_ratio']:.2f}; "
            f"wall {row['wall_s']:.1f} s = {row['wall_over_cpu']:.2f} of CPU"
        )
    if PYTHON.exists():
        cv2.setNumThreads(1)
        frame = read_first(options.video)
        for persons in (1, 8):
            row = against_rtmlib(frame, persons)
            figures[f"rtmlib-{persons}"] = row
            print(
                f"{persons} persons, CPU ms per person: crop and decode ours "
                f"{row['ours_around_ms']:.2f}, rtmlib {row['rtmlib_around_ms']:.2f} = "
                f"{row['around_ratio']:.1f} x; whole ours {row['ours_whole_ms']:.1f}, rtmlib "
                f"{row['rtmlib_whole_ms']:.1f} = {row['whole_ratio']:.2f} x; network "
                f"{100 * row['network_share_ours']:.0f} % of ours"
            )
    else:
        print("rtmlib: not measured; scripts/baselines makes its environment")
    print(save("end_to_end", command("end_to_end"), 2, figures))


if __name__ == "__main__":
    main()
