"""`posekit eval`: accuracy on labeled images, with intervals, and against a second model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from posekit.cli.printing import show

if TYPE_CHECKING:
    from posekit.estimate import Estimator
    from posekit.evaluate import Annotations
    from posekit.evaluate.outcome import Run


KEYPOINT_COLUMNS = ("labelled", "PCK@0.2 torso", "PCK@0.05 box", "PCKh@0.5", "NME size")


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    images: Annotated[Path, Option(help="Folder of the images that the annotations name.")],
    annotations: Annotated[Path, Option(help="Labels: COCO's form or MPII's list.")],
    boxes: Annotated[str, Option(help="gt: the labeled boxes; detector; or a COCO or JSONL file of boxes.")] = "gt",
    category: Annotated[str | None, Option(metavar="NAME", help="Category of the persons in COCO files, by name or id; without it person, or the only one.")] = None,
    max_boxes: Annotated[int, Option(min=1, help="Refuse a frame with more boxes; the work grows with their square.")] = 1000,
    detector: Annotated[str, Option(help="With --boxes detector: name, .posekit or .onnx.")] = "nanodet-person",
    compare: Annotated[str | None, Option(metavar="MODEL", help="Second model: adds the first minus the second, paired.")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N; only auto may fall back.")] = "auto",
    threads: Annotated[int | None, Option(min=1, help="CPU threads; all by default.")] = None,
    flip: Annotated[bool, Option(help="Average with the mirrored crop: better, twice the work.")] = True,
    views: Annotated[Literal["1", "2", "4", "8", "16", "aligned", "aligned-flip"] | None, Option(help="Test-time augmentation instead of the flip test: average this many rotations and flips at so many times the cost; aligned: 2, the second turned upright by the first (aligned-flip: 4).")] = None,
    seed: Annotated[int, Option(help="Of the bootstrap's draws.")] = 0,
    json_to: Annotated[str | None, Option("--json", metavar="FILE|-", help="Write all figures as JSON; - prints them instead of the table.")] = None,
    html_file: Annotated[Path | None, Option("--html", metavar="FILE", help="Write a page: curves, bars, worst persons.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing outputs.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Measure a model on labeled images: COCO AP, PCK, PCKh, AUC, NME, each with an interval."""
    from posekit import api
    from posekit.atomic import AtomicFiles, check_apart
    from posekit.estimate import EstimateOptions
    from posekit.evaluate import outcome, read_annotations
    from posekit.inference.tta import describe_views, parse_views

    json_file = None if json_to in (None, "-") else Path(str(json_to))
    check_apart([json_file, html_file], [model, compare, images, annotations, boxes, detector])
    labels = read_annotations(annotations, images, category=category)
    source = {"gt": "full", "detector": detector}.get(boxes, boxes)
    options = EstimateOptions(views=parse_views(views), max_boxes=max_boxes, category=category)
    if views and not quiet:
        typer.echo(describe_views(views), err=True)
    with AtomicFiles([json_file, html_file], overwrite=overwrite) as files:
        runs = [_run(api.load(each, device, threads, flip=flip, boxes=source, options=options), labels, given=boxes == "gt", seed=seed, silent=quiet) for each in (model, compare) if each]
        result = outcome.report(runs, boxes=boxes, annotations=annotations)
        outcome.save(result, runs[0], json_file=files.optional(json_file), html_file=files.optional(html_file))
    show(result, lambda: _print(result), as_json=json_to == "-", quiet=quiet)
# fmt: on


def _run(estimator: Estimator, labels: Annotations, *, given: bool, seed: int, silent: bool) -> Run:
    """Estimate every image and measure it, with a bar on a terminal's stderr."""
    from posekit.cli.progress import counted
    from posekit.evaluate import predict, score
    from posekit.evaluate.outcome import Run

    runtime, find = estimator.runtime, None if given else estimator.find_still
    with counted(runtime.bundle.name, len(labels.images), silent=silent) as on_image:
        found = predict(estimator, labels, find, skeleton=runtime.spec.skeleton, on_image=on_image)
    judged = score(found, labels, runtime.spec, seed=seed)
    notes = (*labels.notes, *getattr(find, "notes", ()))
    return Run(runtime, judged, estimator.options.views, notes)


def _print(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from posekit.evaluate.report import describe_augmentation

    console, figures, run = Console(highlight=False), result["figures"], result["run"]
    difference = result.get("comparison", {}).get("difference")
    head = [f"minus {result['comparison']['model']['name']}", "95 %"] if difference else []
    table = Table("", "value", "95 %", *head, box=None)
    for name, cell in figures["metrics"].items():
        if cell[0] is not None:
            more = _cells(difference.get(name), "+.3f") if difference else []
            table.add_row(name, *_cells(cell, ".3f"), *more)
    console.print(
        f"{result['model']['name']} on {figures['data']}: {figures['persons']} persons "
        f"({figures['found']} found) in {figures['images']} images, boxes {run['boxes']}, "
        + describe_augmentation(run)
    )
    console.print(table)
    rows = figures["per_keypoint"]
    shown = [
        each for each in KEYPOINT_COLUMNS if any(row[each] is not None for row in rows.values())
    ]
    titles = ["labeled" if each == "labelled" else each for each in shown]
    keypoints = Table("", *titles, box=None)
    for name, row in rows.items():
        keypoints.add_row(name, *("-" if row[e] is None else f"{row[e]:.3g}" for e in shown))
    console.print(keypoints)
    for note in run["notes"]:
        console.print("note:", note, markup=False)
    if figures["unused_keypoints"]:
        console.print("not compared, since only one side has them:", *figures["unused_keypoints"])


def _cells(cell: list[float | None] | None, form: str) -> list[str]:
    """A figure and its interval as two cells."""
    if cell is None or None in cell:
        return ["-", ""]
    value, low, high = cell
    return [f"{value:{form}}", f"{low:{form}} {high:{form}}"]
