"""TensorRT or TensorRT for RTX: which is installed, its name, version, GPU and logger."""

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
"""What a plan of TensorRT for RTX serves by default; newer ones than the last too."""
_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}


class Gpu(Protocol):
    """A GPU's name and compute capability; `cuda.DeviceInfo` is one."""

    @property
    def name(self) -> str:
        """As the driver tells it."""
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
    """GPU number `index`, current in the block; None where TensorRT for RTX has none to use.

    Raises DeviceError, MissingExtraError.
    """
    try:
        device = open_device(index)
    except (DeviceError, MissingExtraError):
        if not is_rtx(trt):
            raise
        yield None
        return
    check_served(trt, device.info)
    with device.driver.current():
        yield device.info


def check_ready(choice: Library) -> None:
    """Raises MissingExtraError or DeviceError where no plan can be built here; quick."""
    with gpu_context(library(choice)):
        pass


def check_served(trt: Any, gpu: Gpu | None) -> None:
    """Raises DeviceError where TensorRT for RTX has no code for this GPU."""
    if (
        gpu is not None
        and is_rtx(trt)
        and not rtx_serves([*RTX_CAPABILITIES, (7, 5)], gpu.capability)
    ):
        major, minor = gpu.capability
        raise DeviceError(
            f"{gpu.name} (compute capability {major}.{minor}): TensorRT for RTX does not serve it; "
            "pip install 'posekit[tensorrt]' in its place"
        )


def rtx_serves(made: list[tuple[int, int]], here: tuple[int, int]) -> bool:
    """Whether TensorRT for RTX serves a GPU of compute capability `here`; `made`: what it was
    built for. From the last one on, newer GPUs are served too.
    """
    return tuple(here) in made or (RTX_CAPABILITIES[-1] in made and here >= RTX_CAPABILITIES[-1])


def library_name(trt: Any) -> str:
    """What runs a plan, with its version."""
    title = "TensorRT for RTX" if "rtx" in trt.__name__ else "TensorRT"
    return f"{title} {trt.__version__}"


_MOST_TOLD = 3


def title(trt: Any) -> str:
    """TensorRT with its version, as people say it."""
    name = "TensorRT for RTX" if trt.__name__.endswith("_rtx") else "TensorRT"
    return f"{name} {trt.__version__}"


def make_logger(trt: Any, said: list[str]) -> Any:
    """A logger of the module's own class that keeps warnings and errors in `said`, prints none."""

    def log(_: Any, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR, trt.ILogger.WARNING):
            said.append(message)

    def start(self: Any) -> None:
        trt.ILogger.__init__(self)

    return type("Log", (trt.ILogger,), {"__init__": start, "log": log})()


def logged_reason(messages: Sequence[str]) -> str:
    """The first few messages in one line."""
    some = [" ".join(each.split()) for each in messages[:_MOST_TOLD]]
    return "; ".join(some) or "it does not say why"
