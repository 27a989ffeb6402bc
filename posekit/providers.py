"""Which ONNX Runtime is installed, asked of the installer's records without importing it.

Every ONNX Runtime wheel (onnxruntime, onnxruntime-gpu, …) fills the same folder, so two of them
leave a mixture that fails late and obscurely; here it is one sentence before anything is loaded.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata

from posekit.errors import DeviceError, MissingExtraError

DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
)


def installed() -> dict[str, str]:
    """Version of each ONNX Runtime distribution that is installed, by name; normally one."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


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
            f"{listed} are both installed and overwrite each other's files; mend it with: "
            f"pip uninstall -y {names}; then pip install 'posekit[{extra}]'"
        )
    if not found and importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "ONNX Runtime is not installed; pip install 'posekit[cpu]', or 'posekit[gpu]' on a "
            "machine with an NVIDIA GPU (never both)"
        )
