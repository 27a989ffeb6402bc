"""`posekit build`: a bundle's TensorRT engines for this machine's GPU, cached and written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from posekit.atomic import AtomicFiles
from posekit.bundle import Bundle, check_name
from posekit.errors import InputError
from posekit_engines.trt.build import build_and_keep, plan_for
from posekit_engines.trt.cache import with_plans
from posekit_engines.trt.library import Library, gpu_context, library
from posekit_engines.trt.plan import DEFAULT_PROFILES, DETECT, Kind, PlanFile, PlanOptions

KINDS: tuple[Kind, ...] = ("raw", "points")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """kind: raw (posekit's own GPU runtime), points (other runtimes) or both.

    persons: maximum at a time; None: 64 for raw, 32 for points.  flip: with the flip test, which
    doubles the images of raw.  library: see `trt.library.library`.  device: number of the GPU.
    refit, version_compatible: see `trt.builder.BuilderSettings`.  rebuild: even where a matching
    one exists.
    """

    kind: Literal["raw", "points", "both"] = "both"
    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    persons: int | None = None
    flip: bool = True
    library: Library = "auto"
    device: int = 0
    refit: bool = False
    version_compatible: bool = False
    rebuild: bool = False

    def plans(self, source: Bundle) -> list[PlanOptions]:
        """One for each kind; for a person detector its only one. Raises InputError."""
        if source.kind == "detector":
            return [replace(DETECT, refit=self.refit, version_compatible=self.version_compatible)]
        if self.persons is not None and self.persons < 1:
            raise InputError(f"--persons {self.persons}: wanted 1 or more")
        kinds = KINDS if self.kind == "both" else (self.kind,)
        return [
            PlanOptions(
                kind=kind,
                precision=self.precision,
                profile=self._profile(kind),
                flip=self.flip,
                refit=self.refit,
                version_compatible=self.version_compatible,
            )
            for kind in kinds
        ]

    def _profile(self, kind: Kind) -> tuple[int, int, int] | None:
        if self.persons is None:
            return None
        maximum = self.persons * (2 if kind == "raw" and self.flip else 1)
        return 1, min(DEFAULT_PROFILES[kind][1], maximum), maximum


def build(
    source: Bundle, output: Path | None, options: BuildOptions, *, overwrite: bool = False
) -> list[PlanFile]:
    """Plan files of a bundle for this machine's GPU, cached; with `output` in a new bundle too.

    Raises MissingExtraError, DeviceError, ExportError, EngineError, ParityError, InputError,
    SourceError (output exists or cannot be written).
    """
    if output is not None:
        check_name(output)
    with AtomicFiles([output], overwrite=overwrite) as files:
        wanted = options.plans(source)
        trt = library(options.library)
        with gpu_context(trt, options.device) as gpu:
            make = build_and_keep if options.rebuild else plan_for
            plans = [make(source, gpu, trt=trt, options=each) for each in wanted]
        if output is not None:
            with_plans(source, plans).save(files.place(output))
    return plans


def to_dict(plan: PlanFile) -> dict[str, Any]:
    """A plan's entry in a summary: its metadata, its origin and its path."""
    path = None if plan.path is None else str(plan.path)
    found = {"key": plan.key, "origin": plan.origin, "path": path, "notes": list(plan.notes)}
    return {**plan.metadata, **found}
