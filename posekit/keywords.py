"""Fields of the makers' options that `posekit.api` also takes as keywords, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from posekit.bundle import Bundle


class ExportKeywords(TypedDict, total=False):
    """Of `ExportOptions`."""

    to: Literal["onnx", "tensorrt", "triton", "bundle"] | None
    outputs: Literal["points", "heatmaps", "raw"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    flip: bool
    affine: bool
    batch: int | None
    calibrate: str | Path | None
    check: str | Path | None
    overwrite: bool


class BuildKeywords(TypedDict, total=False):
    """Of `BuildOptions`."""

    kind: Literal["raw", "points", "both"]
    precision: Literal["fp32", "fp16", "bf16"]
    persons: int | None
    flip: bool
    rebuild: bool


class AdaptKeywords(TypedDict, total=False):
    """Of `AdaptOptions`."""

    recipe: str
    settings: Sequence[str]
    check: str | Path | None
    check_images: str | Path | None
    teacher: str | Path | Bundle | None
    boxes: str
    category: str | None
    max_boxes: int
    limit: int
    budget_s: float | None
    seed: int
    threads: int | None
    work: str | Path | None
    resume: bool
    force: bool
    overwrite: bool


class GpuCheckKeywords(TypedDict, total=False):
    """Of `GpuCheckOptions`."""

    only: Sequence[str]
    persons: Sequence[int]
    seconds: float
