"""From frames to points, posekit and its rivals: `python benchmarks/end_to_end_rivals.py [...]`.

The same frames of a video, decoded before, and the same boxes for all, 1, 8 and 32 persons, 1 and
2 threads; each in a process of its own, held to as many cores as it has threads, TURNS times,
rival and posekit one after the other:

- rtmlib with the same ONNX network (a ResNet-50 with three deconvolutions, random weights): time.
  How far the points of both lie from one another is measured apart, on a network that has peaks:
  MoveNet Thunder, put into rtmlib's crop and decode conventions, on the persons of the video.
- transformers' VitPose, ViTPose-B with random weights: time; posekit runs a network of the same
  shape, with weights of its own, so points are not compared.
- MediaPipe's Pose (BlazePose full, trained), which finds one person in each box's cut-out and
  tracks; beside it posekit with Lightning and Thunder. Other networks: time only.

Rows are saved as they are measured and skipped the next time; --persons and --threads choose some,
and what was not asked for yet says "not run". Writes results/end_to_end_rivals.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from results_file import FOLDER, save

import posekit
from posekit import Bundle, nets, video
from posekit.bundle import Weights, embedded
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import points_graph
from posekit_engines.graphs.weights import bundle_weights, inline_weights

ROOT = Path(__file__).resolve().parents[1]
RIVALS = {
    "rtmlib": ROOT / ".rivals" / "bin" / "python",
    "vitpose": ROOT / ".rivals" / "bin" / "python",
    "mediapipe": ROOT / ".rivals-mediapipe" / "bin" / "python",
}
NOT_RUN = "not run"
TURNS = 3
FRAMES = {1: 4, 8: 1, 32: 1}
"""By persons: a turn takes seconds, since this machine's pace changes within a minute."""
POINTS = "points of rtmlib and posekit, the same network"
# rtmlib's ViTPose: a box spans W crop px around W / 2, cell 0 lies at crop 0 and cell w - 1 at W.
RESNET = ModelSpec(
    "simple-baseline-r50",
    (192, 256),
    (48, 64),
    COCO_17,
    decode="udp",
    map_scale=(192 / 47, 256 / 63),
)
NETWORKS = {"rtmlib": RESNET, "vitpose": replace(RESNET, architecture="vitpose-b-simple")}
EMBEDDED = ("movenet-lightning", "movenet-thunder")


def exported(spec: ModelSpec, folder: Path, weights: Weights | None = None) -> None:
    """The network, or one of random weights: net.onnx for the rival, net.posekit for us."""
    torch.manual_seed(0)
    net = nets.build(spec)
    if weights is not None:
        net.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in weights.items()})
    network, kept = network_graph(net, spec), bundle_weights(net)
    graph = points_graph(network, spec, flip=False).SerializeToString()
    Bundle("random", spec, kept, {"plain": graph}).save(folder / "net.posekit")
    onnx.save(inline_weights(network, kept), folder / "net.onnx")


def measured(command: list[str], folder: Path, threads: int) -> dict[str, Any]:
    """What a process of its own, on `threads` cores, leaves in out.npz."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    held = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        command,
        env=os.environ | held,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-800:]}")
    with np.load(folder / "out.npz") as answer:
        return dict(answer)


def run_by(python: str | Path, task: str, folder: Path, threads: int) -> dict[str, Any]:
    script = str(Path(__file__).with_name("rival_whole.py"))
    return measured([str(python), script, task, str(folder)], folder, threads)


def told(answers: list[dict[str, Any]], persons: int, frames: int) -> dict[str, float]:
    """Rate, CPU time and memory: medians over the turns."""
    cpu = np.array([float(answer["cpu_s"]) for answer in answers])
    wall = np.array([float(answer["wall_s"]) for answer in answers])
    return {
        "frames_a_s": frames / float(np.median(wall)),
        "cpu_ms_a_person": 1e3 * float(np.median(cpu)) / frames / persons,
        "wall_over_cpu": float(np.median(wall / cpu)),
        "peak_mb": float(np.median([float(answer["peak_mb"]) for answer in answers])),
    }


def row(name: str, folder: Path, *, frames: int, persons: int, threads: int) -> dict[str, Any]:
    """One rival and ours beside it, in turns; ratios of CPU time are medians within a turn."""
    models = EMBEDDED if name == "mediapipe" else ("net.posekit",)
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in (name, *models)}
    for _ in range(TURNS):
        found[name].append(run_by(RIVALS[name], name, folder, threads))
        for model in models:
            found[model].append(run_by(sys.executable, model, folder, threads))
    figures: dict[str, Any] = {name: told(found[name], persons, frames)}
    for model in models:
        mine = told(found[model], persons, frames)
        pairs = zip(found[name], found[model], strict=True)
        ratios = [float(theirs["cpu_s"] / ours["cpu_s"]) for theirs, ours in pairs]
        mine |= {"cpu_ratio": float(np.median(ratios)), "cpu_ratios": sorted(ratios)}
        figures["posekit" if model == "net.posekit" else model] = mine
    return figures


def agreement(clip: Path, frames: int = 16, every: int = 5) -> dict[str, Any]:
    """How far rtmlib's points lie from ours, frame px, where both see a peak."""
    bundle = Bundle.open(embedded()["movenet-thunder"])
    own = bundle.pose_spec
    theirs = {"padding": 1.25, "decode": "udp", "blur": 11, "sigma": 2.0}
    theirs |= {"crop_shrink": 0.0, "crop_center": 0.0}
    scale = tuple(n / (m - 1) for n, m in zip(own.input_size, own.heatmap_size, strict=True))
    spec = replace(own, map_scale=scale, map_offset=(0.0, 0.0), **theirs)
    with tempfile.TemporaryDirectory() as place, video.read(clip) as reader:
        folder = Path(place)
        exported(spec, folder, bundle.weights)
        taken = [f.image for f in itertools.islice(reader, 0, frames * every, every)]
        boxes = posekit.load("movenet-thunder", device="cpu")(taken[0]).boxes.xyxy
        given = {"mean": spec.mean, "std": spec.std, "size": spec.input_size}
        np.savez(folder / "in.npz", frames=np.stack(taken), boxes=boxes, **given)
        found = [
            run_by(RIVALS["rtmlib"], "rtmlib", folder, 1),
            run_by(sys.executable, "net.posekit", folder, 1),
        ]
    seen = found[1]["scores"] > 0.3
    far = np.linalg.norm(found[0]["points"] - found[1]["points"], axis=-1)[seen]
    shares = {f"p{n}_px": float(np.percentile(far, n)) for n in (50, 90, 99)}
    return {"points": int(seen.sum()), **shares, "largest_px": float(far.max())}


def prepare(folder: Path, clip: Path, *, frames: int, persons: int) -> None:
    """The frames and boxes that all are given."""
    with video.read(clip) as reader:
        taken = list(itertools.islice((frame.image for frame in reader), frames))
    height, width = taken[0].shape[:2]
    left = np.linspace(0, width * 0.8, persons)
    box = [left, left * 0 + height * 0.1, left + width * 0.15, left * 0 + height * 0.9]
    boxes = np.stack(box, 1).astype(np.float32)
    np.savez(folder / "in.npz", frames=np.stack(taken), boxes=boxes)


def kept() -> dict[str, Any]:
    path = FOLDER / "end_to_end_rivals.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return figures


def chosen() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    example = ROOT / "examples" / "sports2d_demo.mp4"
    parser.add_argument("--video", type=Path, default=example)
    parser.add_argument("--persons", type=int, nargs="+", choices=FRAMES, default=list(FRAMES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    return parser.parse_args()


def main() -> None:
    options = chosen()
    every = itertools.product(RIVALS, FRAMES, (1, 2))
    figures = {f"{n}, {p} persons, {t} threads": NOT_RUN for n, p, t in every} | kept()
    if "rtmlib" in options.rivals and (POINTS not in figures or options.again):
        figures[POINTS] = agreement(options.video)
        print(POINTS, figures[POINTS], flush=True)
        save("end_to_end_rivals", "python benchmarks/end_to_end_rivals.py", 1, figures)
    for name, persons, threads in itertools.product(
        options.rivals, options.persons, options.threads
    ):
        key = f"{name}, {persons} persons, {threads} threads"
        if (figures.get(key, NOT_RUN) != NOT_RUN and not options.again) or threads > len(
            os.sched_getaffinity(0)
        ):
            continue
        if not RIVALS[name].exists():
            print(f"{name}: not measured; scripts/rivals makes its environment")
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            frames = FRAMES[persons]
            prepare(folder, options.video, frames=frames, persons=persons)
            if name in NETWORKS:
                exported(NETWORKS[name], folder)
            measure = {"frames": frames, "persons": persons, "threads": threads}
            figures[key] = measure | row(name, folder, **measure)
        print(key, figures[key], flush=True)
        save("end_to_end_rivals", "python benchmarks/end_to_end_rivals.py", threads, figures)


if __name__ == "__main__":
    main()
