"""Measure an export against its source, reject it over budget, write page and report."""

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
from posekit_engines.parity.budget import Cost, crops_within_time, raise_over_budget, violation
from posekit_engines.parity.crops import MIN_CROPS, CheckCrops, load_check_crops
from posekit_engines.parity.exported import ExportedModel
from posekit_engines.parity.outputs import ExportOutputs, SourceOutputs, source_outputs
from posekit_engines.parity.page import rows

Report = dict[str, Any]
RunExport = Callable[[CheckCrops], ExportOutputs]
"""Runs an export on check crops."""
REPORT, PAGE = ".parity.json", ".parity.html"
METADATA = ".json"  # beside a TensorRT plan


@dataclass(frozen=True, eq=False)
class ParityJob:
    """An export in progress.

    source: the bundle.  spec: its own, with the options applied.  net: the source network in torch.
    """

    source: Bundle
    spec: ModelSpec
    net: nn.Module
    options: ExportOptions


def measure_parity(
    job: ParityJob,
    path: Path,
    contents: Mapping[str, Any],
    *,
    page: Path,
    run_export: RunExport | None = None,
) -> Report:
    """Measure the stand-alone file at `path`, write the HTML page, return the report.

    contents: what the report adds of the file.  run_export: run in place of the file.
    Raises ParityError where the export is over its budget and not forced.
    """
    start = perf_counter()
    checks, source, export = compared_outputs(job, path, run_export)
    parity, figures = metrics.report(export, source, checks, spec=job.spec)
    figures["within_budget"] = not violation(figures, job.options.budget)
    figures["forced"] = job.options.force and not figures["within_budget"]
    if not job.options.force:
        raise_over_budget(figures, job.options.budget, str(job.source.name))
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    report = {
        **report_header(job),
        **parity.to_dict(),
        **figures,
        "bytes": size,
        **contents,
        "parity_s": round(perf_counter() - start, 1),
    }
    report["table"] = rows(report)
    page.write_text(parity_page.page(report, export, source, checks=checks), "utf-8")
    return report


def compared_outputs(
    job: ParityJob, path: Path, run_export: RunExport | None = None
) -> tuple[CheckCrops, SourceOutputs, ExportOutputs]:
    """As many check crops as time allows, and the outputs of source and export for them.

    The source computes MIN_CROPS first; how long these take decides on the others. `run_export`
    is taken to be as slow as the source.
    """
    start = perf_counter()
    checks, flip = load_check_crops(job.options.check, job.spec), job.options.merges
    first = checks.first(MIN_CROPS)
    source = source_outputs(job.net, first.crops, job.spec, flip=flip)
    run = run_export or ExportedModel(path, checks, job.spec, options=job.options)
    file = run if isinstance(run, ExportedModel) else None
    cost = Cost(
        source_s=source.crop_s,
        export_s=file.crop_s if file else source.crop_s,
        spent_s=perf_counter() - start,
        batch=job.options.batch or 1,
        done=len(first),
        opening_s=file.opening_s if file else 0.0,
    )
    count, map_crops = crops_within_time(cost)
    checks = checks.first(count)
    if len(checks) > len(first):
        more = checks.crops[len(first) :]
        source += source_outputs(job.net, more, job.spec, flip=flip, crop_s=source.crop_s)
    return checks, source, file(checks, map_crops) if file else run(checks)


def report_header(job: ParityJob) -> Report:
    """What was exported, by which options, and where it was measured."""
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
