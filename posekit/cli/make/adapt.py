"""`posekit adapt`: a model and unlabeled images in; a better model, or a refusal, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


# fmt: off
def command(
    unlabeled: Annotated[list[str], Option("--unlabeled", metavar="PATH", help="Image, folder, glob or video; may be repeated.")],
    output: Annotated[Path, Option("-o", "--output", metavar="OUT.posekit", help="The adapted model; OUT.html and OUT.json are the report.")],
    more: Annotated[list[str] | None, Argument(metavar="[PATH]...", help="More of them, as a shell makes of --unlabeled frames/*.jpg.")] = None,
    model: Annotated[str, Option("-m", "--model", help="Embedded name, .posekit or checkpoint.")] = "movenet-thunder",
    recipe: Annotated[str, Option(help="Name of a recipe of posekit, or a TOML file.")] = "default",
    settings: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="Override a number of the recipe; may be repeated.")] = None,
    check: Annotated[Path | None, Option(help="COCO JSON of labeled people: the gate then measures true change.")] = None,
    check_images: Annotated[Path | None, Option(help="Their images.")] = None,
    source: Annotated[Path | None, Option(help="COCO JSON of the old domain: how much is forgotten.")] = None,
    source_images: Annotated[Path | None, Option(help="Its images.")] = None,
    labeled: Annotated[Path | None, Option(help="COCO JSON or MPII's list of labeled people to learn from as well.")] = None,
    labeled_images: Annotated[Path | None, Option(help="Their images.")] = None,
    labeled_first: Annotated[int | None, Option(min=1, help="Only so many of them, in the file's order.")] = None,
    teacher: Annotated[str | None, Option(help="Another, stronger model that teaches; keypoints are matched by name.")] = None,
    second: Annotated[str | None, Option(help="What the second network begins as, in recipes of two: same crop and heatmaps.")] = None,
    boxes: Annotated[str, Option(help="Detector, 'full' for whole images, or a file of boxes.")] = "nanodet-person",
    category: Annotated[str | None, Option(metavar="NAME", help="Category of the persons in COCO files, by name or id; without it person, or the only one.")] = None,
    max_boxes: Annotated[int, Option(min=1, help="Refuse an image with more boxes in a file of boxes.")] = 1000,
    limit: Annotated[int, Option(min=50, help="Maximum number of people.")] = 2000,
    budget: Annotated[str | None, Option(help="Time for the whole run, as 2h or 40min: fewer steps than the recipe's where it is short.")] = None,
    steps: Annotated[int | None, Option(min=1, help="Training steps, instead of the recipe's.")] = None,
    seed: Annotated[int, Option(help="The same seed gives the same model on the same machine.")] = 0,
    threads: Annotated[int | None, Option(min=1, help="CPU threads; all by default.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where the same command stopped.")] = False,
    force: Annotated[bool, Option("--force", help="Write the model even where the gate refuses it, marked so.")] = False,
    tensorboard: Annotated[Path | None, Option(metavar="DIR", help="Write the curves for TensorBoard, live.")] = None,
    pictures: Annotated[bool, Option(help="Before and after images in the report.")] = True,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing outputs.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Adapt a model to unlabeled images or videos; it is written only if it is no worse."""
    from posekit import api
    from posekit.cli.make.adapt_progress import AdaptProgress
    from posekit.cli.make.stage_clock import seconds_of

    wanted = seconds_of(budget)
    extra = [f"steps={steps}"] if steps else []
    with AdaptProgress(silent=quiet or as_json) as progress:
        options = api.AdaptOptions(
            recipe=recipe, settings=[*(settings or []), *extra], check=check, check_images=check_images, source=source, source_images=source_images,
            labeled=labeled, labeled_images=labeled_images, labeled_first=labeled_first, teacher=teacher, second=second, boxes=boxes, category=category, max_boxes=max_boxes, limit=limit,
            budget_s=wanted, seed=seed, threads=threads, resume=resume, force=force, tensorboard=tensorboard, pictures=pictures, overwrite=overwrite,
        )
        adapted = api.adapt(model, [*unlabeled, *(more or [])], output, options=options, hooks=progress.hooks())
    progress.report(adapted, as_json=as_json, quiet=quiet)
    raise typer.Exit(adapted.exit_code)
# fmt: on
