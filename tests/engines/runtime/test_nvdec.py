"""The GPU's video decoder: real host code on stand-ins of libcuda and of PyNvVideoCodec."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit.video import Coded
from posekit_engines.ops.crop_normalize import BT601, BT709, ColorMatrix
from posekit_engines.runtime.buffers import Layout
from tests.clips import make_clip
from tests.engines.cuda_emulation import nvdec_stand_in, tools
from tests.engines.kernels.test_host import DRIVERS
from tests.engines.runtime import test_runtime
from tests.engines.runtime.test_runtime import CELL, infer, points, run, spec_of, stand_ins, traced

DRIVE = tools.HERE / "drive_nvdec.py"
MODEL = "movenet-lightning"
VERIFIES = pytest.mark.verifies("nvdec.py", "host code driven")
SLOW = pytest.mark.slow
with_plan = test_runtime.with_plan  # the fixture


@functools.cache
def drive(driver: str, trial: str, schedule: str = "") -> tuple[Any, list[str]]:
    """What drive_nvdec.py answers, and the driver's calls."""
    return traced(DRIVE, driver, MODEL, trial, schedule=schedule)


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_persons_are_cut_out_of_the_decoders_bytes(driver: str) -> None:
    """Against numpy on the same bytes, and against the CPU's points of the RGB that FFmpeg makes.

    Float16 rounds a pixel by a sixteenth of a grey level at most. The kernel takes the chroma of
    each 2 x 2 square as it is, FFmpeg blends neighbours: more than the grey level that bounds RGB,
    so that what two of them do bounds the median here and not every point.
    """
    answer, lines = drive(driver, "pictures")
    decode = CELL * max(spec_of(MODEL).map_scale)
    assert answer["told"] == ["NVDEC, PyNvVideoCodec 0.0.1"]
    for off, level in zip(answer["twin"], answer["grey_level_px"], strict=True):
        assert off["sure"] >= 10
        assert off["px"] <= level / 16 + decode
    shifts = [off["px"] for off in answer["cpu"]]
    assert np.median(shifts) <= 2 * np.median(answer["grey_level_px"]) + decode
    assert max(shifts) < 2
    assert len({json.dumps(each) for each in answer["points"]}) == len(answer["points"])
    launches = {line.split()[1] for line in lines if line.startswith("launch crop")}
    assert launches == {"crop_normalize_nv12_f16"}
    assert not any(
        "refused" in line or "pageable" in line for line in lines if "upload" not in line
    )


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_frames_cross_to_the_host_only_when_asked_for(driver: str) -> None:
    """Each picture is copied twice on the GPU's side, luma and chroma, and never uploaded by us."""
    answer, lines = drive(driver, "pictures")
    size = 960 * 540
    begun = lines.index("begin capture")
    before = [line for line in lines[:begun] if line.startswith("download")]
    assert all(int(line.split()[1]) < size for line in before[1:])  # the first tells the size
    copies = [line for line in lines if line.startswith("copy ")]
    assert set(copies) == {f"copy {size}", f"copy {size // 2}"}
    assert copies.count(f"copy {size}") == copies.count(f"copy {size // 2}") >= 8
    rgb = [line for line in lines if line.startswith(f"upload {3 * size}")]
    assert rgb == []
    assert all(answer["same"])
    assert all(answer["times"])


@pytest.mark.tools
@VERIFIES
def test_decoding_ahead_never_changes_a_picture_in_use() -> None:
    """Where work runs as late as it may; and each mistake that a GPU's timing hides is noticed.

    Not through pycuda: it keeps Python's lock in a call, for which a network of the stand-in waits.
    """
    found, _ = drive("cuda-bindings", "in turn", "late")
    assert found.pop("") == 0
    assert len(found) == 4
    assert all(off > 0.5 for off in found.values()), found


@pytest.mark.tools
@VERIFIES
def test_a_decoded_picture_waits_for_the_batch_that_reads_its_memory() -> None:
    found = drive("cuda-bindings", "again", "late")[0]
    assert found["False"] == 0
    assert found["True"] > 0.5


@pytest.mark.tools
@pytest.mark.parametrize("schedule", ["1", pytest.param("2", marks=SLOW)])
def test_answers_do_not_depend_on_when_the_gpu_works(schedule: str) -> None:
    answer, _ = drive("cuda-bindings", "right", schedule)
    assert answer["off"] == 0


@pytest.mark.tools
@VERIFIES
@pytest.mark.parametrize("driver", DRIVERS)
def test_decoded_and_uploaded_pictures_may_come_together(driver: str) -> None:
    answer = drive(driver, "odds")[0]["mixed"]
    assert answer["mixed"] == answer["again"] == 0
    assert 0 < answer["other layout"] < 2  # NV12's own way of chroma, in its own graph
    assert answer["graphs"] >= 2
    assert answer["none"] == [0, 17, 2]
    assert answer["given back"] == 2


@pytest.mark.tools
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_chip_cannot_do_is_said_in_a_line(driver: str) -> None:
    said = drive(driver, "odds")[0]["refusals"]
    name = "DeviceError: NVDEC, PyNvVideoCodec 0.0.1: "
    assert all(each.startswith(name) and "\n" not in each for each in said.values())
    assert "no decoder of mpeg4" in said["codec"]
    assert "up to 4096 x 4096 px, not 8192 x 4320" in said["large"]
    assert "not 32 x 32" in said["small"]
    assert said["damaged"] == f"{name}Decode: no start code"
    assert said["unsupported"] == f"{name}this GPU does not decode av1"


@pytest.mark.parametrize(
    ("coded", "color"),
    [
        (Coded("h264", (2, 2)), BT601),
        (Coded("h264", (2, 2), bt709=True), BT709),
        (Coded("h264", (2, 2), full_range=True), ColorMatrix.of(0.299, 0.114, full_range=True)),
    ],
)
def test_the_kernel_gets_the_videos_own_colours(coded: Coded, color: ColorMatrix) -> None:
    assert Layout.of(coded) == Layout("nv12", color)


@pytest.fixture(scope="module")
def with_chip(with_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-ins, PyNvVideoCodec's among them."""
    folder = tmp_path_factory.mktemp("chip")
    shutil.copytree(with_plan, folder, dirs_exist_ok=True)
    name = nvdec_stand_in.__name__
    module = f"from {name} import *\nfrom {name} import __version__\n"
    (folder / "PyNvVideoCodec.py").write_text(module)
    return folder


@pytest.mark.tools
@VERIFIES
def test_the_command_line_decodes_on_the_gpu_and_says_so(
    with_chip: Path, with_plan: Path, tmp_path: Path
) -> None:
    """The same persons, within what another way of chroma does, as where PyAV decodes."""
    wanted = ["-m", str(with_chip / "planned.posekit"), "--device", "cuda", "--runtime", "native"]
    done = infer(with_chip, tmp_path / "gpu", *wanted)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sources"][0]["decoder"] == "NVDEC, PyNvVideoCodec 0.0.1"
    assert summary["sources"][0]["notes"] == summary["runtime"]["notes"] == []
    plain = infer(with_plan, tmp_path / "cpu", *wanted)
    told = json.loads(plain.stdout)
    assert told["sources"][0]["decoder"] == "PyAV"
    assert told["sources"][0]["notes"] == []
    assert told["persons"] == summary["persons"] > 6
    gpu, cpu = (points(tmp_path / name / "sports2d_demo.jsonl") for name in ("gpu", "cpu"))
    shift = np.linalg.norm(gpu[..., :2] - cpu[..., :2], axis=-1)[cpu[..., 2] > 0.3]
    assert np.median(shift) < 0.5
    assert np.percentile(shift, 95) < 4


@pytest.mark.tools
def test_a_video_that_is_not_for_the_chip_is_decoded_by_pyav(
    with_chip: Path, tmp_path: Path
) -> None:
    """And a package that does not load is told, not fatal."""
    clip = make_clip(tmp_path / "deep.mp4", 3, pix_fmt="yuv420p10le")
    model = str(with_chip / "planned.posekit")
    command = ["-m", "posekit", "infer", str(clip), "-m", model, "--boxes", "full", "--no-video"]
    command += ["--device", "cuda", "--runtime", "native", "--json", "-o"]
    done = run(stand_ins(with_chip), *command, str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    (source,) = json.loads(done.stdout)["sources"]
    assert source["decoder"] == "PyAV"
    assert "decoded on the CPU: its frames are yuv420p10le" in source["notes"][0]
    broken = tmp_path / "broken"
    shutil.copytree(with_chip, broken)
    (broken / "PyNvVideoCodec.py").write_text("raise RuntimeError('no libnvidia-encode\\nSTEPS')")
    done = run(stand_ins(broken), *command, str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sources"][0]["decoder"] == "PyAV"
    assert summary["runtime"]["notes"] == [
        "video is decoded on the CPU: PyNvVideoCodec does not load (no libnvidia-encode STEPS)"
    ]
