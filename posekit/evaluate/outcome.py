"""Outputs of `posekit eval`: one report of plain data, a JSON file and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posekit.atomic import write_atomic
from posekit.evaluate.report import page, reliability_page
from posekit.evaluate.score import Evaluation, compared
from posekit.inference.runtime import PoseRuntime


@dataclass(frozen=True, eq=False)
class Run:
    """A model and its evaluation.

    views: as in EstimateOptions, None: the runtime's own.
    notes: what was assumed or left out of labels and boxes.
    """

    runtime: PoseRuntime
    evaluation: Evaluation
    views: int | str | None = None
    notes: tuple[str, ...] = ()


def report(runs: Sequence[Run], *, boxes: str, annotations: Path) -> dict[str, Any]:
    """Figures of the first run, and what it gains over the second where there is one.

    boxes: where they came from. Raises InputError.
    """
    first = runs[0]
    result = {
        "model": _model(first.runtime),
        "run": {
            "annotations": str(annotations),
            "boxes": boxes,
            "flip": first.runtime.flip and first.views is None,
            "views": first.views,
            "provider": first.runtime.provider,
            "threads": first.runtime.threads,
            "seed": first.evaluation.seed,
            "notes": list(first.notes),
        },
        "figures": first.evaluation.figures(),
    }
    for other in runs[1:]:
        result["comparison"] = {
            "model": _model(other.runtime),
            "difference": compared(first.evaluation, other.evaluation),
            "figures": other.evaluation.figures(),
        }
    return result


def save(
    result: dict[str, Any], run: Run, *, json_file: Path | None, html_file: Path | None
) -> None:
    """Write the requested files; each appears whole or not at all. Raises SourceError."""
    save_json(result, json_file)
    if html_file is not None:
        write_atomic(html_file, page(run.evaluation, result, run.runtime.spec.skeleton))


def save_json(result: Mapping[str, Any], path: Path | None) -> None:
    """Write plain data where a file is requested. Raises SourceError."""
    if path is not None:
        write_atomic(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def save_reliability(result: Mapping[str, Any], path: Path | None, *, title: str) -> None:
    """Write the page of a calibration's report where one is requested. Raises SourceError."""
    if path is not None:
        write_atomic(path, reliability_page(title, result))


def _model(runtime: PoseRuntime) -> dict[str, Any]:
    return {"name": runtime.bundle.name, "sha256": runtime.bundle.sha256}
