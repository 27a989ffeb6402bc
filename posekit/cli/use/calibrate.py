"""`posekit calibrate`: fit a bundle's scores to probabilities, on labeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from posekit.cli.printing import show

if TYPE_CHECKING:
    from posekit.estimate import Estimator
    from posekit.evaluate import Annotations
    from posekit.evaluate.calibrate import Samples


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    images: Annotated[Path, Option(help="Folder of the images that the annotations name.")],
    annotations: Annotated[Path, Option(help="Labels: COCO's form or MPII's list.")],
    output: Annotated[Path, Option("-o", "--output", help="The .posekit file to write.")],
    category: Annotated[str | None, Option(metavar="NAME", help="Category of the persons in a COCO file, by name or id; without it person, or the only one.")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N; only auto may fall back.")] = "auto",
    threads: Annotated[int | None, Option(min=1, help="CPU threads; all by default.")] = None,
    max_boxes: Annotated[int, Option(min=1, help="Refuse a frame with more boxes; the work grows with their square.")] = 1000,
    seed: Annotated[int, Option(help="Of the folds.")] = 0,
    html_file: Annotated[Path | None, Option("--html", metavar="FILE", help="Write the reliability diagrams.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing outputs.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Calibrate confidence to probabilities, P(nearer than 0.1 of the person size), by keypoint."""
    from posekit import api, bundle
    from posekit.atomic import AtomicFiles, check_apart
    from posekit.estimate import EstimateOptions
    from posekit.evaluate import calibrate, outcome, read_annotations

    bundle.check_name(output)
    check_apart([output, html_file], [path := bundle.find(model), images, annotations])
    source, labels = bundle.Bundle.open(path), read_annotations(annotations, images, category=category)
    views = [name for name in ("flip", "plain") if name in source.graphs]
    with AtomicFiles([output, html_file], overwrite=overwrite) as files:
        data = {name: _samples(api.load(model, device, threads, flip=name == "flip", boxes="full", options=EstimateOptions(max_boxes=max_boxes)), labels, silent=quiet) for name in views}
        found = calibrate.calibrate(data, seed)
        calibrate.calibrated(source, found.curves, calibrate.fingerprint(labels, annotations)).save(files.place(output))
        outcome.save_reliability(found.report, files.optional(html_file), title=f"{source.name}, calibrated on {annotations.name}")
    _echo_notes([] if quiet else labels.notes)
    show(found.report, lambda: _print(found.report, output), as_json=as_json, quiet=quiet)
# fmt: on


def _samples(estimator: Estimator, labels: Annotations, *, silent: bool) -> Samples:
    """Predictions in the labeled boxes and whether they are right, with a bar on a terminal."""
    from posekit.cli.progress import counted
    from posekit.evaluate import predict, score
    from posekit.evaluate.calibrate import samples

    runtime = estimator.runtime
    title = f"{runtime.bundle.name}, flip {'on' if runtime.flip else 'off'}"
    with counted(title, len(labels.images), silent=silent) as on_image:
        found = predict(estimator, labels, skeleton=runtime.spec.skeleton, on_image=on_image)
    return samples(score(found, labels, runtime.spec), len(runtime.spec.skeleton))


def _echo_notes(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(f"posekit: {note}", err=True)


def _print(report: Mapping[str, Any], output: Path) -> None:
    for name, entry in report.items():
        raw, new = entry["raw"], entry["calibrated"]
        typer.echo(
            f"{name}: expected calibration error {raw['ece']:.3f} raw, {new['ece']:.3f} calibrated "
            f"(held-out images, {new['keypoints']} keypoints)"
        )
    typer.echo(f"{output}: written")
