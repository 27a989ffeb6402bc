"""`posekit infer` on the stand-ins of libcuda and TensorRT, with bundles that have plans inside."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from posekit import bundle
from posekit.bundle import Bundle
from posekit_engines.trt import cache
from posekit_engines.trt.plan import DETECT, PlanFile, PlanOptions, key_of, requirements
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.engines.cuda_emulation.stand_ins import environment, run_python
from tests.support.assets import shipped

MODEL, DETECTOR = "planned.posekit", "detector.posekit"
"""Bundles in the folder of `write_stand_ins`."""


def write_stand_ins(folder: Path) -> Path:
    """Put into the folder the stand-in as `tensorrt`, and Lightning and the detector with plans."""
    name = trt.__name__
    module = f"from {name} import *\nfrom {name} import __version__\n"
    (folder / "tensorrt.py").write_text(module)
    model = Bundle.open(bundle.embedded()["movenet-lightning"])
    with_plan(model, trt.plan_of(model), PlanOptions()).save(folder / MODEL)
    detector = Bundle.open(bundle.embedded()["nanodet-person"])
    with_plan(detector, trt.detect_plan_of(detector), DETECT).save(folder / DETECTOR)
    return folder


def with_plan(model: Bundle, plan: bytes, options: PlanOptions) -> Bundle:
    """The bundle with a plan inside that matches the stand-in GPU."""
    gpu = SimpleNamespace(name="posekit's stand-in", capability=(8, 0))
    module = SimpleNamespace(__name__="tensorrt", __version__=trt.__version__)
    metadata = requirements(model, gpu, module, options=options)
    metadata["sha256"] = hashlib.sha256(plan).hexdigest()
    return cache.with_plans(model, [PlanFile(key_of(metadata), plan, metadata, "built")])


def infer_demo(folder: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`posekit infer` on the first quarter of a second of the demo, with the folder's stand-ins."""
    clip = str(shipped("examples/sports2d_demo.mp4"))
    options = ["--end", "0.25", "--no-video", "--json", "--threads", "1", "-o", str(out)]
    options += ["--boxes", str(folder / DETECTOR)]
    return run_python(environment(folder), "-m", "posekit", "infer", clip, *options, *arguments)


def read_points(folder: Path) -> NDArray[np.float64]:
    """x, y and score of every person of every frame of the demo's output, (P, K, 3)."""
    frames = [
        json.loads(line) for line in (folder / "sports2d_demo.jsonl").read_text().splitlines()
    ]
    persons = [person for frame in frames for person in frame.get("persons", [])]
    return np.array([np.column_stack([each["points"], each["scores"]]) for each in persons])
