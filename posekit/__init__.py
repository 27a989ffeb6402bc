"""posekit: adapt a 2D human-pose model to your camera, export it, run it on video.

estimator = posekit.load("movenet-thunder")
poses = estimator("photo.jpg")                 # or an array, uint8 RGB (H, W, 3)
for frame, poses in estimator.stream("video.mp4"):
    print(frame.time_s, poses.points.shape)    # (N, K, 2), frame pixels
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from posekit.version import __version__ as __version__

if TYPE_CHECKING:
    from posekit.api import (
        AdaptHooks,
        AdaptOptions,
        BuildOptions,
        ExportOptions,
        GpuCheckOptions,
        adapt,
        load,
    )
    from posekit.bundle import Bundle
    from posekit.errors import PosekitError
    from posekit.estimate import EstimateOptions, Estimator
    from posekit.geometry import Warp
    from posekit.types import Boxes, DrawStyle, Frame, ModelSpec, Person, Poses, Skeleton
    from posekit.video import ReadOptions

__all__ = [
    "AdaptHooks",
    "AdaptOptions",
    "Boxes",
    "BuildOptions",
    "Bundle",
    "DrawStyle",
    "EstimateOptions",
    "Estimator",
    "ExportOptions",
    "Frame",
    "GpuCheckOptions",
    "ModelSpec",
    "Person",
    "PosekitError",
    "Poses",
    "ReadOptions",
    "Skeleton",
    "Warp",
    "adapt",
    "load",
]

_HOME = {
    "AdaptHooks": "api",
    "AdaptOptions": "api",
    "Boxes": "types",
    "BuildOptions": "api",
    "Bundle": "bundle",
    "DrawStyle": "types",
    "EstimateOptions": "estimate",
    "Estimator": "estimate",
    "ExportOptions": "api",
    "Frame": "types",
    "GpuCheckOptions": "api",
    "ModelSpec": "types",
    "Person": "types",
    "Poses": "types",
    "PosekitError": "errors",
    "ReadOptions": "video",
    "Skeleton": "types",
    "Warp": "geometry",
    "adapt": "api",
    "load": "api",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: `import posekit` stays instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'posekit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posekit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
