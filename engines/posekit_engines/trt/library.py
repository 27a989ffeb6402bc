"""TensorRT or TensorRT for RTX: which is installed, its title, the GPUs it supports, its logger."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from posekit.errors import DeviceError, MissingExtraError
from posekit_engines.cuda.open import open_device

Library = Literal["auto", "tensorrt", "rtx"]
RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0))
"""Compute capabilities that TensorRT for RTX builds for by default; the last covers newer ones."""
_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_MAX_MESSAGES = 3


class Gpu(Protocol):
    """A GPU's name and compute capability; `cuda.DeviceInfo` is one."""

    @property
    def name(self) -> str:
        """As the driver reports it."""
        ...

    @property
    def capability(self) -> tuple[int, int]:
        """Major and minor."""
        ...


def library(choice: Library = "auto") -> Any:
    """The module `tensorrt`, or where only that is installed `tensorrt_rtx`.

    Raises MissingExtraError.
    """
    names = _MODULES.values() if choice == "auto" else [_MODULES[choice]]
    problems = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except ImportError as error:
            problems.append(f"{name} cannot be loaded ({error})")
    extra = "rtx" if choice == "rtx" else "tensorrt"
    what = "; ".join(problems) or f"{' and '.join(names)} not installed"
    raise MissingExtraError(
        f"{what}: pip install 'posekit[{extra}]' on the machine with the NVIDIA GPU"
    )


def is_rtx(trt: Any) -> bool:
    """Whether the module is TensorRT for RTX, which builds without a GPU."""
    return str(trt.__name__).endswith("_rtx")


@contextlib.contextmanager
def gpu_context(trt: Any, index: int = 0) -> Iterator[Gpu | None]:
    """GPU number `index`, current in the block; None where TensorRT for RTX runs without one.

    Raises DeviceError, MissingExtraError.
    """
    try:
        device = open_device(index)
    except (DeviceError, MissingExtraError):
        if not is_rtx(trt):
            raise
        yield None
        return
    check_supported(trt, device.info)
    with device.driver.current():
        yield device.info


def check_ready(choice: Library) -> None:
    """Raises MissingExtraError or DeviceError where no engine can be built here; fast."""
    with gpu_context(library(choice)):
        pass


def check_supported(trt: Any, gpu: Gpu | None) -> None:
    """Raises DeviceError where TensorRT for RTX has no kernels for this GPU."""
    if (
        gpu is not None
        and is_rtx(trt)
        and not rtx_supports([*RTX_CAPABILITIES, (7, 5)], gpu.capability)
    ):
        major, minor = gpu.capability
        raise DeviceError(
            f"{gpu.name} (compute capability {major}.{minor}): TensorRT for RTX does not support "
            "it; pip install 'posekit[tensorrt]' instead"
        )


def rtx_supports(built_for: list[tuple[int, int]], capability: tuple[int, int]) -> bool:
    """Whether what TensorRT for RTX built for some compute capabilities runs on this one.

    Code for the last of RTX_CAPABILITIES runs on newer GPUs too.
    """
    newest = RTX_CAPABILITIES[-1]
    return tuple(capability) in built_for or (newest in built_for and capability >= newest)


def library_name(trt: Any) -> str:
    """Title and version for messages and summaries, such as `TensorRT 11.4.0`."""
    return f"TensorRT{' for RTX' * is_rtx(trt)} {trt.__version__}"


def make_logger(trt: Any, messages: list[str]) -> Any:
    """A logger of the module's own class that appends warnings and errors to `messages`."""

    def log(_: Any, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR, trt.ILogger.WARNING):
            messages.append(message)

    def start(self: Any) -> None:
        trt.ILogger.__init__(self)

    return type("Log", (trt.ILogger,), {"__init__": start, "log": log})()


def logged_reason(messages: Sequence[str]) -> str:
    """The first few messages on one line."""
    some = [" ".join(each.split()) for each in messages[:_MAX_MESSAGES]]
    return "; ".join(some) or "TensorRT logged no reason"
