"""What this machine can do, by trying it: being listed or installed is not enough.

Each check is a function of its own that imports what it needs inside, so that a broken package
is a line of the report and not a crash.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from posekit.errors import PosekitError
from posekit.inference import providers

Status = Literal["ok", "absent", "warning", "failed"]

BASE = ("numpy", "typer", "rich", "opencv-python-headless", "av", "safetensors", "scipy")
EXTRAS = {
    "cpu": ("onnxruntime",),
    "gpu": ("onnxruntime-gpu", "cuda-bindings"),
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt-rtx",),
    "pycuda": ("pycuda",),
    "export": ("torch", "onnx"),
    "adapt": ("torch", "onnx", "lightning-fabric", "tensorboard"),
    "parquet": ("pyarrow",),
    "eval": ("pycocotools",),
}
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_FREE_BYTES = 2 * 1024**3  # an hour of 1080p overlay, roughly

# The graph y = x + x over two floats: 65 bytes, so that trying a provider needs no onnx.
TINY_GRAPH = (
    b"\x08\x08\x12\x00:5\n\x0e\n\x01x\n\x01x\x12\x01y\x22\x03Add\x12\x01g"
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\x11"
)


@dataclass(frozen=True)
class Check:
    """One finding.

    status: ok; absent (an optional part that is not there); warning (it works, but);
    failed (posekit cannot run on the CPU like this).  fix: what to do, or "".
    """

    name: str
    status: Status
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether posekit can run on this machine's CPU."""
        return all(check.status != "failed" for check in self.checks)


def examine() -> Report:
    """Try everything that posekit uses; a second or two, most of it the embedded models."""
    return Report(
        (
            _python(),
            _platform(),
            _cpu(),
            *_base_packages(),
            _opencv(),
            *_extras(),
            _onnxruntime(),
            *_providers(),
            _gpu(),
            *_encoders(),
            *_models(),
            _disk("output", Path.cwd()),
            _disk("temporary files", Path(tempfile.gettempdir())),
        )
    )


def _python() -> Check:
    bits = 64 if sys.maxsize > 2**32 else 32
    found = f"{platform.python_implementation()} {platform.python_version()}, {bits} bit"
    if sys.version_info < (3, 11) or bits == 32:
        return Check("Python", "failed", found, "install a 64-bit Python 3.11 or later")
    return Check("Python", "ok", f"{found}, {sys.prefix}")


def _platform() -> Check:
    return Check("platform", "ok", f"{platform.platform()}, {platform.machine()}")


def _cpu() -> Check:
    count = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    granted = providers.cgroup_cpus()
    found = f"{_cpu_name()}; {allowed} of {count} threads usable"
    if granted is not None and granted < allowed:
        found += f"; its cgroup grants {granted:.1f} CPUs, so posekit starts {math.ceil(granted)}"
    return Check("CPU", "ok", found)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _base_packages() -> list[Check]:
    versions = {name: _version(name) for name in BASE}
    if versions["opencv-python-headless"] is None and util.find_spec("cv2") is not None:
        del versions["opencv-python-headless"]  # another build of OpenCV serves as well
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        names = " ".join(missing)
        return [Check("packages", "failed", f"missing: {names}", f"pip install {names}")]
    return [Check("packages", "ok", there)]


def _opencv() -> Check:
    found = {name: version for name in _OPENCV if (version := _version(name))}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    try:
        import cv2
    except ImportError as error:
        fix = "pip install --force-reinstall opencv-python-headless (it needs no display library)"
        return Check("OpenCV", "failed", f"{listed or 'not installed'}: {error}", fix)
    if len(found) > 1:
        fix = f"pip uninstall -y {' '.join(found)}; then pip install opencv-python-headless"
        return Check("OpenCV", "warning", f"{listed}: they overwrite each other's files", fix)
    return Check("OpenCV", "ok", f"{cv2.__version__} ({listed or 'not installed by pip'})")


def _extras() -> list[Check]:
    checks = []
    for extra, names in EXTRAS.items():
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            fix = "" if extra in ("cpu", "gpu") else f"pip install 'posekit[{extra}]'"
            checks.append(Check(f"extra {extra}", "absent", f"no {', '.join(missing)}", fix))
        else:
            listed = ", ".join(f"{name} {version}" for name, version in versions.items())
            checks.append(Check(f"extra {extra}", "ok", listed))
    return checks


def _onnxruntime() -> Check:
    problem = onnxruntime_conflict()
    if problem is not None:
        found, _, fix = problem.partition("; ")
        return Check("ONNX Runtime", "failed", found, fix)
    listed = ", ".join(f"{name} {version}" for name, version in providers.installed().items())
    return Check("ONNX Runtime", "ok", listed or "not installed by pip")


def onnxruntime_conflict() -> str | None:
    """Why ONNX Runtime's installation is unsound (none, or several wheels in one), or None."""
    try:
        providers.check_onnxruntime()
    except PosekitError as error:
        return str(error)
    return None


def _providers() -> list[Check]:
    """A session is opened and run on each provider that ONNX Runtime lists."""
    try:
        import onnxruntime
    except ImportError as error:
        return [Check("provider CPU", "failed", str(error), "pip install 'posekit[cpu]'")]
    if not hasattr(onnxruntime, "InferenceSession"):
        found = "the onnxruntime folder holds no ONNX Runtime: left over from an uninstall"
        return [Check("provider CPU", "failed", found, "pip install --force-reinstall onnxruntime")]
    names = onnxruntime.get_available_providers()
    # Azure's provider sends work to a service; no network of ours can use it.
    wanted = [name for name in names if not name.startswith("Azure")]
    onnxruntime.set_default_logger_severity(4)
    try:
        return [_provider(name) for name in wanted]
    finally:
        onnxruntime.set_default_logger_severity(2)


def _provider(name: str) -> Check:
    short = name.removesuffix("ExecutionProvider")
    problem = try_provider(name)
    if problem is None:
        return Check(f"provider {short}", "ok", "a session ran on it")
    status: Status = "failed" if short == "CPU" else "warning"
    fix = "pip install --force-reinstall onnxruntime"
    if short == "CUDA":
        fix = "needs an NVIDIA driver, CUDA 13 and cuDNN 9; until then use --device cpu"
    elif short != "CPU":
        fix = "its libraries are missing; posekit runs without it"
    return Check(f"provider {short}", status, problem, fix)


def try_provider(name: str) -> str | None:
    """Run y = x + x on one ONNX Runtime provider: None if that went well, or what went wrong.

    The CPU may not stand in: a graph that falls back counts as a failure.
    """
    import numpy as np
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if name != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    failures = (state.Fail, state.InvalidArgument, state.EPFail, state.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(TINY_GRAPH, options, providers=[name])
        (output,) = session.run(None, {"x": np.array([1.5, -2.0], np.float32)})
    except (*failures, state.RuntimeException, RuntimeError, ValueError) as error:
        return f"a session cannot be opened or run ({str(error).splitlines()[0]})"
    return None if output.tolist() == [3.0, -4.0] else f"1.5 + 1.5 gives {output[0]}"


def _gpu() -> Check:
    """Query the NVIDIA driver itself, which needs no package."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Check("NVIDIA GPU", "absent", f"no driver ({library}); posekit runs on the CPU")
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value == 0:
        found = f"a driver, but no GPU responds (CUDA error {code})"
        return Check("NVIDIA GPU", "warning", found, "check whether nvidia-smi lists one")
    cuda.cuDriverGetVersion(ctypes.byref(version))
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, len(name), 0)
    supported = f"{version.value // 1000}.{version.value % 1000 // 10}"
    found = f"{name.value.decode()}, {count.value} in all, driver for CUDA {supported}"
    if "onnxruntime-gpu" not in providers.installed():
        fix = "to use it: pip uninstall -y onnxruntime; pip install 'posekit[gpu]'"
        return Check("NVIDIA GPU", "warning", f"{found}; not used", fix)
    return Check("NVIDIA GPU", "ok", found)


def _encoders() -> list[Check]:
    """Each codec encodes one image."""
    try:
        import av

        from posekit import video
    except ImportError as error:
        fix = "pip install --force-reinstall av opencv-python-headless"
        return [Check("video", "failed", str(error), fix)]
    checks = [Check("video", "ok", f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")]
    for codec in ("h264", "vp9", "av1"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"one{video.suffix_of(codec)}"
            checks.append(_encoder(codec, path))
    return checks


def _encoder(codec: Any, path: Path) -> Check:
    import numpy as np

    from posekit import video

    try:
        options = video.WriteOptions(codec=codec)
        writer = video.VideoWriter(path, size=(64, 64), fps=30, options=options)
        writer.write(np.zeros((64, 64, 3), np.uint8), 0.0)
        writer.close()
    except PosekitError as error:
        problem = str(error).replace(str(path), path.name)
        fix = "choose another --codec, or pass --no-video"
        return Check(f"encoder {codec}", "warning", problem, fix)
    return Check(f"encoder {codec}", "ok", "an image was encoded")


def _models() -> list[Check]:
    """Each embedded bundle is opened (every part's sha256), loaded and compared."""
    try:
        from posekit import bundle
        from posekit.diagnostics import verify
    except ImportError as error:
        return [Check("models", "failed", str(error), "see the packages above")]
    checks = []
    for name, path in bundle.embedded().items():
        try:
            shifts = verify.verify(bundle.Bundle.open(path))
        except PosekitError as error:
            fix = "pip install --force-reinstall posekit"
            checks.append(Check(f"model {name}", "failed", str(error), fix))
        else:
            deviation = f", {max(shifts.values()):.3f} px from its reference" if shifts else ""
            checks.append(Check(f"model {name}", "ok", f"sound{deviation}"))
    missing = Check("models", "failed", "none embedded", "pip install --force-reinstall posekit")
    return checks or [missing]


def _disk(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1024**3:.1f} GiB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check(f"disk, {name}", "warning", f"{folder} is read-only", "pass -o FOLDER")
    if free < _FREE_BYTES:
        fix = "free some space; an hour of 1080p overlay takes about 2 GiB"
        return Check(f"disk, {name}", "warning", found, fix)
    return Check(f"disk, {name}", "ok", found)
