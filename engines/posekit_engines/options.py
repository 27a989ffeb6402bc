"""What to export, and how far it may deviate: one frozen record for every target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posekit.bundle import SUFFIX
from posekit.errors import InputError
from posekit.inputs.parsing import number
from posekit.types import Decode

Outputs = Literal["points", "heatmaps", "raw"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["onnx", "tensorrt", "triton", "bundle"]


@dataclass(frozen=True)
class Budget:
    """The largest deviation from the source network that is written without --force.

    mean_px, p99_px: of the source's high-confidence keypoints, crop px; None: no limit.
    maps: largest difference of a heatmap, as a share of the source's highest peak; compared where
        the source has no high-confidence keypoint.
    """

    mean_px: float
    p99_px: float | None
    maps: float


_SUFFIXES: dict[str, Target] = {".onnx": "onnx", ".plan": "tensorrt", SUFFIX: "bundle"}
BUDGETS: dict[Precision, Budget] = {
    "fp32": Budget(0.05, None, 1e-4),
    "fp16": Budget(0.1, 0.3, 5e-3),
    "bf16": Budget(0.5, None, 5e-2),
    "int8": Budget(0.5, None, 5e-2),
}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """to: what to write; None: by the output's suffix.
    outputs: points (crops to keypoints), heatmaps (crops to merged maps) or raw (the network
    alone on a normalized image).  flip: with the flip test inside; raw has none.
    decode: None for the model's own.  affine: also take crop-to-frame warps, give frame px.
    batch: a fixed N, None for any.  calibrate: folder, image or video for int8.
    check: folder, image or video to measure parity on.  budget_px: mean, None: by precision.
    force: write the export even if it is over its budget; the report says so.
    Of TensorRT plans alone: library (auto: tensorrt, else tensorrt_rtx), profile (minimum, usual
    and maximum N; None: 1, 8, 32, of raw 1, 16, 128), refit, version_compatible.
    """

    to: Target | None = None
    outputs: Outputs = "points"
    flip: bool = True
    decode: Decode | None = None
    affine: bool = False
    batch: int | None = None
    precision: Precision = "fp32"
    calibrate: str | Path | None = None
    check: str | Path | None = None
    budget_px: float | None = None
    force: bool = False
    overwrite: bool = False
    library: Literal["auto", "tensorrt", "rtx"] = "auto"
    profile: tuple[int, int, int] | None = None
    refit: bool = False
    version_compatible: bool = False

    @property
    def merges(self) -> bool:
        """Whether the flip test is inside."""
        return self.flip and self.outputs != "raw"

    @property
    def budget(self) -> Budget:
        """That of the precision, with `budget_px` for the mean where given."""
        default = BUDGETS[self.precision]
        mean_px = default.mean_px if self.budget_px is None else self.budget_px
        return Budget(mean_px, default.p99_px, default.maps)

    def target(self, output: Path) -> Target:
        """`to`, or by the output's suffix. Raises InputError where the two do not match."""
        suffix = output.suffix.lower()
        target = self.to or _SUFFIXES.get(suffix)
        if target is None:
            raise InputError(f"{output}: wanted a name in {', '.join(_SUFFIXES)}, or --to triton")
        if target != "triton" and _SUFFIXES.get(suffix) != target:
            wanted = next(each for each, kind in _SUFFIXES.items() if kind == target)
            raise InputError(f"{output}: --to {target} writes a file named {wanted}")
        return target

    def check_for(self, target: Target) -> None:
        """Raises InputError where the options contradict one another or the target."""
        if self.budget_px is not None:
            number(self.budget_px, name="--budget", low=0, high=1e4)
        if self.batch is not None and self.batch < 1:
            raise InputError(f"--batch {self.batch}: wanted 1 or more")
        if self.affine and self.outputs != "points":
            raise InputError(
                f"--affine moves points to the frame; --outputs {self.outputs} has none"
            )
        if self.precision == "bf16" and target != "tensorrt":
            raise InputError(
                "--precision bf16: ONNX Runtime has no bf16 convolution on the CPU, so the file "
                "could not be run or checked; use fp16, or --to tensorrt"
            )
        if self.calibrate is not None and self.precision != "int8":
            raise InputError(f"--calibrate is for --precision int8, not {self.precision}")
        if self.precision == "int8" and self.calibrate is None:
            raise InputError(
                "--precision int8: calibrated and checked on the same few crops, its parity would "
                "be optimistic; give your own images with --calibrate FOLDER|VIDEO"
            )
        if target == "bundle" and (self.outputs != "points" or self.affine or self.batch):
            raise InputError(
                "--to bundle: a bundle holds its own graphs; --outputs, --affine and --batch "
                "are for stand-alone files (--to onnx)"
            )
        self._check_plan(target)

    def _check_plan(self, target: Target) -> None:
        """Raises InputError where options of plans are given for others, or are impossible."""
        of_plans = {"--profile": self.profile, "--refit": self.refit}
        of_plans["--version-compatible"] = self.version_compatible
        if target != "tensorrt":
            if given := [name for name, value in of_plans.items() if value]:
                raise InputError(f"{given[0]} is for --to tensorrt, not {target}")
            return
        if self.precision == "int8":
            raise InputError(
                "--precision int8: posekit's int8 has zero points, which TensorRT does not "
                "support; use fp16, which tensor cores run as well"
            )
        if self.precision == "bf16" and self.affine:
            raise InputError(
                "--precision bf16 --affine: not emulated, so not checked; leave --affine out"
            )
        if self.profile is not None and self.batch is not None:
            raise InputError("--profile and --batch: a fixed batch has no range; give one of them")
        minimum, usual, maximum = self.profile or (1, 1, 1)
        if not 1 <= minimum <= usual <= maximum:
            raise InputError(f"--profile {self.profile}: wanted 1 <= minimum <= usual <= maximum")
