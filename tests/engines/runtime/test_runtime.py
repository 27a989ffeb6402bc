"""The whole GPU runtime on a stand-in libcuda: real host code, real kernels, real pictures.

The network between the kernels is the bundle's own, run by ONNX Runtime in a stand-in TensorRT.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posekit import bundle
from posekit.bundle import Bundle
from posekit.types import ModelSpec
from posekit_engines.kernels import THREADS
from posekit_engines.trt import cache
from posekit_engines.trt.plan import DETECT, PlanFile, PlanOptions, key_of, requirements
from tests.assets import ROOT, shipped
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.engines.cuda_emulation import tools
from tests.engines.kernels.test_host import DRIVERS, needs_driver, stand_in

pytestmark = pytest.mark.tools

DRIVE = tools.HERE / "drive_runtime.py"
CELL = 1e-3  # decode equals the codecs within this, cells
PERSONS, BUCKET = 4, 4


@functools.cache
def drive(
    driver: str, model: str, trial: str, schedule: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """What drive_runtime.py answers, and the driver's calls."""
    return traced(DRIVE, driver, model, trial, schedule=schedule)


def traced(script: Path, driver: str, *arguments: str, schedule: str = "") -> tuple[Any, list[str]]:
    """What a script answers in its last line on the stand-in libcuda, and the driver's calls."""
    needs_driver(driver)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        environment = stand_ins(POSEKIT_TRACE=str(trace), POSEKIT_SCHEDULE=schedule)
        done = run(environment, str(script), driver, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), trace.read_text().splitlines()


def stand_ins(*paths: Path, **more: str) -> dict[str, str]:
    """The environment of a process that meets the stand-in libcuda; paths: imported from first."""
    found = [*paths, ROOT, ROOT / "engines", tools.wheels()]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(stand_in()),
        "PYTHONPATH": os.pathsep.join(map(str, found)),
        "XDG_CACHE_HOME": str(stand_in()),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments."""
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def spec_of(model: str) -> ModelSpec:
    return Bundle.open(bundle.embedded()[model]).pose_spec


SLOW = pytest.mark.slow
ANSWERS = [
    ("cuda-bindings", "movenet-lightning", "flip"),
    ("cuda-bindings", "movenet-lightning", "plain"),
    ("cuda-bindings", "movenet-thunder", "flip"),
    pytest.param("cuda-bindings", "movenet-thunder", "plain", marks=SLOW),
    pytest.param("cuda-bindings", "movenet-lightning", "float32", marks=SLOW),
    pytest.param("pycuda", "movenet-lightning", "flip", marks=SLOW),
    pytest.param("pycuda", "movenet-lightning", "plain", marks=SLOW),
    pytest.param("pycuda", "movenet-thunder", "flip", marks=SLOW),
]


@pytest.mark.verifies("gpu_runtime.py", "host code driven")
@pytest.mark.parametrize(("driver", "model", "trial"), ANSWERS)
def test_real_persons_get_the_cpus_points(driver: str, model: str, trial: str) -> None:
    """Against the same arithmetic in numpy, and against the CPU runtime with OpenCV's crops.

    The crops are within one grey level of OpenCV's: what one level in every byte does to the
    CPU's own answer is the most that may come of it. Float16 rounds a normalised pixel (below 1)
    by at most 2^-12, a sixteenth of a grey level: that, and the decode's tolerance, bound the twin.
    """
    spec = spec_of(model)
    answer, _ = drive(driver, model, trial)
    decode = CELL * max(spec.map_scale)
    level = answer["grey_level_px"]
    assert answer["twin"]["sure"] >= 50
    assert answer["twin"]["px"] <= level / 16 + decode, answer
    assert answer["cpu"]["px"] <= level + decode, answer
    assert answer["cpu"]["score"] < 0.05
    assert answer["again"]
    assert answer["notes"] == []
    assert answer["provider"].startswith("TensorRT")


@pytest.mark.verifies("gpu_runtime.py", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("trial", ["flip", "plain"])
def test_a_batch_is_one_graph_of_one_crop_one_network_and_one_decode(
    driver: str, trial: str
) -> None:
    """The first use runs and records it; then a batch is one replay. 12 bytes a keypoint back."""
    answer, lines = drive(driver, "movenet-lightning", trial)
    assert set(answer["runs"]) == {BUCKET * (2 if trial == "flip" else 1)}
    calls = [line for line in lines if not line.startswith(("function", "wait", "reach"))]
    spec = spec_of("movenet-lightning")
    width, height = spec.input_size
    assert spec.decode == "dark"
    patch = 2 * (2 + spec.blur // 2) + 1
    shared = 8 * (THREADS // 32) + 4 * (patch * patch + 5 * patch + 2 * 5 * 5)
    batch = [
        f"upload {60 * BUCKET}",
        f"launch crop_normalize_rgb_f16 grid {width * height // 4 // THREADS} {BUCKET} 1 "
        f"threads {THREADS} shared 0",
        "host function",
        f"launch decode_flip_f16 grid 17 {BUCKET} 1 threads {THREADS} shared {shared}",
        f"download {12 * 17 * PERSONS}",
    ]
    pictures = [line for line in calls if line.startswith("upload ") and len(line) > 12]
    assert len(pictures) == 3 * 2  # each picture once a call
    start = calls.index("begin capture")
    assert calls[start - 6 : start] == [*batch, "finish 1"]
    assert calls[start + 1 : start + 2] == ["end capture of 5"]
    assert calls[start + 2 : start + 8] == ["replay", *batch]
    assert not any("pageable" in line or "refused" in line for line in lines)
    downloads = [line for line in calls if line.startswith("download")]
    assert set(downloads) == {batch[-1]}
    assert len(downloads) == sum("crop_normalize" in line for line in calls) == 3


@pytest.mark.verifies("gpu_runtime.py", "host code driven")
@pytest.mark.verifies("fuse_views.cu", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
def test_several_views_are_one_crop_one_network_one_fusing(driver: str) -> None:
    """Against MultiView on the CPU, whose crops differ by a grey level, and against the twin.

    The bounds are those of one view: the mean of eight moves no more than each of them. Eight
    views of a bucket of four persons: 32 crops, and 12 bytes a keypoint back all the same.
    """
    answer, lines = drive(driver, "movenet-lightning", "views")
    spec = spec_of("movenet-lightning")
    decode, level = CELL * max(spec.map_scale), answer["grey_level_px"]
    assert answer["twin"]["sure"] >= 50
    assert answer["twin"]["px"] <= level / 16 + decode, answer
    assert answer["cpu"]["px"] <= level + decode, answer
    assert answer["calibrated"] == [False, False]  # no calibration was fitted to such scores
    assert answer["buckets"] == [1, 2, 4, 8, 16]  # the plan takes 128 images
    assert set(answer["runs"]) == {8 * BUCKET}
    start = lines.index("begin capture")
    launches = [line.split(" threads")[0] for line in lines[:start] if line.startswith("launch")]
    width, height = spec.input_size
    columns, rows = spec.heatmap_size
    assert launches == [
        f"launch crop_normalize_rgb_f16 grid {width * height // 4 // THREADS} {8 * BUCKET} 1",
        f"launch decode_flip_f16 grid 17 {8 * BUCKET} 1",
        f"launch fuse_views_f16 grid {columns * rows // THREADS} 17 {BUCKET}",
        f"launch decode_flip_f32 grid 17 {BUCKET} 1",
    ]
    downloads = {line for line in lines if line.startswith("download")}
    assert downloads == {f"download {12 * 17 * PERSONS}"}


def odds(driver: str, trial: str) -> dict[str, Any]:
    """One of the trials that run in one process."""
    answer, _ = drive(driver, "movenet-lightning", "odds")
    found: dict[str, Any] = answer[trial]
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_other_numbers_of_persons_and_pictures(driver: str) -> None:
    """Batches beyond the largest are split, smaller ones filled up, nobody is no batch at all."""
    answer = odds(driver, "batches")
    assert answer["buckets"] == [1, 2]
    # The network's float32 sums in batches of another size: rounding, within the decode's cells.
    assert answer["singly"] < 0.05
    assert answer["none"] == [[0, 17, 2], [0, 17]]
    assert answer["filled up"] == 0
    assert answer["strided"] == 0


@pytest.mark.verifies("gpu_runtime.py", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_next_picture_goes_up_while_a_batch_is_computed(driver: str) -> None:
    """Its upload is queued between a batch's replay and the host's wait for that batch's end."""
    answer = odds(driver, "film")
    assert answer["off"] == 0
    calls = answer["calls"]
    replays = [n for n, call in enumerate(calls) if call == "replay computing"]
    assert len(replays) == calls.count("upload copying") == 12
    for start, end in itertools.pairwise(replays[:6]):
        between = [call for call in calls[start:end] if call in ("upload copying", "reach a batch")]
        assert between[0] == "upload copying", calls[start:end]


@pytest.mark.parametrize("schedule", ["1", pytest.param("2", marks=SLOW)])
def test_answers_do_not_depend_on_when_the_gpu_works(schedule: str) -> None:
    """Streams that overtake each other change nothing."""
    answer, _ = drive("cuda-bindings", "movenet-lightning", "film", schedule)
    assert answer["off"] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_missing_wait_is_noticed(driver: str) -> None:
    """What a GPU forgives most of the time gives a wrong answer where work runs late."""
    found, _ = drive(driver, "movenet-lightning", "mistakes", "late")
    assert found.pop("") == 0
    assert len(found) == 6
    unnoticed = [name for name, end in found.items() if not isinstance(end, str) and end < 0.5]
    assert not unnoticed, found


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_does_not_fit_is_refused_and_what_cannot_be_recorded_still_runs(driver: str) -> None:
    answer = odds(driver, "refusals")
    assert "does not load on posekit's stand-in" in answer["not a plan"]
    assert "made for another model" in answer["another model"]
    assert "takes 1 to 1 images" in answer["one image with flip"]
    assert answer["notes"] == ["no CUDA graph: it compiles still"]
    assert (answer["later"], answer["graphs"]) == ([], 1)
    assert answer["direct"] == 0


@pytest.fixture(scope="module")
def with_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in as `tensorrt`; Lightning and the detector with their plans."""
    folder = tmp_path_factory.mktemp("plan")
    name = "tests.engines.cuda_emulation.tensorrt_stand_in"
    module = f"from {name} import *\nfrom {name} import __version__\n"
    (folder / "tensorrt.py").write_text(module)
    model = Bundle.open(bundle.embedded()["movenet-lightning"])
    planned(model, trt.plan_of(model), PlanOptions()).save(folder / "planned.posekit")
    detector = Bundle.open(bundle.embedded()["nanodet-person"])
    plan = trt.detect_plan_of(detector)
    planned(detector, plan, DETECT).save(folder / "detector.posekit")
    return folder


def planned(model: Bundle, plan: bytes, options: PlanOptions) -> Bundle:
    """The bundle with a plan inside that fits the stand-in GPU."""
    gpu = SimpleNamespace(name="posekit's stand-in", capability=(8, 0))
    module_told = SimpleNamespace(__name__="tensorrt", __version__=trt.__version__)
    said = requirements(model, gpu, module_told, options=options)
    said["sha256"] = hashlib.sha256(plan).hexdigest()
    key = key_of(said)
    return cache.with_plans(model, [PlanFile(key, plan, said, "built")])


def infer(folder: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`posekit infer` on the first quarter of a second of the demo, beside the stand-ins."""
    clip = str(shipped("examples/sports2d_demo.mp4"))
    options = ["--end", "0.25", "--no-video", "--json", "--threads", "1", "-o", str(out)]
    options += ["--boxes", str(folder / "detector.posekit")]
    return run(stand_ins(folder), "-m", "posekit", "infer", clip, *options, *arguments)


@pytest.mark.parametrize("runtime", ["native", pytest.param("auto", marks=SLOW)])
def test_the_command_line_runs_it_and_says_so(
    with_plan: Path, tmp_path: Path, runtime: str
) -> None:
    """Video in, keypoints out, through `--device cuda`: as the CPU's within a pixel or so."""
    model = str(with_plan / "planned.posekit")
    wanted = ["-m", model, "--device", "cuda", "--runtime", runtime]
    done = infer(with_plan, tmp_path / "gpu", *wanted)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    told = summary["runtime"]
    assert told["provider"] == f"TensorRT {trt.__version__}, fp16 plan of the bundle"
    assert told["device"].startswith("cuda:0 posekit's stand-in, ")
    assert told["notes"] == []
    boxes = summary["boxes"]
    assert boxes["provider"] == f"TensorRT {trt.__version__}, fp32 plan of the bundle"
    assert boxes["notes"] == []
    plain = infer(with_plan, tmp_path / "cpu", "-m", model, "--device", "cpu")
    assert json.loads(plain.stdout)["persons"] == summary["persons"] > 6
    gpu, cpu = (points(tmp_path / name / "sports2d_demo.jsonl") for name in ("gpu", "cpu"))
    shift = np.linalg.norm(gpu[..., :2] - cpu[..., :2], axis=-1)[cpu[..., 2] > 0.3]
    assert np.median(shift) < 0.25
    assert np.percentile(shift, 95) < 2


def points(path: Path) -> NDArray[np.float64]:
    """x, y and score of every person of every frame, (P, K, 3)."""
    frames = [json.loads(line) for line in path.read_text().splitlines()]
    persons = [person for frame in frames for person in frame.get("persons", [])]
    return np.array([np.column_stack([each["points"], each["scores"]]) for each in persons])


def test_a_plan_of_another_gpu_is_told_and_not_run(with_plan: Path, tmp_path: Path) -> None:
    """By name: no plan fits, and none can be built here. auto goes on without it, and says so."""
    model = Bundle.open(with_plan / "planned.posekit")
    (key,) = model.provenance["engines"]
    said = {**model.provenance["engines"][key], "gpu": {"name": "other", "capability": [9, 0]}}
    other = dataclasses.replace(model, provenance={**model.provenance, "engines": {key: said}})
    path = tmp_path / "other.posekit"
    other.save(path)
    done = infer(with_plan, tmp_path / "a", "-m", str(path), "--device", "cuda")
    assert done.returncode == 3
    assert "has no CUDA provider" in done.stderr
    assert "has no TensorRT engine for posekit's stand-in yet" in done.stderr
    assert done.stderr.count("\n") == 1
    done = infer(with_plan, tmp_path / "b", "-m", str(path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["runtime"]
    assert told["provider"] == "CPUExecutionProvider"
    assert "has no TensorRT engine for posekit's stand-in yet" in told["notes"][0]
