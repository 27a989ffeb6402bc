"""What posekit adds to the networks it runs: `python benchmarks/end_to_end.py [--video FILE]`.

1. A whole run of `infer` without an overlay, two threads, against the bare calls that it cannot
   do without: ONNX Runtime on both networks, as often and in the same batches, and PyAV decoding
   to RGB. CPU seconds as a ratio, and wall time over its own CPU seconds.
2. rtmlib with the same ONNX network and the same boxes, where `scripts/rivals` has made its
   environment: CPU milliseconds a person for crop and decode, and end to end, one thread.

Ratios are of one run on one machine; other work on it disturbs them less than seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
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
import torch
from onnx import helper
from results_file import save

import posekit
from posekit import EstimateOptions, Warp, nets
from posekit.bundle import Bundle
from posekit.infer import InferOptions, run
from posekit.outputs import OutputOptions
from posekit.runtime import Runtime
from posekit.session import open_session
from posekit.skeletons import COCO_17
from posekit.types import Boxes, ModelSpec
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import points_graph
from posekit_engines.graphs.weights import bundle_weights, inline_weights

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / ".rivals" / "bin" / "python"
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
    looks = [0]
    infer, find = estimator.runtime.infer, estimator.find

    def counting_infer(crops: Any) -> Any:
        batches.append(len(crops))
        return infer(crops)

    def counting_find(frame: Any) -> Boxes:
        looks[0] += 1
        return find(frame)

    estimator.runtime.infer = counting_infer  # type: ignore[method-assign]
    estimator.find = counting_find
    runs = []
    bare = float("inf")
    for _ in range(rounds):  # alternating, so that both meet the machine's moods; the least counts
        batches.clear()
        looks[0] = 0
        with tempfile.TemporaryDirectory() as folder:
            options = InferOptions(OutputOptions(Path(folder) / "out", overlay=False))
            job = functools.partial(run, estimator, [str(video)], options)
            runs.append(measured(job))
        bare = min(bare, bare_calls(video, model, batches, looks[0], flip=flip))
    wall, cpu = min(runs, key=lambda each: each[1])
    return {
        "frames": count_frames(video),
        "persons": sum(batches),
        "detections": looks[0],
        "wall_s": wall,
        "cpu_s": cpu,
        "bare_cpu_s": bare,
        "cpu_ratio": cpu / bare,
        "wall_over_cpu": wall / cpu,
    }


def bare_calls(video: Path, model: str, batches: list[int], looks: int, *, flip: bool) -> float:
    """CPU seconds of the networks and of decoding, and of nothing else."""
    pose = Bundle.open(posekit.bundle.find(model))
    graph = open_session(pose.graphs["flip" if flip else "plain"], pose.weights, threads=2)
    detector = Bundle.open(posekit.bundle.find("nanodet-person"))
    find = open_session(detector.graphs["detect"], detector.weights, threads=2)
    width, height = pose.spec.input_size
    crops = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)
    taken = find.get_inputs()[0]
    shape = [1 if isinstance(n, str) else n for n in taken.shape]
    frame = read_first(video)
    if shape[1] == 1:  # any size: what the letterbox of this video is
        scale = 416 / max(frame.shape[:2])
        shape[1:3] = [-(-round(n * scale) // 32) * 32 for n in frame.shape[:2]]
    image = np.full(shape, 100, np.uint8)

    def networks() -> None:
        for count in batches:
            if count:
                graph.run(None, {"crops": np.resize(crops, (count, height, width, 3))})
        for _ in range(looks):
            find.run(None, {taken.name: image})

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


def cheap_network(spec: ModelSpec) -> onnx.ModelProto:
    """A network that is next to nothing: every fourth pixel, one product of channels."""
    width, height = spec.input_size
    count, value = len(spec.skeleton), helper.make_tensor_value_info
    mix = np.random.default_rng(0).standard_normal((count, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "mix"], ["heatmaps"], strides=[4, 4])],
        "cheap",
        [value("image", onnx.TensorProto.FLOAT, ["N", 3, height, width])],
        [value("heatmaps", onnx.TensorProto.FLOAT, ["N", count, height // 4, width // 4])],
        [onnx.numpy_helper.from_array(mix, "mix")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def runtime_of(network: onnx.ModelProto) -> Runtime:
    graphs = {
        name: points_graph(network, RESNET, flip=name == "flip").SerializeToString()
        for name in ("flip", "plain")
    }
    return Runtime(Bundle("bench", RESNET, {}, graphs), device="cpu", threads=1, flip=False)


def least(work: Callable[[], Any], repeats: int) -> float:
    """The smallest CPU milliseconds of a call."""
    work()
    return min(measured(work)[1] for _ in range(repeats)) * 1e3


def against_rtmlib(frame: Any, persons: int) -> dict[str, float]:
    """CPU milliseconds a person: ours here, rtmlib's in its own environment."""
    torch.manual_seed(0)
    net = nets.build(RESNET)
    network = inline_weights(network_graph(net, RESNET), bundle_weights(net))
    height, width = frame.shape[:2]
    left = np.linspace(0, width * 0.8, persons)
    boxes = np.stack([left, left * 0 + 50, left + width * 0.15, left * 0 + height * 0.9], 1)
    warp = Warp.from_boxes(Boxes(boxes), RESNET)
    cheap, real = runtime_of(cheap_network(RESNET)), runtime_of(network)
    crops = cheap.crop(frame, warp)
    repeats = 30
    around = least(lambda: cheap.crop(frame, warp), repeats)
    around += least(lambda: cheap.infer(crops), repeats)
    around -= bare_ms(crops, repeats)
    estimator = posekit.Estimator(real, lambda _: Boxes(boxes), EstimateOptions(min_score=-1e9))
    whole = least(lambda: estimator(frame), 5)
    figures = {"ours_around_ms": around / persons, "ours_whole_ms": whole / persons}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(network, f"{folder}/net.onnx")
        np.savez(f"{folder}/in.npz", frame=frame[:, :, ::-1], boxes=boxes)
        command = [str(RIVALS), str(Path(__file__).with_name("rival_rtmlib.py")), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread())
    rival = json.loads(done.stdout.splitlines()[-1])
    figures |= {f"rtmlib_{name}": value / persons for name, value in rival.items()}
    figures["around_ratio"] = figures["rtmlib_around_ms"] / figures["ours_around_ms"]
    figures["whole_ratio"] = figures["rtmlib_whole_ms"] / figures["ours_whole_ms"]
    figures["network_share_ours"] = 1 - figures["ours_around_ms"] / figures["ours_whole_ms"]
    return figures


def bare_ms(crops: Any, repeats: int) -> float:
    """CPU milliseconds of the cheap network alone, which is not what is measured."""
    session = open_session(cheap_network(RESNET).SerializeToString(), {}, device="cpu", threads=1)
    image = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32)
    return least(lambda: session.run(None, {"image": image}), repeats)


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    assets = ROOT.parent / "shared" / "assets" / "video" / "sports2d_demo.mp4"
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
    if RIVALS.exists():
        cv2.setNumThreads(1)
        frame = read_first(options.video)
        for persons in (1, 8):
            row = against_rtmlib(frame, persons)
            figures[f"rtmlib-{persons}"] = row
            print(
                f"{persons} persons, ms CPU a person: crop and decode ours "
                f"{row['ours_around_ms']:.2f}, rtmlib {row['rtmlib_around_ms']:.2f} = "
                f"{row['around_ratio']:.1f} x; whole ours {row['ours_whole_ms']:.1f}, rtmlib "
                f"{row['rtmlib_whole_ms']:.1f} = {row['whole_ratio']:.2f} x; network "
                f"{100 * row['network_share_ours']:.0f} % of ours"
            )
    else:
        print("rtmlib: not measured; scripts/rivals makes its environment")
    print(save("end_to_end", "python benchmarks/end_to_end.py", 2, figures))


if __name__ == "__main__":
    main()
