"""Choose a CUDA driver and open a device."""

from __future__ import annotations

import importlib.util
from typing import Literal

from posekit.errors import InputError, MissingExtraError
from posekit_engines.cuda.device import Device
from posekit_engines.cuda.driver import Driver

Choice = Literal["auto", "pycuda", "cuda-bindings"]


def open_device(index: int = 0, driver: Choice = "auto") -> Device:
    """GPU number `index`, through pycuda where it is installed, else through cuda-bindings.

    Raises MissingExtraError (no such package), DeviceError (no driver, no such GPU).
    """
    return Device(open_driver(choose_driver(driver), index))


def choose_driver(driver: Choice) -> Choice:
    """The package named by `driver`, or for auto the first that is installed.

    Raises MissingExtraError, InputError.
    """
    packages = {"pycuda": "pycuda", "cuda-bindings": "cuda"}
    wanted: list[Choice] = ["pycuda", "cuda-bindings"] if driver == "auto" else [driver]
    for name in wanted:
        if name not in packages:
            raise InputError(f"driver: {name!r}; wanted auto, pycuda or cuda-bindings")
        if importlib.util.find_spec(packages[name]) is not None:
            return name
    extra = {"pycuda": "pycuda"}.get(driver, "gpu")
    raise MissingExtraError(
        f"{' and '.join(wanted)} not installed: pip install 'posekit[{extra}]' to use the GPU"
    )


def open_driver(name: Choice, index: int) -> Driver:
    """The driver of package `name` on GPU number `index`. Raises DeviceError."""
    if name == "pycuda":
        from posekit_engines.cuda.pycuda_driver import PycudaDriver

        return PycudaDriver(index)
    from posekit_engines.cuda.bindings_driver import BindingsDriver

    return BindingsDriver(index)
