"""The job that `posekit adapt` runs: from paths and words to a model and its report."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posekit.atomic import AtomicFiles, explained, make_folder, remove_empty
from posekit.bundle import Bundle, check_name
from posekit.errors import InputError, PosekitError, RejectedError
from posekit.session import usable_threads
from posekit_finetune import recipe
from posekit_finetune.adapt import Outcome, adapt
from posekit_finetune.assess.label_check import SHARE, Checker, LabelCheck
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.labeled import LabeledPersons, read_labeled
from posekit_finetune.options import AdaptOptions, Hooks
from posekit_finetune.report import page

PATHS = ("recipe", "check", "check_images", "source", "source_images", "labeled", "labeled_images",
         "boxes")  # fmt: skip
"""Fields of Job that may name files, which no output may replace."""


@dataclass(frozen=True)
class Job:
    """What the user says; see `posekit adapt --help`.

    settings: name=value on top of the recipe.  check, source: COCO JSON with labels of the new and
    the old domain, and their images.  labeled: COCO JSON or MPII's list of persons to learn from
    as well, and its images; labeled_first: so many of them, in the file's order.
    teacher, second: other models, opened; see `AdaptOptions`.  boxes: a detector, "full" or
    a file.  limit: most persons.  budget_s: instead of the recipe's steps.  work: for what can be
    made again, None for a folder beside the output that is removed at the end.
    force: write a refused model, marked so.  tensorboard: a folder for its event files.
    pictures: in the report.
    """

    recipe: str = "default"
    settings: Sequence[str] = ()
    check: str | Path | None = None
    check_images: str | Path | None = None
    source: str | Path | None = None
    source_images: str | Path | None = None
    labeled: str | Path | None = None
    labeled_images: str | Path | None = None
    labeled_first: int | None = None
    teacher: Bundle | None = None
    second: Bundle | None = None
    boxes: str = "nanodet-person"
    limit: int = 2000
    budget_s: float | None = None
    seed: int = 0
    threads: int | None = None
    work: str | Path | None = None
    resume: bool = False
    force: bool = False
    tensorboard: str | Path | None = None
    pictures: bool = True
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of it.

    status: adapted, refused, forced or nothing to learn.  reason: one sentence.
    outputs: files that were written.  summary: the report as plain values.
    """

    status: str
    reason: str
    outputs: tuple[Path, ...]
    summary: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the gate let the model through."""
        return self.status == "adapted"

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return RejectedError.exit_code if self.status == "refused" else 0


def run(
    model: Bundle,
    unlabeled: Sequence[str | Path],
    output: str | Path,
    *,
    job: Job,
    finish: Callable[[Bundle], Bundle],
    hooks: Hooks = Hooks(),
) -> Adapted:
    """Adapt `model`, write `output` if the gate lets it, and the report beside it in any case.

    finish: makes the adapted bundle's stored answer anew and holds its graphs to it.
    Raises InputError, DataError, RecipeError, CollapsedError, DivergedError, ParityError,
    SourceError.
    """
    output = Path(output)
    check_name(output)
    *outputs, work = outputs_of(output, job.work)
    with AtomicFiles(outputs, overwrite=job.overwrite) as files:
        with explained(work):
            new = make_folder(work)
        try:
            options = _options(model, unlabeled, job, work=work)
            outcome = adapt(model, options, _followed(hooks, job.tensorboard))
        except PosekitError:  # nothing to go on from; Ctrl-C keeps the folder for --resume
            if not job.work:
                _clear(work, new)
            raise
        adapted = _written(outcome, model, job, files=files, finish=finish)
    if not job.work:
        _clear(work, new)
    if outcome.error is not None:
        raise outcome.error
    return adapted


def outputs_of(output: Path, work: str | Path | None = None) -> list[Path]:
    """The model, the two files of its report, and the folder for what can be made again."""
    folder = Path(work) if work else output.with_name(output.name + ".work")
    return [output, output.with_suffix(".html"), output.with_suffix(".json"), folder]


def _clear(work: Path, new: list[Path]) -> None:
    """Remove the work folder, and of the new folders above it those that nothing came into."""
    shutil.rmtree(work, ignore_errors=True)
    remove_empty(new)


def _options(
    model: Bundle, unlabeled: Sequence[str | Path], job: Job, *, work: Path
) -> AdaptOptions:
    return AdaptOptions(
        tuple(str(path) for path in unlabeled),
        work,
        recipe.load(job.recipe, job.settings),
        job.recipe,
        FindOptions(boxes=job.boxes, limit=job.limit),
        seed=job.seed,
        budget_s=job.budget_s,
        teacher=job.teacher,
        second=job.second,
        labeled=_labeled(job, work, model),
        resume=job.resume,
        threads=job.threads or usable_threads(),
        checks=_checks(job, work, model),
    )


def _labeled(job: Job, work: Path, model: Bundle) -> LabeledPersons | None:
    """The persons to learn from with labels, where the user gave some."""
    if job.labeled is None:
        return None
    folder = _folder(job.labeled, job.labeled_images, "--labeled-images")
    for judging in (job.check, job.source):
        if judging is not None and Path(judging).resolve() == Path(job.labeled).resolve():
            raise InputError(
                f"{job.labeled}: would judge what learned from it; give other persons to "
                "--check and --source"
            )
    return read_labeled(job.labeled, folder, model.pose_spec, first=job.labeled_first, work=work)


def _folder(labels: str | Path, images: str | Path | None, option: str) -> str | Path:
    if images is None:
        raise InputError(f"{labels}: wanted the folder of its images in {option}")
    return images


def _followed(hooks: Hooks, folder: str | Path | None) -> Hooks:
    """The hooks, and every look at the held-out persons to TensorBoard as well."""
    if folder is None:
        return hooks
    from torch.utils.tensorboard import SummaryWriter

    with explained(Path(folder)):
        writer = SummaryWriter(str(folder))

    def look(reading: MonitorReading, seconds: float) -> None:
        figures = {**reading.values, **reading.losses, "score": reading.score}
        for name, value in figures.items():
            writer.add_scalar(name, value, reading.step)
        writer.flush()
        hooks.on_reading(reading, seconds)

    return dataclasses.replace(hooks, on_reading=look)


def _written(
    outcome: Outcome,
    model: Bundle,
    job: Job,
    *,
    files: AtomicFiles,
    finish: Callable[[Bundle], Bundle],
) -> Adapted:
    """Write the model where it passed, and the report, into `files`."""
    output, *pages = files.outputs
    status = _status(outcome, job)
    told = page.Run(
        title=f"{model.name} to {output.stem}",
        reason=f"{status}: {outcome.reason}",
        facts={**outcome.facts, "status": status},
        recipe=outcome.recipe,
        before=outcome.before,
        persons=outcome.persons,
        after=outcome.after,
        verdict=outcome.verdict,
        history=outcome.history,
    )
    summary = page.summary(told)
    if status == "nothing to learn":
        return Adapted(status, outcome.reason, (), summary)
    made: list[Path] = []
    if outcome.adapted is not None and status in ("adapted", "forced"):
        handed = dataclasses.replace(outcome.adapted, name=output.stem)
        if status == "forced":
            marked = {**handed.provenance, "refused": outcome.reason}
            handed = dataclasses.replace(handed, provenance=marked)
        finish(handed).save(files.place(output))
        made.append(output)
    html, json_page = map(files.place, pages)
    page.write(html, json_page, told, pictures=job.pictures)
    return Adapted(status, outcome.reason, (*made, *pages), summary)


def _status(outcome: Outcome, job: Job) -> str:
    if outcome.error is not None:
        return "stopped"
    if outcome.verdict is None:
        return "nothing to learn"
    if outcome.verdict.passed:
        return "adapted"
    return "forced" if job.force else "refused"


def _checks(job: Job, work: Path, model: Bundle) -> tuple[Checker, ...]:
    """What compares source and adapted with labels, where the user gave some."""
    made: list[Checker] = []
    given = ((job.check, job.check_images, True), (job.source, job.source_images, False))
    for labels, images, decides in given:
        if labels is None:
            continue
        folder = _folder(labels, images, "--check-images" if decides else "--source-images")
        labelled = read_labeled(labels, folder, model.pose_spec, work=work)
        name = f"PCK@{SHARE}" + ("" if decides else " on the source domain")
        made.append(LabelCheck(name, labelled, decides))
    return tuple(made)
