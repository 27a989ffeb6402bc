"""From frames to points, posekit and its baselines: `python -m benchmarks end_to_end_baselines`.

The same frames of a video, decoded before, and the same boxes for all, 1, 8 and 32 persons, 1 and
2 threads; each in a process of its own, pinned to as many cores as it has threads, TURNS times,
baseline and posekit alternating:

- rtmlib with the same ONNX network (a ResNet-50 with three deconvolutions, random weights): time.
  How far the points of both lie from one another is measured apart, on a network that has peaks:
  MoveNet Thunder, put into rtmlib's crop and decode conventions, on the persons of the video.
- transformers' VitPose, ViTPose-B with random weights: time; posekit runs a network of the same
  shape, with weights of its own, so points are not compared.
- MediaPipe's Pose (BlazePose full, trained), which finds one person in each box's cut-out and
  tracks; beside it posekit with Lightning and Thunder. Other networks: time only.

Rows are saved as they are measured and skipped the next time; --persons and --threads choose some,
and rows that were never requested are "not run". Writes results/end_to_end_rivals.json.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import posekit
from benchmarks.exported import export, random_network, weights_of
from benchmarks.results_file import ROOT, command, figures_of, save
from posekit import Bundle, ModelSpec, video
from posekit.bundle import Weights, embedded
from posekit.skeletons import COCO_17
from posekit.stats.parity import HIGH_CONFIDENCE

BASELINES = {
    "rtmlib": ROOT / ".baselines" / "bin" / "python",
    "vitpose": ROOT / ".baselines" / "bin" / "python",
    "mediapipe": ROOT / ".baselines-mediapipe" / "bin" / "python",
}
SCRIPT = Path(__file__).parent / "baselines" / "baseline_whole.py"
RESULTS = "end_to_end_rivals"
"""Name of the results file: that of the first measurement."""
NOT_RUN = "not run"
TURNS = 3
FRAMES = {1: 4, 8: 1, 32: 1}
"""By persons: a turn takes seconds, since the machine's speed changes within a minute."""
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
OWN = "points.onnx"
"""posekit's export of the network that the baseline runs as net.onnx."""


def exported(spec: ModelSpec, folder: Path, weights: Weights | None = None) -> None:
    """Write the network, or one of random weights: net.onnx for the baseline, and our points."""
    taken = weights_of(random_network(spec)) if weights is None else weights
    export(spec, taken, folder / "net.onnx", outputs="raw")
    export(spec, taken, folder / OWN, flip=False)


def measured(arguments: list[str], folder: Path, threads: int) -> dict[str, Any]:
    """The contents of out.npz that a process of its own, on `threads` cores, wrote."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    limits = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        arguments,
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()[-800:]}")
    with np.load(folder / "out.npz") as outputs:
        return dict(outputs)


def run_by(python: str | Path, task: str, folder: Path, threads: int) -> dict[str, Any]:
    return measured([str(python), str(SCRIPT), task, str(folder)], folder, threads)


def medians(turns: list[dict[str, Any]], persons: int, frames: int) -> dict[str, float]:
    """Rate, CPU time and memory: medians over the turns."""
    cpu = np.array([float(turn["cpu_s"]) for turn in turns])
    wall = np.array([float(turn["wall_s"]) for turn in turns])
    return {
        "frames_a_s": frames / float(np.median(wall)),
        "cpu_ms_a_person": 1e3 * float(np.median(cpu)) / frames / persons,
        "wall_over_cpu": float(np.median(wall / cpu)),
        "peak_mb": float(np.median([float(turn["peak_mb"]) for turn in turns])),
    }


def row(name: str, folder: Path, *, frames: int, persons: int, threads: int) -> dict[str, Any]:
    """A baseline and posekit in turns; ratios of CPU time are medians within a turn."""
    models = EMBEDDED if name == "mediapipe" else (OWN,)
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in (name, *models)}
    for _ in range(TURNS):
        found[name].append(run_by(BASELINES[name], name, folder, threads))
        for model in models:
            found[model].append(run_by(sys.executable, model, folder, threads))
    figures: dict[str, Any] = {name: medians(found[name], persons, frames)}
    for model in models:
        mine = medians(found[model], persons, frames)
        pairs = zip(found[name], found[model], strict=True)
        ratios = [float(theirs["cpu_s"] / ours["cpu_s"]) for theirs, ours in pairs]
        mine |= {"cpu_ratio": float(np.median(ratios)), "cpu_ratios": sorted(ratios)}
        figures["posekit" if model == OWN else model] = mine
    return figures


def agreement(clip: Path, frames: int = 16, every: int = 5) -> dict[str, Any]:
    """How far rtmlib's points lie from ours, frame px, where both have a peak."""
    bundle = Bundle.open(embedded()["movenet-thunder"])
    own = bundle.pose_spec
    conventions: dict[str, Any] = {"padding": 1.25, "decode": "udp", "blur": 11, "sigma": 2.0}
    conventions |= {"crop_shrink": 0.0, "crop_center": 0.0}
    scale = tuple(n / (m - 1) for n, m in zip(own.input_size, own.heatmap_size, strict=True))
    spec = replace(own, map_scale=scale, map_offset=(0.0, 0.0), **conventions)
    with tempfile.TemporaryDirectory() as place, video.read(clip) as reader:
        folder = Path(place)
        exported(spec, folder, bundle.weights)
        taken = [f.image for f in itertools.islice(reader, 0, frames * every, every)]
        boxes = posekit.load("movenet-thunder", device="cpu")(taken[0]).boxes.xyxy
        sizes = {"mean": spec.mean, "std": spec.std, "size": spec.input_size}
        np.savez(folder / "in.npz", frames=np.stack(taken), boxes=boxes, **sizes)
        found = [
            run_by(BASELINES["rtmlib"], "rtmlib", folder, 1),
            run_by(sys.executable, OWN, folder, 1),
        ]
    present = found[1]["scores"] > HIGH_CONFIDENCE
    far = np.linalg.norm(found[0]["points"] - found[1]["points"], axis=-1)[present]
    shares = {f"p{n}_px": float(np.percentile(far, n)) for n in (50, 90, 99)}
    return {"points": int(present.sum()), **shares, "largest_px": float(far.max())}


def prepare(folder: Path, clip: Path, *, frames: int, persons: int) -> None:
    """Write the frames and boxes that all take."""
    with video.read(clip) as reader:
        taken = list(itertools.islice((frame.image for frame in reader), frames))
    height, width = taken[0].shape[:2]
    left = np.linspace(0, width * 0.8, persons)
    box = [left, left * 0 + height * 0.1, left + width * 0.15, left * 0 + height * 0.9]
    boxes = np.stack(box, 1).astype(np.float32)
    np.savez(folder / "in.npz", frames=np.stack(taken), boxes=boxes)


def chosen() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    example = ROOT / "examples" / "sports2d_demo.mp4"
    parser.add_argument("--video", type=Path, default=example)
    parser.add_argument("--persons", type=int, nargs="+", choices=FRAMES, default=list(FRAMES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--again", action="store_true", help="measure existing rows again")
    return parser.parse_args()


def main() -> None:
    options = chosen()
    every = itertools.product(BASELINES, FRAMES, (1, 2))
    figures = {f"{n}, {p} persons, {t} threads": NOT_RUN for n, p, t in every} | figures_of(RESULTS)
    if "rtmlib" in options.baselines and (POINTS not in figures or options.again):
        figures[POINTS] = agreement(options.video)
        print(POINTS, figures[POINTS], flush=True)
        save(RESULTS, command("end_to_end_baselines"), 1, figures)
    for name, persons, threads in itertools.product(
        options.baselines, options.persons, options.threads
    ):
        key = f"{name}, {persons} persons, {threads} threads"
        if (figures.get(key, NOT_RUN) != NOT_RUN and not options.again) or threads > len(
            os.sched_getaffinity(0)
        ):
            continue
        if not BASELINES[name].exists():
            print(f"{name}: not measured; scripts/baselines makes its environment")
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
        save(RESULTS, command("end_to_end_baselines"), threads, figures)


if __name__ == "__main__":
    main()
