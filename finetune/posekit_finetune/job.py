"""`posekit adapt`: from paths and options to a model and its report."""

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
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.options import AdaptOptions, Hooks
from posekit_finetune.report import page

PATH_FIELDS = (
    *("recipe", "check", "check_images", "source", "source_images", "labeled", "labeled_images"),
    "boxes",
)
"""Fields of AdaptJob that may name files, which no output may replace."""


@dataclass(frozen=True)
class AdaptJob:
    """The options of `posekit adapt`; see its --help.

    settings: name=value, override the recipe.  check, source: COCO JSON with labels of the new and
    the old domain, and their images.  labeled: COCO JSON or MPII's list of persons to train on as
    well, and its images; labeled_first: only the first ones, in the file's order.
    teacher, second: other models, opened; see `AdaptOptions`.  boxes: a detector, "full" or a
    file.  limit: maximum number of persons.  budget_s: instead of the recipe's steps.
    work: folder for intermediate files, None for one beside the output that is removed at the end.
    force: write a refused model too, marked as refused.  tensorboard: folder for event files.
    pictures: whether the report contains images of persons.
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
    """The result of a job.

    status: adapted, refused, forced or nothing to learn.  reason: one sentence.
    outputs: files that were written.  summary: the report as plain values.
    """

    status: str
    reason: str
    outputs: tuple[Path, ...]
    summary: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the model passed the gate."""
        return self.status == "adapted"

    @property
    def exit_code(self) -> int:
        """Exit code of the command line."""
        return RejectedError.exit_code if self.status == "refused" else 0


def run(
    model: Bundle,
    unlabeled: Sequence[str | Path],
    output: str | Path,
    *,
    job: AdaptJob,
    finish: Callable[[Bundle], Bundle],
    hooks: Hooks = Hooks(),
) -> Adapted:
    """Adapt `model`, write `output` if it passes the gate, and the report in any case.

    finish: replaces the adapted bundle's stored outputs and checks its graphs against them.
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
            outcome = adapt(model, options, _with_tensorboard(hooks, job.tensorboard))
        except PosekitError:  # nothing to resume; Ctrl-C keeps the folder for --resume
            if not job.work:
                _remove(work, new)
            raise
        adapted = _write(outcome, model, job, files=files, finish=finish)
    if not job.work:
        _remove(work, new)
    if outcome.error is not None:
        raise outcome.error
    return adapted


def outputs_of(output: Path, work: str | Path | None = None) -> list[Path]:
    """The model, the two files of its report, and the folder for intermediate files."""
    folder = Path(work) if work else output.with_name(output.name + ".work")
    return [output, output.with_suffix(".html"), output.with_suffix(".json"), folder]


def _remove(work: Path, new: list[Path]) -> None:
    """Remove the work folder, and those of the new folders above it that are empty."""
    shutil.rmtree(work, ignore_errors=True)
    remove_empty(new)


def _options(
    model: Bundle, unlabeled: Sequence[str | Path], job: AdaptJob, *, work: Path
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


def _labeled(job: AdaptJob, work: Path, model: Bundle) -> LabeledPersons | None:
    """The labeled persons to train on, if any."""
    if job.labeled is None:
        return None
    from posekit_finetune.data.annotations import read_labeled

    folder = _folder(job.labeled, job.labeled_images, "--labeled-images")
    for check in (job.check, job.source):
        if check is not None and Path(check).resolve() == Path(job.labeled).resolve():
            raise InputError(
                f"{job.labeled}: would check the model on its own training labels; pass other "
                "persons to --check and --source"
            )
    return read_labeled(job.labeled, folder, model.pose_spec, first=job.labeled_first, work=work)


def _folder(labels: str | Path, images: str | Path | None, option: str) -> str | Path:
    if images is None:
        raise InputError(f"{labels}: wanted the folder of its images in {option}, got none")
    return images


def _checks(job: AdaptJob, work: Path, model: Bundle) -> tuple[Checker, ...]:
    """Comparisons of source and adapted model with labels, if any."""
    wanted = (
        (job.check, job.check_images, "--check-images"),
        (job.source, job.source_images, "--source-images"),
    )
    if job.check is None and job.source is None:
        return ()
    from posekit_finetune.assess.label_check import SHARE, LabelCheck
    from posekit_finetune.data.annotations import read_labeled

    checks: list[Checker] = []
    for labels, images, option in wanted:
        if labels is not None:
            folder = _folder(labels, images, option)
            labeled = read_labeled(labels, folder, model.pose_spec, work=work)
            decides = option == "--check-images"
            name = f"PCK@{SHARE}" + ("" if decides else " on the source domain")
            checks.append(LabelCheck(name, labeled, decides))
    return tuple(checks)


def _with_tensorboard(hooks: Hooks, folder: str | Path | None) -> Hooks:
    """The hooks; every reading is written to TensorBoard as well."""
    if folder is None:
        return hooks
    from torch.utils.tensorboard import SummaryWriter

    with explained(Path(folder)):
        writer = SummaryWriter(str(folder))

    def on_reading(reading: MonitorReading, seconds: float) -> None:
        figures = {**reading.values, **reading.losses, "score": reading.score}
        for name, value in figures.items():
            writer.add_scalar(name, value, reading.step)
        writer.flush()
        hooks.on_reading(reading, seconds)

    return dataclasses.replace(hooks, on_reading=on_reading)


def _write(
    outcome: Outcome,
    model: Bundle,
    job: AdaptJob,
    *,
    files: AtomicFiles,
    finish: Callable[[Bundle], Bundle],
) -> Adapted:
    """Write the model if it passed, and the report, to `files`."""
    output, *pages = files.outputs
    status = _status(outcome, job)
    report = page.Run(
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
    summary = page.summary(report)
    if status == "nothing to learn":
        return Adapted(status, outcome.reason, (), summary)
    written: list[Path] = []
    if outcome.adapted is not None and status in ("adapted", "forced"):
        adapted = dataclasses.replace(outcome.adapted, name=output.stem)
        if status == "forced":
            marked = {**adapted.provenance, "refused": outcome.reason}
            adapted = dataclasses.replace(adapted, provenance=marked)
        finish(adapted).save(files.place(output))
        written.append(output)
    html, json_page = map(files.place, pages)
    page.write(html, json_page, report, images=job.pictures)
    return Adapted(status, outcome.reason, (*written, *pages), summary)


def _status(outcome: Outcome, job: AdaptJob) -> str:
    if outcome.error is not None:
        return "stopped"
    if outcome.verdict is None:
        return "nothing to learn"
    if outcome.verdict.passed:
        return "adapted"
    return "forced" if job.force else "refused"
