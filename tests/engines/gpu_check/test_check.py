"""gpu-check without a GPU: its kernel part in emulation, and all of it on the stand-in libcuda.

The times of these runs are not results; that they are labeled so is tested too.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from posekit import api, bundle
from posekit.bundle import Bundle
from posekit.cli import app
from posekit.errors import InputError, MissingExtraError, ParityError
from posekit.inference import providers
from posekit_engines import kernels
from posekit_engines.cuda import nvrtc
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check import baselines, check, sanitizer, targets, timing
from posekit_engines.gpu_check.cases import run as cases_run
from posekit_engines.gpu_check.check import GpuCheckOptions
from posekit_engines.ops import reference
from tests.engines.cuda_emulation import tools
from tests.engines.cuda_emulation.emulated import emulated_device
from tests.engines.cuda_emulation.stand_ins import environment, result_of, run_python
from tests.support import needs
from tests.support.assets import ROOT

DRIVE = tools.HERE / "drive_check.py"
MODEL = "movenet-lightning"
MUTANTS = {
    "decode_flip.cu": ("p.width - 1 - x + p.whole", "p.width - x + p.whole"),
    "crop_normalize.cu": ("(u32)y >= (u32)frame.height", "(u32)y > (u32)frame.height"),
}


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Device]:
    """The emulated device with an error in one kernel's source, by file name."""
    built = functools.cache(lambda file: mutant(file, tmp_path_factory.mktemp("mutant")))
    return lambda file: emulated_device(library=built(file))


def mutant(file: str, folder: Path) -> Path:
    for each in kernels.FOLDER.glob("*.cu*"):
        shutil.copy(each, folder)
    text, (old, new) = (folder / file).read_text(encoding="utf-8"), MUTANTS[file]
    assert old in text
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    options = ("-O1", "-w", "-shared", "-fPIC")
    return tools.build("emulation.so", "emulation.cpp", *options, folder=folder)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make gpu-check open a given device, and find the toolchain's NVRTC."""
    library = str(tools.in_wheels("lib/libnvrtc.so.*", "NVRTC"))
    monkeypatch.setenv("POSEKIT_NVRTC", library)
    nvrtc.compiler.cache_clear()

    def use(device: Device, *, brief: bool = False) -> None:
        monkeypatch.setattr(check, "open_device", lambda index, driver: device)
        monkeypatch.setattr(providers, "lacking_gpu", lambda: "")
        if brief:
            few = cases_run.cases(brief=True)
            monkeypatch.setattr(cases_run, "cases", lambda **_: few)

    yield use
    nvrtc.compiler.cache_clear()


def checked(*only: str) -> dict[str, Any]:
    model = Bundle.open(bundle.embedded()[MODEL])
    return check.check(model, GpuCheckOptions(only=only))


@pytest.mark.tools
@pytest.mark.verifies("gpu-check", "emulated")
def test_the_kernel_part_runs_every_case_and_passes(on_gpu: Any) -> None:
    on_gpu(emulated_device())
    result = checked("kernels")
    part = result["parts"]["kernels"]
    assert part["status"] == "passed", part
    assert part["fine"] == part["cases"] == len(cases_run.cases()) > 80
    assert part["not reached"] == 0
    check.raise_failures(result)
    others = [each for name, each in result["parts"].items() if name != "kernels"]
    assert {each["status"] for each in others} == {"not run"}
    assert result["emulated"]
    assert "targets" not in result


@pytest.mark.tools
@pytest.mark.verifies("gpu-check", "emulated")
@pytest.mark.parametrize("file", MUTANTS)
def test_a_wrong_kernel_fails_and_nothing_is_timed(
    on_gpu: Any, file: str, mutated: Callable[[str], Device]
) -> None:
    on_gpu(mutated(file), brief=True)
    unchecked = checked("times")["parts"]
    assert unchecked["kernels"]["status"] == "failed"
    assert unchecked["times"]["status"] == "not run"
    result = checked()
    part = result["parts"]["kernels"]
    assert part["status"] == "failed"
    kernel = file.removesuffix(".cu")
    assert {each["case"].partition(":")[0] for each in part["failures"]} == {kernel}
    for name, other in result["parts"].items():
        if name != "kernels":
            assert other == {"status": "not run", "why": "the kernels are not correct on this GPU"}
    with pytest.raises(ParityError, match=rf"kernels: \d+ of \d+ cases differ .* {kernel}"):
        check.raise_failures(result)


@pytest.mark.tools
def test_a_mismatch_is_written_and_exits_with_4(
    on_gpu: Any, tmp_path: Path, mutated: Callable[[str], Device]
) -> None:
    on_gpu(mutated("decode_flip.cu"), brief=True)
    path = tmp_path / "check.json"
    run = CliRunner().invoke(app, ["gpu-check", MODEL, "--json", str(path)])
    assert isinstance(run.exception, ParityError)
    assert run.exception.exit_code == 4
    assert json.loads(path.read_text())["parts"]["kernels"]["status"] == "failed"
    assert "EMULATED" in run.stdout
    assert "failed" in run.stdout
    again = CliRunner().invoke(app, ["gpu-check", MODEL, "--json", str(path)])
    assert "--overwrite" in str(again.exception)


@pytest.mark.tools
def test_an_error_of_the_device_ends_the_cases(on_gpu: Any) -> None:
    device = emulated_device()

    def refuse(*_: Any) -> None:
        from posekit.errors import KernelError

        raise KernelError("cuLaunchKernel failed: an illegal address")

    device.driver.launch = refuse  # type: ignore[method-assign]
    on_gpu(device)
    part = checked("kernels")["parts"]["kernels"]
    assert part["status"] == "failed"
    assert part["fine"] == 0
    assert part["not reached"] == part["cases"] - 1
    assert "illegal address" in part["why"]


@pytest.mark.skipif(bool(not providers.lacking_gpu()), reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_it_exits_with_3_at_once_and_names_the_fix() -> None:
    before, start = os.times(), time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "posekit", "gpu-check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    assert run.returncode == 3
    assert "no NVIDIA driver" in run.stderr
    assert "pip install 'posekit[gpu,tensorrt]'" in run.stderr
    spent = after.children_user - before.children_user + after.children_system
    assert min(spent - before.children_system, time.monotonic() - start) < 2


@pytest.mark.tools
def test_an_unknown_part_is_refused(on_gpu: Any) -> None:
    on_gpu(emulated_device())
    with pytest.raises(InputError, match="--only speed: wanted kernels, sanitizer"):
        checked("speed")


# All of it, with the real host code, on the stand-in libcuda.


def drive(*arguments: str) -> dict[str, Any]:
    """The result of drive_check.py."""
    result: dict[str, Any] = result_of(
        run_python(environment(), str(DRIVE), "cuda-bindings", *arguments)
    )
    return result


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """All that needs neither the sanitizer nor the long list of cases."""
    return drive("engines,times,decode,crop,end-to-end")


@pytest.mark.tools
def test_the_table_shows_every_row_and_what_it_is(
    whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "gpu_check", lambda *_, **__: whole)
    monkeypatch.setenv("COLUMNS", "200")
    run = CliRunner().invoke(app, ["gpu-check"], catch_exceptions=False)
    assert run.stdout.startswith("EMULATED on a CPU: no figure below is a GPU's.")
    count = len(cases_run.cases(brief=True))
    for line in (
        f"kernels     passed  {count} of {count} brief cases as in numpy",
        "sanitizer   not run  not requested (--only)",
        "decode_flip     500.00  500.00  500.00  0.4182 GB/s of 0.209 MB",
        "decode: copy + numpy",
        "crop: OpenCV + upload",
        "end to end",
        "of the bare engine's rate",
    ):
        assert re.sub(r" +", " ", line) in re.sub(r" +", " ", run.stdout), run.stdout


@pytest.mark.tools
@pytest.mark.verifies("gpu-check", "host code driven")
def test_every_time_is_measured_and_labeled_as_emulated(whole: dict[str, Any]) -> None:
    result, parts = whole, dict(whole["parts"])
    assert result["emulated"]
    assert "targets" not in result
    assert result["verdict"] == {"code": 0, "message": ""}
    assert parts["kernels"]["brief"]
    assert {parts.pop(name)["status"] for name in ("engines", "kernels")} == {"passed"}
    assert {part["status"] for part in parts.values()} == {"emulated", "not run"}
    cells = 17 * 64 * 48
    decode = parts["times"]["rows"]["decode_flip, 1"]
    assert decode["bytes"] == 2 * cells * 2 + 17 * 12
    assert decode["launches"] == 3
    # the stand-in has 1.5 ms between any two events: a third of that per launch
    assert decode["p50_us"] == decode["p99_us"] == 500
    assert decode["bytes_per_s"] == pytest.approx(decode["bytes"] / 500e-6, rel=1e-3)
    fuse = parts["times"]["rows"]["fuse_views, 1"]
    assert fuse["bytes"] == 8 * cells * 2 + 8 * 17 * 12 + cells * 4
    assert fuse["p50_us"] == 500
    assert "copy + numpy / posekit in a graph" in parts["decode"]["rows"]["1"]["ratios"]
    assert (
        "has no CUDA" in parts["decode"]["not run"] or "not installed" in parts["decode"]["not run"]
    )
    assert parts["crop"]["rows"]["1"]["ratios"]
    row = parts["end-to-end"]["rows"]["1"]
    assert row["latency"]["p99_us"] >= row["latency"]["p50_us"] > 0
    assert row["share"] == pytest.approx(row["frames_per_s"] * 500e-6, abs=1e-3)


@pytest.mark.tools
@pytest.mark.verifies("gpu-check", "host code driven")
def test_the_kernel_part_passes_through_a_real_driver_package() -> None:
    part = drive("kernels")["parts"]["kernels"]
    assert part["status"] == "passed", part


@pytest.mark.tools
@pytest.mark.verifies("gpu-check", "host code driven")
@pytest.mark.parametrize(
    ("part", "plant", "message"),
    [
        ("engines", "another network", "engines: the engine `raw` deviates: mean_px"),
        ("decode", "another decode", "decode: copy + numpy: deviates from the numpy reference"),
    ],
)
def test_planted_errors_exit_with_4(part: str, plant: str, message: str) -> None:
    result = drive(part, plant)
    assert result["parts"][part]["status"] == "failed"
    assert result["verdict"]["code"] == 4
    assert message in result["verdict"]["message"]


# Single parts.


def test_sanitizer_findings_are_distinguished_from_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the program: it prints its arguments, and has NVIDIA's exit status."""
    fake = tmp_path / sanitizer.PROGRAM
    ends = {"memcheck": 0, "racecheck": sanitizer.FOUND, "synccheck": 87, "initcheck": 1}
    cases = "\n".join(f"{name}) exit {code};;" for name, code in ends.items())
    fake.write_text(f'#!/bin/sh\necho "$@"\ncase $2 in\n{cases}\nesac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = sanitizer.sanitize(1, "pycuda")["tools"]
    assert found["memcheck"] == "clean"
    assert found["racecheck"].startswith("findings: --tool racecheck --error-exitcode 86")
    assert "main(1, 'pycuda')" in found["racecheck"]
    assert found["synccheck"].startswith("output deviates")
    assert found["initcheck"].startswith("exit status 1")


def test_a_missing_sanitizer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingExtraError, match="CUDA toolkit"):
        sanitizer.find()


@pytest.mark.tools
def test_the_sanitized_program_returns_the_cases_status(
    monkeypatch: pytest.MonkeyPatch, mutated: Callable[[str], Device]
) -> None:
    monkeypatch.setattr(sanitizer, "open_device", lambda *_: emulated_device())
    assert sanitizer.main(0, "auto") == 0
    wrong = mutated("crop_normalize.cu")
    monkeypatch.setattr(sanitizer, "open_device", lambda *_: wrong)
    assert sanitizer.main(0, "auto") not in (0, sanitizer.FOUND)


def test_torchs_decode_is_the_references() -> None:
    torch = needs.package("torch")
    spec = timing.SPEC
    maps = timing.hard_heatmaps(2, spec)
    one, other = (torch.from_numpy(each) for each in (maps[:2], maps[2:]))
    mirror = torch.tensor(spec.skeleton.mirror)
    found = baselines.torch_decode(torch, one, other, mirror=mirror).numpy()
    wanted = reference.decode_flip(maps[:2], spec, mirrored=maps[2:])
    baselines.check("torch", baselines.in_pixels(found, spec), wanted)
    with pytest.raises(ParityError, match="deviates from the numpy reference"):
        baselines.check("torch", wanted + np.float32(0.25), wanted)


def test_launches_fill_the_pool_and_no_more() -> None:
    effort = timing.Effort(launches=256, pool_bytes=1 << 20)
    assert timing.launches_for(1, effort) == 256
    assert timing.launches_for(1 << 16, effort) == 16
    assert timing.launches_for(1 << 30, effort) == 4


def test_targets_compare_the_worst_row() -> None:
    def row(eager: float, compiled: float) -> dict[str, Any]:
        ratios = {"eager torch": eager, "torch.compile": compiled, "copy + numpy": 300.0}
        return {"ratios": {f"{name} / posekit in a graph": r for name, r in ratios.items()}}

    times = {
        "floor_us": 2.0,
        "copy_bytes_per_s": 1e12,
        "rows": {
            "decode_flip, 8": {"p50_us": 3.0, "bytes": 1e6},
            "crop_normalize, 8": {"p50_us": 9.0, "bytes": 4e6},
        },
    }
    parts = {
        "decode": {"rows": {"1": row(1, 1), "8": row(25, 5), "64": row(40, 3)}},
        "times": times,
        "end-to-end": {
            "architecture": "hrnet-w48",
            "rows": {
                "8": {"share": 0.97, "bare engine": {"p50_us": 100.0}},
                "64": {"not run": "too many"},
            },
        },
    }
    found = [(each["measured"], each["reached"]) for each in targets.targets(parts)]
    speedups = [(25, True), (3, False), (300, True)]
    assert found == [*speedups, (2.25, False), (0.12, False), (0.97, True)]
    nothing: dict[str, Any] = {name: {"status": "not run"} for name in check.PARTS}
    assert {each["reached"] for each in targets.targets(nothing)} == {None}
