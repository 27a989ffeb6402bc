"""The GPU's video decoder: real host code on stand-ins of libcuda and of PyNvVideoCodec."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.stats.parity import HIGH_CONFIDENCE
from posekit.video import Coded
from posekit_engines.ops.crop_normalize import BT601, BT709, ColorMatrix
from posekit_engines.runtime.buffers import Layout
from tests.engines.cuda_emulation import command_line, nvdec_stand_in, tools
from tests.engines.cuda_emulation.stand_ins import DRIVERS, environment, run_python, run_traced
from tests.support.clips import make_clip

DRIVE = tools.HERE / "drive_nvdec.py"
MODEL = "movenet-lightning"
VERIFIES = pytest.mark.verifies("nvdec.py", "host code driven")
SLOW = pytest.mark.slow
CELL = 1e-3  # tolerance of the decode, cells


@functools.cache
def drive(driver: str, trial: str, schedule: str = "") -> tuple[Any, list[str]]:
    """The result of drive_nvdec.py, and the driver's calls."""
    return run_traced(DRIVE, driver, MODEL, trial, schedule=schedule)


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_persons_are_cropped_from_the_decoders_bytes(driver: str) -> None:
    """Against numpy on the same bytes, and against the CPU's points on FFmpeg's RGB.

    Float16 rounds a pixel by a sixteenth of a gray level at most. The kernel uses the chroma of
    each 2 x 2 square unchanged, FFmpeg interpolates: more than the gray level that bounds RGB, so
    that the effect of two levels bounds the median here and not every point.
    """
    result, lines = drive(driver, "decoded")
    decode = CELL * max(Bundle.open(bundle.find(MODEL)).pose_spec.map_scale)
    assert result["reported"] == ["NVDEC, PyNvVideoCodec 0.0.1"]
    for off, level in zip(result["reference"], result["gray_level_px"], strict=True):
        assert off["compared"] >= 10
        assert off["px"] <= level / 16 + decode
    shifts = [off["px"] for off in result["cpu"]]
    assert np.median(shifts) <= 2 * np.median(result["gray_level_px"]) + decode
    assert max(shifts) < 2
    assert len({json.dumps(each) for each in result["points"]}) == len(result["points"])
    launches = {line.split()[1] for line in lines if line.startswith("launch crop")}
    assert launches == {"crop_normalize_nv12_f16"}
    assert not any(
        "refused" in line or "pageable" in line for line in lines if "upload" not in line
    )


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_frames_are_copied_to_the_host_only_on_request(driver: str) -> None:
    """Each frame is copied in two planes on the GPU, luma and chroma, and never uploaded."""
    result, lines = drive(driver, "decoded")
    size = 960 * 540
    begun = lines.index("begin capture")
    before = [line for line in lines[:begun] if line.startswith("download")]
    assert all(int(line.split()[1]) < size for line in before[1:])  # the first is an `image`
    copies = [line for line in lines if line.startswith("copy ")]
    assert set(copies) == {f"copy {size}", f"copy {size // 2}"}
    assert copies.count(f"copy {size}") == copies.count(f"copy {size // 2}") >= 8
    rgb = [line for line in lines if line.startswith(f"upload {3 * size}")]
    assert rgb == []
    assert all(result["same"])
    assert all(result["times"])


@pytest.mark.tools
@VERIFIES
def test_decoding_ahead_never_changes_a_frame_in_use() -> None:
    """With work as late as possible; and each error that depends on timing is detected.

    Not with pycuda: it holds Python's lock during a call, and the stand-in's network waits for it.
    """
    found, _ = drive("cuda-bindings", "in turn", "late")
    assert found.pop("") == 0
    assert len(found) == 4
    assert all(off > 0.5 for off in found.values()), found


@pytest.mark.tools
@VERIFIES
def test_a_decoded_frame_waits_for_the_batch_that_reads_its_memory() -> None:
    found = drive("cuda-bindings", "again", "late")[0]
    assert found["False"] == 0
    assert found["True"] > 0.5


@pytest.mark.tools
@pytest.mark.parametrize("schedule", ["1", pytest.param("2", marks=SLOW)])
def test_outputs_do_not_depend_on_when_work_runs(schedule: str) -> None:
    result, _ = drive("cuda-bindings", "right", schedule)
    assert result["off"] == 0


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_decoded_and_uploaded_frames_can_be_mixed(driver: str) -> None:
    result = drive(driver, "special")[0]["mixed"]
    assert result["mixed"] == result["again"] == 0
    assert 0 < result["other layout"] < 2  # NV12's own chroma sampling, in its own graph
    assert result["graphs"] >= 2
    assert result["none"] == [0, 17, 2]
    assert result["released"] == 2


@pytest.mark.tools
@pytest.mark.parametrize("driver", DRIVERS)
def test_unsupported_video_is_refused_in_one_line(driver: str) -> None:
    messages = drive(driver, "special")[0]["refusals"]
    name = "DeviceError: NVDEC, PyNvVideoCodec 0.0.1: "
    assert all(each.startswith(name) and "\n" not in each for each in messages.values())
    assert "no decoder for mpeg4" in messages["codec"]
    assert "up to 4096 x 4096 px, not 8192 x 4320" in messages["large"]
    assert "not 32 x 32" in messages["small"]
    assert messages["damaged"] == f"{name}Decode: no start code"
    assert messages["unsupported"] == f"{name}this GPU does not decode av1"


@pytest.mark.parametrize(
    ("coded", "color"),
    [
        (Coded("h264", (2, 2)), BT601),
        (Coded("h264", (2, 2), bt709=True), BT709),
        (Coded("h264", (2, 2), full_range=True), ColorMatrix.of(0.299, 0.114, full_range=True)),
    ],
)
def test_the_kernel_gets_the_videos_own_colors(coded: Coded, color: ColorMatrix) -> None:
    assert Layout.of(coded) == Layout("nv12", color)


@pytest.fixture(scope="module")
def with_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins and bundles with plans."""
    return command_line.write_stand_ins(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def with_nvdec(with_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-ins, PyNvVideoCodec's among them."""
    folder = tmp_path_factory.mktemp("nvdec")
    shutil.copytree(with_plan, folder, dirs_exist_ok=True)
    name = nvdec_stand_in.__name__
    module = f"from {name} import *\nfrom {name} import __version__\n"
    (folder / "PyNvVideoCodec.py").write_text(module)
    return folder


@pytest.mark.tools
@VERIFIES
def test_the_command_line_decodes_on_the_gpu_and_reports_it(
    with_nvdec: Path, with_plan: Path, tmp_path: Path
) -> None:
    """The same persons as with PyAV, up to the different chroma sampling."""
    wanted = ["-m", str(with_nvdec / command_line.MODEL), "--device", "cuda", "--runtime", "native"]
    done = command_line.infer_demo(with_nvdec, tmp_path / "gpu", *wanted)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sources"][0]["decoder"] == "NVDEC, PyNvVideoCodec 0.0.1"
    assert summary["sources"][0]["notes"] == summary["runtime"]["notes"] == []
    plain = command_line.infer_demo(with_plan, tmp_path / "cpu", *wanted)
    other = json.loads(plain.stdout)
    assert other["sources"][0]["decoder"] == "PyAV"
    assert other["sources"][0]["notes"] == []
    assert other["persons"] == summary["persons"] > 6
    gpu, cpu = (command_line.read_points(tmp_path / name) for name in ("gpu", "cpu"))
    shift = np.linalg.norm(gpu[..., :2] - cpu[..., :2], axis=-1)[cpu[..., 2] > HIGH_CONFIDENCE]
    assert np.median(shift) < 0.5
    assert np.percentile(shift, 95) < 4


@pytest.mark.tools
def test_unsupported_video_is_decoded_by_pyav(with_nvdec: Path, tmp_path: Path) -> None:
    """A package that fails to load is a note, not an error."""
    clip = make_clip(tmp_path / "deep.mp4", 3, pix_fmt="yuv420p10le")
    model = str(with_nvdec / command_line.MODEL)
    command = ["-m", "posekit", "infer", str(clip), "-m", model, "--boxes", "full", "--no-video"]
    command += ["--device", "cuda", "--runtime", "native", "--json", "-o"]
    done = run_python(environment(with_nvdec), *command, str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    (source,) = json.loads(done.stdout)["sources"]
    assert source["decoder"] == "PyAV"
    assert "decoded on the CPU: its frames are yuv420p10le" in source["notes"][0]
    broken = tmp_path / "broken"
    shutil.copytree(with_nvdec, broken)
    (broken / "PyNvVideoCodec.py").write_text("raise RuntimeError('no libnvidia-encode\\nSTEPS')")
    done = run_python(environment(broken), *command, str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sources"][0]["decoder"] == "PyAV"
    assert summary["runtime"]["notes"] == [
        "video is decoded on the CPU: PyNvVideoCodec does not load (no libnvidia-encode STEPS)"
    ]
