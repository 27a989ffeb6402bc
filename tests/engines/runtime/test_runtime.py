"""The whole GPU runtime on a stand-in libcuda: real host code, real kernels, real images.

The network between the kernels is the bundle's own, run by ONNX Runtime in a stand-in TensorRT.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.stats.parity import HIGH_CONFIDENCE
from posekit.types import ModelSpec
from posekit_engines.kernels import THREADS
from tests.engines.cuda_emulation import command_line, tools
from tests.engines.cuda_emulation import tensorrt_stand_in as trt
from tests.engines.cuda_emulation.stand_ins import DRIVERS, run_traced

pytestmark = pytest.mark.tools

DRIVE = tools.HERE / "drive_runtime.py"
CELL = 1e-3  # tolerance of the decode, cells
PERSONS, BUCKET = 4, 4


@functools.cache
def drive(
    driver: str, model: str, trial: str, schedule: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The result of drive_runtime.py, and the driver's calls."""
    return run_traced(DRIVE, driver, model, trial, schedule=schedule)


def spec_of(model: str) -> ModelSpec:
    return Bundle.open(bundle.embedded()[model]).pose_spec


SLOW = pytest.mark.slow
TRIALS = [
    ("cuda-bindings", "movenet-lightning", "flip"),
    ("cuda-bindings", "movenet-lightning", "plain"),
    ("cuda-bindings", "movenet-thunder", "flip"),
    pytest.param("cuda-bindings", "movenet-thunder", "plain", marks=SLOW),
    pytest.param("cuda-bindings", "movenet-lightning", "float32", marks=SLOW),
    pytest.param("pycuda", "movenet-lightning", "flip", marks=SLOW),
    pytest.param("pycuda", "movenet-lightning", "plain", marks=SLOW),
    pytest.param("pycuda", "movenet-thunder", "flip", marks=SLOW),
]


@pytest.mark.verifies("GPU runtime", "host code driven")
@pytest.mark.parametrize(("driver", "model", "trial"), TRIALS)
def test_real_persons_get_the_cpus_points(driver: str, model: str, trial: str) -> None:
    """Against the same arithmetic in numpy, and against the CPU runtime with OpenCV's crops.

    The crops are within one gray level of OpenCV's: the effect of one level in every byte on the
    CPU's own points is the bound. Float16 rounds a normalized pixel (below 1) by at most 2^-12, a
    sixteenth of a gray level: that and the decode's tolerance bound the reference.
    """
    spec = spec_of(model)
    result, _ = drive(driver, model, trial)
    decode = CELL * max(spec.map_scale)
    level = result["gray_level_px"]
    assert result["reference"]["compared"] >= 50
    assert result["reference"]["px"] <= level / 16 + decode, result
    assert result["cpu"]["px"] <= level + decode, result
    assert result["cpu"]["score"] < 0.05
    assert result["again"]
    assert result["notes"] == []
    assert result["provider"].startswith("TensorRT")


@pytest.mark.verifies("GPU runtime", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("trial", ["flip", "plain"])
def test_a_batch_is_one_graph_of_one_crop_one_network_and_one_decode(
    driver: str, trial: str
) -> None:
    """The first use runs and records it; then a batch is one replay and 12 bytes per keypoint."""
    result, lines = drive(driver, "movenet-lightning", trial)
    assert set(result["runs"]) == {BUCKET * (2 if trial == "flip" else 1)}
    calls = [
        line for line in lines if not line.startswith(("function", "wait", "synchronize event"))
    ]
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
    frames = [line for line in calls if line.startswith("upload ") and len(line) > 12]
    assert len(frames) == 3 * 2  # each frame once per call
    start = calls.index("begin capture")
    assert calls[start - 6 : start] == [*batch, "synchronize stream 1"]
    assert calls[start + 1 : start + 2] == ["end capture of 5"]
    assert calls[start + 2 : start + 8] == ["replay", *batch]
    assert not any("pageable" in line or "refused" in line for line in lines)
    downloads = [line for line in calls if line.startswith("download")]
    assert set(downloads) == {batch[-1]}
    assert len(downloads) == sum("crop_normalize" in line for line in calls) == 3


@pytest.mark.verifies("GPU runtime", "host code driven")
@pytest.mark.verifies("fuse_views.cu", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
def test_several_views_are_one_crop_one_network_one_fusion(driver: str) -> None:
    """Against TtaRuntime on the CPU, whose crops differ by a gray level, and the reference.

    The bounds are those of one view: the mean of eight deviates no more than each of them. Eight
    views of a bucket of four persons are 32 crops; the download is 12 bytes per keypoint still.
    """
    result, lines = drive(driver, "movenet-lightning", "views")
    spec = spec_of("movenet-lightning")
    decode, level = CELL * max(spec.map_scale), result["gray_level_px"]
    assert result["reference"]["compared"] >= 50
    assert result["reference"]["px"] <= level / 16 + decode, result
    assert result["cpu"]["px"] <= level + decode, result
    assert result["calibrated"] == [False, False]  # calibrations are not fitted to such scores
    assert result["buckets"] == [1, 2, 4, 8, 16]  # the engine takes 128 images
    assert set(result["runs"]) == {8 * BUCKET}
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


def special(driver: str, trial: str) -> dict[str, Any]:
    """One of the trials that run in one process."""
    result, _ = drive(driver, "movenet-lightning", "special")
    found: dict[str, Any] = result[trial]
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_other_numbers_of_persons_and_frames(driver: str) -> None:
    """Batches over the largest are split, smaller ones padded; no persons are no batch."""
    result = special(driver, "batches")
    assert result["buckets"] == [1, 2]
    # float32 sums of the network in another batch size: rounding, within the decode's cells
    assert result["singly"] < 0.05
    assert result["none"] == [[0, 17, 2], [0, 17]]
    assert result["filled up"] == 0
    assert result["strided"] == 0


@pytest.mark.verifies("GPU runtime", "host code driven")
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_next_frame_is_uploaded_while_a_batch_is_computed(driver: str) -> None:
    """Its upload is queued between a batch's replay and the host's wait for that batch."""
    result = special(driver, "film")
    assert result["off"] == 0
    calls = result["calls"]
    replays = [n for n, call in enumerate(calls) if call == "replay computing"]
    assert len(replays) == calls.count("upload copying") == 12
    for start, end in itertools.pairwise(replays[:6]):
        between = [
            call
            for call in calls[start:end]
            if call in ("upload copying", "synchronize_event a batch")
        ]
        assert between[0] == "upload copying", calls[start:end]


@pytest.mark.parametrize("schedule", ["1", pytest.param("2", marks=SLOW)])
def test_outputs_do_not_depend_on_when_work_runs(schedule: str) -> None:
    """The order in which streams advance changes nothing."""
    result, _ = drive("cuda-bindings", "movenet-lightning", "film", schedule)
    assert result["off"] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_missing_wait_is_detected(driver: str) -> None:
    """What often has no effect on a GPU gives a wrong result where work runs late."""
    found, _ = drive(driver, "movenet-lightning", "mistakes", "late")
    assert found.pop("") == 0
    assert len(found) == 6
    undetected = [name for name, end in found.items() if not isinstance(end, str) and end < 0.5]
    assert not undetected, found


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_does_not_fit_is_refused_and_what_cannot_be_recorded_still_runs(driver: str) -> None:
    result = special(driver, "refusals")
    assert "does not load on posekit's stand-in" in result["not a plan"]
    assert "built for another model" in result["another model"]
    assert "takes 1 to 1 images" in result["one image with flip"]
    assert result["notes"] == ["no CUDA graph: it is still compiling"]
    assert (result["later"], result["graphs"]) == ([], 1)
    assert result["direct"] == 0


@pytest.fixture(scope="module")
def with_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins and bundles with plans."""
    return command_line.write_stand_ins(tmp_path_factory.mktemp("plan"))


@pytest.mark.parametrize("runtime", ["native", pytest.param("auto", marks=SLOW)])
def test_the_command_line_runs_it_and_reports_it(
    with_plan: Path, tmp_path: Path, runtime: str
) -> None:
    """From video to keypoints with `--device cuda`, within about a pixel of the CPU's."""
    model = str(with_plan / command_line.MODEL)
    wanted = ["-m", model, "--device", "cuda", "--runtime", runtime]
    done = command_line.infer_demo(with_plan, tmp_path / "gpu", *wanted)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    runs_on = summary["runtime"]
    assert runs_on["provider"] == f"TensorRT {trt.__version__}, fp16 engine (bundle)"
    assert runs_on["device"].startswith("cuda:0 posekit's stand-in, ")
    assert runs_on["notes"] == []
    boxes = summary["boxes"]
    assert boxes["provider"] == f"TensorRT {trt.__version__}, fp32 engine (bundle)"
    assert boxes["notes"] == []
    plain = command_line.infer_demo(with_plan, tmp_path / "cpu", "-m", model, "--device", "cpu")
    assert json.loads(plain.stdout)["persons"] == summary["persons"] > 6
    gpu, cpu = (command_line.read_points(tmp_path / name) for name in ("gpu", "cpu"))
    shift = np.linalg.norm(gpu[..., :2] - cpu[..., :2], axis=-1)[cpu[..., 2] > HIGH_CONFIDENCE]
    assert np.median(shift) < 0.25
    assert np.percentile(shift, 95) < 2


def test_a_plan_of_another_gpu_is_reported_and_not_run(with_plan: Path, tmp_path: Path) -> None:
    """`cuda` is an error: no plan matches, and none can be built. `auto` has a note instead."""
    model = Bundle.open(with_plan / command_line.MODEL)
    (key,) = model.provenance["engines"]
    metadata = {**model.provenance["engines"][key], "gpu": {"name": "other", "capability": [9, 0]}}
    other = dataclasses.replace(model, provenance={**model.provenance, "engines": {key: metadata}})
    path = tmp_path / "other.posekit"
    other.save(path)
    done = command_line.infer_demo(with_plan, tmp_path / "a", "-m", str(path), "--device", "cuda")
    assert done.returncode == 3
    assert "has no CUDA provider" in done.stderr
    assert "has no TensorRT engine for posekit's stand-in yet" in done.stderr
    assert done.stderr.count("\n") == 1
    done = command_line.infer_demo(with_plan, tmp_path / "b", "-m", str(path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["runtime"]
    assert summary["provider"] == "CPUExecutionProvider"
    assert "has no TensorRT engine for posekit's stand-in yet" in summary["notes"][0]
