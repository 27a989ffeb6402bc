"""A model to one deployable file, folder or bundle, with proof of how far it strays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime
from torch import nn

from posekit import __version__
from posekit.atomic import AtomicFiles, explained
from posekit.bundle import Bundle
from posekit.nets import build
from posekit.types import ModelSpec
from posekit_engines import engine_cache, parity_page, repack, strays, triton_repository
from posekit_engines.answer import Exported
from posekit_engines.crops import LEAST, Checks, crops_of
from posekit_engines.options import ExportOptions
from posekit_engines.pack import loaded
from posekit_engines.standalone import write
from posekit_engines.strays import Cost, Given, Truth, truth
from posekit_engines.to_onnx import bundle_weights

Report = dict[str, Any]
Ask = Callable[[Checks], Given]
REPORT, PAGE = ".parity.json", ".parity.html"
METADATA = ".json"  # of a TensorRT plan


@dataclass(frozen=True, eq=False)
class Job:
    """A model on its way out: its source, the spec with the options in it, and the network."""

    source: Bundle
    spec: ModelSpec
    net: nn.Module
    options: ExportOptions


def export(source: Bundle, output: str | Path, options: ExportOptions) -> Report:
    """Write `output` with `<output>.parity.json` and `.parity.html` beside it, all or none.

    source: a bundle, or a checkpoint as `pack.unpacked` gives it.  Parity is measured on the
    file's own bytes in ONNX Runtime's CPU provider, against the torch network in float32 and the
    numpy codecs. Returns the report.
    Raises ExportError, ParityError, SourceError, InputError, MissingExtraError, DeviceError.
    """
    output = Path(output)
    target = options.target(output)
    options.check_for(target)
    options = replace(options, to=target)
    spec = source.pose_spec
    if options.decode is not None:
        spec = replace(spec, decode=options.decode)
    build_plan = _plan_builder(options) if target == "tensorrt" else None
    job = Job(source, spec, loaded(build(spec), source.weights), options)
    outputs = outputs_of(output, target)
    with AtomicFiles(outputs, overwrite=options.overwrite) as files, explained(output):
        path = files.place(output)
        if build_plan is not None:
            report: Report = build_plan(job, path)
        else:
            report = _MAKERS[target](job, path)
        files.place(outputs[2]).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def outputs_of(output: Path, target: str | None = None) -> list[Path]:
    """All that an export to `target` may write, `output` first; None: to any target."""
    ends = ["", ".data", REPORT, PAGE, *([METADATA] if target in ("tensorrt", None) else [])]
    return [output.with_name(output.name + end) for end in ends]


def _plan_builder(options: ExportOptions) -> Callable[[Job, Path], Report]:
    """The maker of plans, once it is known that one can be made here.

    Raises MissingExtraError, DeviceError.
    """
    from posekit_engines import to_tensorrt  # it stands on this module

    engine_cache.check_ready(options.library)
    return to_tensorrt.build


def judged(
    job: Job, path: Path, told: Mapping[str, Any], *, page: Path, ask: Ask | None = None
) -> Report:
    """Measure the stand-alone file at `path`, write the page of pictures, return the report.

    ask: answers in its place.  Raises ParityError where it strays too far and nobody insists.
    """
    start = perf_counter()
    checks, source, given = _answers(job, path, ask)
    parity, found = strays.report(given, source, checks, spec=job.spec)
    found["within_budget"] = not strays.within(found, job.options.budget)
    found["forced"] = job.options.force and not found["within_budget"]
    if not job.options.force:
        strays.refuse(found, job.options.budget, str(job.source.name))
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    said = {
        **head(job),
        **parity.to_dict(),
        **found,
        "bytes": size,
        **told,
        "parity_s": round(perf_counter() - start, 1),
    }
    said["table"] = parity_page.rows(said)
    page.write_text(parity_page.page(said, given, source, checks=checks), "utf-8")
    return said


def _answers(job: Job, path: Path, ask: Ask | None) -> tuple[Checks, Truth, Given]:
    """As many check crops as time allows, and what the source and the file answer to them.

    The source answers the least that there must be; how long that took decides on the others. An
    `ask` is taken to be as slow as the source.
    """
    start = perf_counter()
    checks, flip = crops_of(job.options.check, job.spec), job.options.merges
    sure = checks.first(LEAST)
    source = truth(job.net, sure.crops, job.spec, flip=flip)
    asked = ask or Exported(path, checks, job.spec, options=job.options)
    file = asked if isinstance(asked, Exported) else None
    cost = Cost(
        source_s=source.crop_s,
        export_s=file.crop_s if file else source.crop_s,
        spent_s=perf_counter() - start,
        batch=job.options.batch or 1,
        done=len(sure),
        opening_s=file.opening_s if file else 0.0,
    )
    count, taps = strays.affordable(cost)
    checks = checks.first(count)
    if len(checks) > len(sure):
        more = checks.crops[len(sure) :]
        source += truth(job.net, more, job.spec, flip=flip, crop_s=source.crop_s)
    return checks, source, file(checks, taps) if file else asked(checks)


def head(job: Job) -> Report:
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


def _onnx(job: Job, path: Path) -> Report:
    start = perf_counter()
    told = write(job.source, job.net, job.spec, options=job.options, path=path)
    told["export_s"] = round(perf_counter() - start, 1)
    return {"to": "onnx", **judged(job, path, told, page=path.with_name(path.name + PAGE))}


def _triton(job: Job, path: Path) -> Report:
    name = triton_repository.model_name(path.name)
    version = path / name / "1"
    version.mkdir(parents=True)
    file = version / "model.onnx"
    start = perf_counter()
    told = write(job.source, job.net, job.spec, options=job.options, path=file)
    told["export_s"] = round(perf_counter() - start, 1)
    report = judged(job, file, told, page=path.with_name(path.name + PAGE))
    plans = triton_repository.describe(path, name, job.source, spec=job.spec, options=job.options)
    return {"to": "triton", **report, "plans": plans}


def _bundle(job: Job, path: Path) -> Report:
    """The points graph in its precision is judged alone, then packed with the rest."""
    start = perf_counter()
    file = path.with_name("points.onnx")
    stored = replace(job.source, weights=bundle_weights(job.net))  # float16, as a bundle has them
    told = write(stored, job.net, job.spec, options=job.options, path=file)
    told["export_s"] = round(perf_counter() - start, 1)
    report = judged(job, file, told, page=path.with_name(path.name + PAGE))
    packed = repack.repacked(job.source, job.spec, options=job.options, points=file, parity=report)
    path.write_bytes(packed.to_bytes())
    report["bytes"] = path.stat().st_size
    return {"to": "bundle", **report}


_MAKERS = {"onnx": _onnx, "triton": _triton, "bundle": _bundle}
