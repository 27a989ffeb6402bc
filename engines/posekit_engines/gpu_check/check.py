"""Checks and times of `posekit gpu-check`: are all results correct on this GPU, and how fast.

First the checks: kernels against their numpy reference, NVIDIA's sanitizer, both TensorRT engines.
Then, only where the kernels are correct, the times. A part that cannot run here states why.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import DeviceError, InputError, MissingExtraError, ParityError, PosekitError
from posekit.inference.providers import versions
from posekit.version import __version__
from posekit_engines.cuda import nvrtc
from posekit_engines.cuda.device import Device
from posekit_engines.cuda.open import Choice, open_device
from posekit_engines.gpu_check import plan_parity, timing
from posekit_engines.gpu_check.cases import run
from posekit_engines.gpu_check.plans import PlanSource
from posekit_engines.gpu_check.targets import targets
from posekit_engines.gpu_check.timing import Effort
from posekit_engines.kernels import FUNCTIONS

Status = Literal["passed", "failed", "measured", "emulated", "not run"]

SCHEMA = 1
STAND_INS = ("posekit's stand-in", "this CPU")
"""Device names of the tests' stand-ins for a GPU: their times are not results."""
PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "cuda-bindings",
    "pycuda",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "onnx",
    "onnxruntime-gpu",
)
_QUERY = ("--format=csv,noheader", "--query-gpu=driver_version")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class GpuCheckOptions:
    """driver: of `open_device`.  only: names from PARTS; all if empty.  persons: batch sizes.

    seconds: for each figure.  index: of the GPU.  limits: of memory and launches.
    Only checked kernels are timed: without "kernels" in `only` their brief cases run.
    Raises InputError.
    """

    driver: Choice = "auto"
    only: Sequence[str] = ()
    persons: Sequence[int] = Effort().persons
    seconds: float = Effort().seconds
    index: int = 0
    limits: Effort = Effort()

    def __post_init__(self) -> None:
        if not self.persons or min(self.persons) < 1 or not 0 <= self.seconds < np.inf:
            raise InputError(
                f"--persons {list(self.persons)}, --seconds {self.seconds}: wanted above 0"
            )

    @property
    def effort(self) -> Effort:
        """What is measured."""
        return replace(self.limits, persons=tuple(self.persons), seconds=self.seconds)


@dataclass(frozen=True)
class CheckJob:
    """The input of every part.  plans: TensorRT and its plans; None: as installed."""

    device: Device
    bundle: Bundle
    options: GpuCheckOptions
    plans: PlanSource | None = None

    def tensorrt(self) -> PlanSource:
        """TensorRT and its plans. Raises MissingExtraError."""
        return self.plans or PlanSource.installed()


Figures = dict[str, Any]
RunPart = Callable[[CheckJob], Figures]


def check(
    bundle: Bundle,
    options: GpuCheckOptions,
    *,
    plans: PlanSource | None = None,
    on_part: Callable[[str], object] = str,
) -> dict[str, Any]:
    """Check and time everything on a GPU; plain data, for JSON; see `raise_failures`.

    on_part: is called with a line of text before each part.
    Raises MissingExtraError, DeviceError (no GPU), InputError.
    """
    if unknown := set(options.only) - set(PARTS):
        raise InputError(f"--only {', '.join(sorted(unknown))}: wanted {', '.join(PARTS)}")
    job = CheckJob(open_device(options.index, options.driver), bundle, options, plans)
    emulated = job.device.info.name in STAND_INS
    parts: dict[str, Figures] = {}
    for name, run_part in PARTS.items():
        on_part(f"{name}: {(run_part.__doc__ or '').splitlines()[0]}")
        parts[name] = _figures(name, run_part, job, before=parts)
        if emulated and parts[name]["status"] == "measured":
            parts[name]["status"] = "emulated"
    header = {"schema": SCHEMA, "emulated": emulated, **system(job.device), "model": bundle.name}
    compared = {} if emulated else {"targets": targets(parts)}
    return {**header, "parts": parts, **compared}


def failures(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each part that failed."""
    parts = result["parts"].items()
    return [f"{name}: {part['why']}" for name, part in parts if part["status"] == "failed"]


def raise_failures(result: Mapping[str, Any]) -> None:
    """Raises ParityError where a part failed."""
    if found := failures(result):
        engines = result["parts"].get("engines", {})
        deviation_px = plan_parity.largest_mean_px(engines) if "raw" in engines else np.inf
        raise ParityError("; ".join(found), deviation_px)


def save(result: Mapping[str, Any], path: Path) -> None:
    """Write the JSON, whole or not at all. Raises SourceError."""
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


def _figures(
    name: str, run_part: RunPart, job: CheckJob, *, before: Mapping[str, Figures]
) -> Figures:
    """A part's figures with status and reason; an error becomes a status too."""
    only = job.options.only
    if only and name not in (*only, "kernels"):
        return {"status": "not run", "why": "not requested (--only)"}
    kernels = before.get("kernels", {})
    if kernels.get("status") == "failed":
        return {"status": "not run", "why": "the kernels are not correct on this GPU"}
    try:
        return run_part(job)
    except (MissingExtraError, DeviceError, InputError) as error:
        return {"status": "failed" if name == "kernels" else "not run", "why": str(error)}
    except PosekitError as error:
        return {"status": "failed", "why": str(error)}


def _kernels(job: CheckJob) -> Figures:
    """the kernels against their numpy reference on all test cases (brief ones if not requested)"""
    brief = bool(job.options.only) and "kernels" not in job.options.only
    chosen = run.cases(brief=brief)
    found = run.examine(job.device, chosen)
    bad = [each for each in found if not each.passed]
    worst = {
        kernel: max(
            (each.deviation for each in found if each.case.kernel == kernel), default=np.nan
        )
        for kernel in FUNCTIONS
    }
    figures: Figures = {
        "cases": len(chosen),
        "brief": brief,
        "fine": len(found) - len(bad),
        "not reached": len(chosen) - len(found),
        "worst": {name: str(round(deviation, 6)) for name, deviation in worst.items()},
        "failures": [each.to_dict() for each in bad],
    }
    if not bad:
        return {"status": "passed", "why": "", **figures}
    first = bad[0]
    reason = first.error or f"off by {first.deviation:.3g} {first.case.unit}"
    why = f"{len(bad)} of {len(chosen)} cases differ from numpy, first {first.case}: {reason}"
    return {"status": "failed", "why": why, **figures}


def _sanitizer(job: CheckJob) -> Figures:
    """compute-sanitizer on the kernels: memory, races, barriers"""
    from posekit_engines.gpu_check import sanitizer

    found = sanitizer.sanitize(job.options.index, job.options.driver)
    bad = {tool: output for tool, output in found["tools"].items() if output != "clean"}
    if not bad:
        return {"status": "passed", "why": "", **found}
    tool, output = next(iter(bad.items()))
    return {"status": "failed", "why": f"{tool}: {output.splitlines()[0]}", **found}


def _engines(job: CheckJob) -> Figures:
    """both TensorRT engines against the source network on its check crops (built if needed)"""
    found = plan_parity.parity(job.device, job.bundle, job.tensorrt())
    why = plan_parity.over_budget(found)
    return {"status": "failed" if why else "passed", "why": why, **found}


def _times(job: CheckJob) -> Figures:
    """each kernel by CUDA events, and its bandwidth"""
    found = timing.kernels(job.device, job.options.effort)
    return {"status": "measured", "why": "", **found, "copy_bytes_per_s": _copy_rate(job)}


def _copy_rate(job: CheckJob) -> float | str:
    """This GPU's memory bandwidth, measured by a copy within it in torch."""
    from posekit_engines.gpu_check import baselines

    try:
        return baselines.copy_rate(job.device, job.options.effort)
    except MissingExtraError as error:
        return f"not run: {error}"


def _decode(job: CheckJob) -> Figures:
    """decode against eager torch, torch.compile, and copy to the host + numpy"""
    from posekit_engines.gpu_check import baselines

    found = baselines.decode(job.device, job.options.effort)
    return {"status": "measured", "why": "", **found}


def _crop(job: CheckJob) -> Figures:
    """frame upload + crop against OpenCV's crops + their upload"""
    from posekit_engines.gpu_check import baselines

    return {"status": "measured", "why": "", **baselines.crop(job.device, job.options.effort)}


def _end_to_end(job: CheckJob) -> Figures:
    """frame in, points out: p50 and p99 for each number of persons, and the bare engine"""
    from posekit_engines.gpu_check import end_to_end

    found = end_to_end.end_to_end(job.device, job.bundle, job.tensorrt(), effort=job.options.effort)
    return {"status": "measured", "why": "", **found}


PARTS: Mapping[str, RunPart] = {
    "kernels": _kernels,
    "sanitizer": _sanitizer,
    "engines": _engines,
    "times": _times,
    "decode": _decode,
    "crop": _crop,
    "end-to-end": _end_to_end,
}


def system(device: Device) -> dict[str, Any]:
    """GPU, driver, versions, and the commit or the version of posekit."""
    info = device.info
    return {
        "gpu": {
            "name": info.name,
            "capability": list(info.capability),
            "memory_bytes": info.memory_bytes,
            "cuda": ".".join(map(str, info.driver)),
            "driver": _first_line(["nvidia-smi", f"--id={info.index}", *_QUERY]) or "unknown",
        },
        "through": device.driver.name,
        "nvrtc": ".".join(map(str, nvrtc.compiler().version)),
        "versions": {
            "posekit": __version__,
            "python": platform.python_version(),
            **versions(PACKAGES),
        },
        "commit": _first_line(["git", "-C", str(_FOLDER), "describe", "--always", "--dirty"])
        if (_FOLDER.parents[2] / ".git").exists()
        else f"posekit {__version__}",
        "platform": platform.platform(),
    }


def _first_line(command: Sequence[str]) -> str:
    """The first line of a program's output, or "" where it is absent or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip() if done.returncode == 0 else ""
