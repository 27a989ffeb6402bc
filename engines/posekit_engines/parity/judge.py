"""Measure an export against its source, refuse it over budget, write page and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime
from torch import nn

from posekit.bundle import Bundle
from posekit.types import ModelSpec
from posekit.version import __version__
from posekit_engines.options import ExportOptions
from posekit_engines.parity import metrics
from posekit_engines.parity import page as parity_page
from posekit_engines.parity.answers import ExportOutputs, SourceOutputs, source_outputs
from posekit_engines.parity.budget import Cost, crops_within_time, raise_over_budget, violation
from posekit_engines.parity.crops import LEAST, CheckCrops, load_check_crops
from posekit_engines.parity.exported import ExportedModel
from posekit_engines.parity.page import rows

Report = dict[str, Any]
Ask = Callable[[CheckCrops], ExportOutputs]
REPORT, PAGE = ".parity.json", ".parity.html"
METADATA = ".json"  # of a TensorRT plan


@dataclass(frozen=True, eq=False)
class ParityJob:
    """A model on its way out: its source, the spec with the options in it, and the network."""

    source: Bundle
    spec: ModelSpec
    net: nn.Module
    options: ExportOptions


def measure_parity(
    job: ParityJob, path: Path, told: Mapping[str, Any], *, page: Path, ask: Ask | None = None
) -> Report:
    """Measure the stand-alone file at `path`, write the page of pictures, return the report.

    ask: answers in its place.  Raises ParityError where it strays too far and nobody insists.
    """
    start = perf_counter()
    checks, source, given = _answers(job, path, ask)
    parity, found = metrics.report(given, source, checks, spec=job.spec)
    found["within_budget"] = not violation(found, job.options.budget)
    found["forced"] = job.options.force and not found["within_budget"]
    if not job.options.force:
        raise_over_budget(found, job.options.budget, str(job.source.name))
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    said = {
        **report_header(job),
        **parity.to_dict(),
        **found,
        "bytes": size,
        **told,
        "parity_s": round(perf_counter() - start, 1),
    }
    said["table"] = rows(said)
    page.write_text(parity_page.page(said, given, source, checks=checks), "utf-8")
    return said


def _answers(
    job: ParityJob, path: Path, ask: Ask | None
) -> tuple[CheckCrops, SourceOutputs, ExportOutputs]:
    """As many check crops as time allows, and what the source and the file answer to them.

    The source answers the least that there must be; how long that took decides on the others. An
    `ask` is taken to be as slow as the source.
    """
    start = perf_counter()
    checks, flip = load_check_crops(job.options.check, job.spec), job.options.merges
    sure = checks.first(LEAST)
    source = source_outputs(job.net, sure.crops, job.spec, flip=flip)
    asked = ask or ExportedModel(path, checks, job.spec, options=job.options)
    file = asked if isinstance(asked, ExportedModel) else None
    cost = Cost(
        source_s=source.crop_s,
        export_s=file.crop_s if file else source.crop_s,
        spent_s=perf_counter() - start,
        batch=job.options.batch or 1,
        done=len(sure),
        opening_s=file.opening_s if file else 0.0,
    )
    count, taps = crops_within_time(cost)
    checks = checks.first(count)
    if len(checks) > len(sure):
        more = checks.crops[len(sure) :]
        source += source_outputs(job.net, more, job.spec, flip=flip, crop_s=source.crop_s)
    return checks, source, file(checks, taps) if file else asked(checks)


def report_header(job: ParityJob) -> Report:
    """What was exported, and where it was measured."""
    options, budget = job.options, job.options.budget
    return {
        "posekit": __version__,
        "model": {"name": job.source.name, "sha256": job.source.sha256},
        "architecture": job.spec.architecture,
        "outputs": options.outputs,
        "flip": options.merges,
        "decode": job.spec.decode,
        "affine": options.affine,
        "batch": options.batch,
        "precision": options.precision,
        "runtime": f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider",
        "budget_px": budget.mean_px,
        "budget_p99_px": budget.p99_px,
    }
