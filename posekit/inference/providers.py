"""Which ONNX Runtime is installed, what it may run on, and what it really runs on.

The first is taken from the installer's records, without importing it: every ONNX Runtime wheel
(onnxruntime, onnxruntime-gpu, …) fills the same folder, so two of them leave a mixture that fails
late and obscurely; here it is one sentence before anything is loaded. The last is compared with
what was requested: ONNX Runtime falls back to the CPU silently.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, get_args

from posekit.errors import DeviceError, InputError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
)

_MOST_THREADS = 64  # whatever the machine; more than 4 a core only wait for each other


def versions(names: Iterable[str]) -> dict[str, str]:
    """Version of each of these distributions that is installed, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def installed() -> dict[str, str]:
    """Version of each ONNX Runtime distribution that is installed, by name; normally one."""
    return versions(DISTRIBUTIONS)


def cgroup_cpus(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """CPUs that this process's control groups grant at a time, or None where they set no limit.

    Affinity does not show this limit: a container's threads beyond it are only put to sleep. The
    groups around the process's own limit it too, so the least counts. Versions 1 and 2 (Linux).
    """
    granted = [cpus for folder in _cgroups(root, own) if (cpus := _granted(folder)) is not None]
    return min(granted, default=None)


def _cgroups(root: Path, own: Path) -> list[Path]:
    """Folders of the groups that hold this process; inside a container often the roots alone."""
    found = [root, root / "cpu"]
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = (root / controllers, root / "cpu") if controllers else (root, root / "unified")
        group = PurePosixPath("/", path)
        places = [place.relative_to("/") for place in (group, *group.parents)]
        found += [mount / place for mount in mounts for place in places]
    return found


def _granted(folder: Path) -> float | None:
    """CPUs of one group, by its own files."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    limited = quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if limited else None


def check_onnxruntime() -> None:
    """Make sure that exactly one ONNX Runtime is installed; takes about a millisecond.

    Raises MissingExtraError where there is none, DeviceError where there are several.
    """
    found = installed()
    if len(found) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in found.items())
        names = " ".join(found)
        extra = "gpu" if "onnxruntime-gpu" in found else "cpu"
        raise DeviceError(
            f"{listed} are both installed and overwrite each other's files; fix it with: "
            f"pip uninstall -y {names}; then pip install 'posekit[{extra}]'"
        )
    if not found and importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "ONNX Runtime is not installed; pip install 'posekit[cpu]', or 'posekit[gpu]' on a "
            "machine with an NVIDIA GPU (never both)"
        )


Choice = Literal["auto", "native", "ort", "ort-tensorrt"]
"""What runs a model on a GPU: posekit's own path, ONNX Runtime with CUDA, or with TensorRT."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class Device:
    """What `--device` says.  kind: auto, cpu or cuda.  index: of the GPU."""

    kind: str
    index: int = 0

    @classmethod
    def of(cls, text: str) -> Device:
        """Raises InputError."""
        kind, colon, index = text.partition(":")
        numbered = kind == "cuda" and index.isdigit()
        if kind not in ("auto", "cpu", "cuda") or (colon and not numbered):
            raise InputError(f"--device {text}: wanted auto, cpu, cuda or cuda:N")
        return cls(kind, int(index or 0))

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.index else self.kind


def lacking_gpu() -> str:
    """Why no GPU can be had here, or "" where an NVIDIA driver responds; takes milliseconds."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver on this machine ({library})"
    count = ctypes.c_int(0)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    return f"an NVIDIA driver, but no GPU responds (CUDA error {code})" if not count.value else ""


def check_device(device: str, runtime: Choice = "auto") -> Device:
    """The requested device, where it can be had at all: before anything heavy is loaded.

    Raises InputError, DeviceError (a GPU is requested by name, and there is none).
    """
    requested = Device.of(device)
    if runtime not in get_args(Choice):
        raise InputError(f"--runtime {runtime}: wanted {', '.join(get_args(Choice))}")
    if requested.kind == "cpu" and runtime in ("native", "ort-tensorrt"):
        raise InputError(f"--runtime {runtime} runs on a GPU; leave out --device cpu")
    named = requested.kind == "cuda" or runtime in ("native", "ort-tensorrt")
    if named and (why := lacking_gpu()):
        option = f"--device {device}" if requested.kind == "cuda" else f"--runtime {runtime}"
        raise DeviceError(
            f"{option}: {why}; install NVIDIA's driver, then pip install 'posekit[gpu]' in place "
            "of posekit[cpu]; or use --device cpu"
        )
    return requested


def check_threads(threads: int | None) -> None:
    """Whether so many CPU threads are within reason; None for all. Raises InputError."""
    cores = os.cpu_count() or 1
    most = max(_MOST_THREADS, 4 * cores)
    if threads is not None and not 1 <= threads <= most:
        raise InputError(
            f"--threads {threads}: wanted 1 to {most}; this machine has {cores} CPU cores"
        )


def wanted(device: Device, available: Sequence[str], *, tensorrt: bool = False) -> list[Any]:
    """What to ask ONNX Runtime for, the first choice first. Raises DeviceError."""
    first = TENSORRT if tensorrt else CUDA
    if device.kind == "cpu" or (device.kind == "auto" and first not in available):
        return [CPU]
    if first not in available:
        raise DeviceError(
            f"--device {device}: this ONNX Runtime has no {_short(first)} provider, only "
            f"{', '.join(available)}; pip uninstall onnxruntime, then pip install 'posekit[gpu]', "
            "or use --device cpu"
        )
    index = str(device.index)
    # An exhaustive search would be made again for every new number of persons.
    cuda = (CUDA, {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC"})
    return [(TENSORRT, {"device_id": index}), cuda, CPU] if tensorrt else [cuda, CPU]


@contextlib.contextmanager
def loading(requested: Sequence[Any]) -> Iterator[None]:
    """Around opening a session: CUDA's libraries are found in wheels too, and nothing is printed.

    ONNX Runtime reports a provider that does not load to both standard streams; `check_used` says
    it in a sentence.
    """
    import onnxruntime

    if len(requested) == 1:  # the CPU's
        yield
        return
    onnxruntime.set_default_logger_severity(4)
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def check_used(device: Device, requested: Sequence[Any], used: str, *, reason: str = "") -> str:
    """Compare what ONNX Runtime really uses with what was requested: it falls back silently.

    reason: where it gave one. Returns the note where `auto` fell back, else
    "". Raises DeviceError.
    """
    first = requested[0] if isinstance(requested[0], str) else requested[0][0]
    if used == first:
        return ""
    also = ", cuDNN 9 or TensorRT" if first == TENSORRT else " or cuDNN 9"
    why = (
        f"ONNX Runtime has the {_short(first)} provider but cannot start it here "
        f"({reason or 'driver, CUDA' + also + ' missing'})"
    )
    if device.kind == "auto":
        return f"{why}: {_short(used)} in its place"
    raise DeviceError(f"--device {device}: {why}; run `posekit doctor`, or use --device cpu")


def run_bound(session: Any, feeds: Mapping[str, NDArray[Any]], *, device: Device) -> list[Any]:
    """The session's outputs for its inputs: bound on the device, so that each is copied once.

    Raises DeviceError: the device fails while it runs.
    """
    import numpy as np
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    where = (device.kind, device.index)
    binding = session.io_binding()
    values = {  # kept until it has run
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *where)
        for name, array in feeds.items()
    }
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, *where)
    try:
        session.run_with_iobinding(binding)
        outputs: list[Any] = binding.copy_outputs_to_cpu()
    except (state.EPFail, state.RuntimeException, state.Fail, RuntimeError) as error:
        raise DeviceError(f"--device {device}: ONNX Runtime failed on it: {error}") from error
    return outputs


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
