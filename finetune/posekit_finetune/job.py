"""`posekit adapt`: from paths and options to a model and its report."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posekit.atomic import AtomicFiles, explained, make_folder, remove_empty
from posekit.bundle import Bundle, check_name, find
from posekit.errors import InputError, PosekitError, RejectedError
from posekit.inference.session import usable_threads
from posekit_finetune import recipe
from posekit_finetune.adapt import Outcome, adapt
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.budget import MIN_STEPS, duration
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.options import AdaptOptions
from posekit_finetune.report import page
from posekit_finetune.run_options import AdaptHooks, RunOptions

TOO_LITTLE = "learned too little"
"""Status of a run whose model predicts as its source, or whose few steps show no improvement."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result of an adaptation.

    status: adapted, refused, forced, learned too little or nothing to learn.  reason: sentences.
    outputs: files that were written.  summary: the report as plain values.
    headline: the status with the steps done and planned, the persons and the time.
    """

    status: str
    reason: str
    outputs: tuple[Path, ...]
    summary: dict[str, Any]
    headline: str = ""

    @property
    def passed(self) -> bool:
        """Whether the model passed the gate."""
        return self.status == "adapted"

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: not 0 where training did not give the model."""
        return RejectedError.exit_code if self.status in ("refused", TOO_LITTLE) else 0


def run(
    model: Bundle,
    unlabeled: Sequence[str | Path],
    output: str | Path,
    *,
    options: AdaptOptions,
    finish: Callable[[Bundle], Bundle],
    hooks: AdaptHooks = AdaptHooks(),
) -> Adapted:
    """Adapt `model`, write `output` if it passes the gate, and the report in any case.

    finish: replaces the adapted bundle's stored outputs and checks its graphs against them.
    Raises InputError, DataError, RecipeError, CollapsedError, DivergedError, ParityError,
    SourceError.
    """
    output = Path(output)
    check_name(output)
    *outputs, work = outputs_of(output, options.work)
    with AtomicFiles(outputs, overwrite=options.overwrite) as files:
        with explained(work):
            new = make_folder(work)
        try:
            resolved = _resolve(model, unlabeled, options, work=work)
            outcome = adapt(model, resolved, _with_tensorboard(hooks, options.tensorboard))
        except PosekitError:  # nothing to resume; Ctrl-C keeps the folder for --resume
            if not options.work:
                _remove(work, new)
            raise
        adapted = _write(outcome, model, options, files=files, finish=finish)
    if not options.work:
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


def _resolve(
    model: Bundle, unlabeled: Sequence[str | Path], options: AdaptOptions, *, work: Path
) -> RunOptions:
    return RunOptions(
        tuple(str(path) for path in unlabeled),
        work,
        recipe.load(options.recipe, options.settings),
        options.recipe,
        FindOptions(
            boxes=options.boxes,
            limit=options.limit,
            category=options.category,
            max_boxes=options.max_boxes,
        ),
        seed=options.seed,
        budget_s=options.budget_s,
        teacher=_opened(options.teacher),
        second=_opened(options.second),
        labeled=_labeled(options, work, model),
        resume=options.resume,
        threads=options.threads or usable_threads(),
        checks=_checks(options, work, model),
    )


def _opened(model: str | Path | Bundle | None) -> Bundle | None:
    """A model by name or file, opened. Raises BundleError."""
    return Bundle.open(find(model)) if isinstance(model, str | Path) else model


def _labeled(options: AdaptOptions, work: Path, model: Bundle) -> LabeledPersons | None:
    """The labeled persons to train on, if any."""
    if options.labeled is None:
        return None
    from posekit_finetune.data.annotations import LabelOptions, read_labeled

    folder = _folder(options.labeled, options.labeled_images, "--labeled-images")
    for check in (options.check, options.source):
        if check is not None and Path(check).resolve() == Path(options.labeled).resolve():
            raise InputError(
                f"{options.labeled}: would check the model on its own training labels; pass other "
                "persons to --check and --source"
            )
    wanted = LabelOptions(options.labeled_first, options.category)
    return read_labeled(options.labeled, folder, model.pose_spec, options=wanted, work=work)


def _folder(labels: str | Path, images: str | Path | None, option: str) -> str | Path:
    if images is None:
        raise InputError(f"{labels}: wanted the folder of its images in {option}, got none")
    return images


def _checks(options: AdaptOptions, work: Path, model: Bundle) -> tuple[Checker, ...]:
    """Comparisons of source and adapted model with labels, if any."""
    wanted = (
        (options.check, options.check_images, "--check-images"),
        (options.source, options.source_images, "--source-images"),
    )
    if options.check is None and options.source is None:
        return ()
    from posekit_finetune.assess.label_check import SHARE, LabelCheck
    from posekit_finetune.data.annotations import LabelOptions, read_labeled

    checks: list[Checker] = []
    for labels, images, option in wanted:
        if labels is not None:
            folder = _folder(labels, images, option)
            chosen = LabelOptions(category=options.category)
            labeled = read_labeled(labels, folder, model.pose_spec, options=chosen, work=work)
            decides = option == "--check-images"
            name = f"PCK@{SHARE}" + ("" if decides else " on the source domain")
            checks.append(LabelCheck(name, labeled, decides))
    return tuple(checks)


def _with_tensorboard(hooks: AdaptHooks, folder: str | Path | None) -> AdaptHooks:
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
    options: AdaptOptions,
    *,
    files: AtomicFiles,
    finish: Callable[[Bundle], Bundle],
) -> Adapted:
    """Write the model if it passed, and the report, to `files`."""
    output, *pages = files.outputs
    status = _status(outcome, options)
    headline, reason = f"{status}: {_work_done(outcome)}", _reason(outcome, status)
    report = page.Run(
        title=f"{model.name} adapted as {output.stem}",
        reason=f"{status}: {reason}",
        headline=headline,
        facts={**outcome.facts, "status": status},
        recipe=outcome.recipe,
        before=outcome.before,
        persons=outcome.persons,
        after=outcome.after,
        verdict=outcome.verdict,
        history=outcome.history,
    )
    summary = page.summary(report)
    if status in ("nothing to learn", TOO_LITTLE):
        return Adapted(status, reason, (), summary, headline)
    written: list[Path] = []
    if outcome.adapted is not None and status in ("adapted", "forced"):
        adapted = dataclasses.replace(outcome.adapted, name=output.stem)
        if status == "forced":
            marked = {**adapted.provenance, "refused": outcome.reason}
            adapted = dataclasses.replace(adapted, provenance=marked)
        finish(adapted).save(files.place(output))
        written.append(output)
    html, json_page = map(files.place, pages)
    page.write(html, json_page, report, images=options.pictures)
    return Adapted(status, reason, (*written, *pages), summary, headline)


def _status(outcome: Outcome, options: AdaptOptions) -> str:
    if outcome.error is not None:
        return "stopped"
    verdict = outcome.verdict
    if verdict is None:
        return "nothing to learn"
    if verdict.passed:
        return "adapted"
    if options.force:
        return "forced"
    few = outcome.facts["steps"] < MIN_STEPS and not verdict.harmful
    return TOO_LITTLE if verdict.unchanged or few else "refused"


def _reason(outcome: Outcome, status: str) -> str:
    """Why, and what to do where the model learned too little."""
    if status != TOO_LITTLE:
        return outcome.reason
    return (
        f"{outcome.reason}. The old model stands and no file was written. Allow more steps "
        f"({MIN_STEPS} at least; the recipe's own number without --steps and --budget), or add "
        "persons that differ from these"
    )


def _work_done(outcome: Outcome) -> str:
    """Steps done and planned, persons, and the time of the whole run."""
    facts = outcome.facts
    count, held = len(outcome.persons), facts["held_out"]
    resumed = facts.get("resumed_at_step")
    since = f" since it was resumed at step {resumed:,}" if resumed else ""
    return (
        f"{facts['steps']:,} of {facts['steps_of_recipe']:,} steps on {count - held:,} persons "
        f"({held:,} more held out to judge by) in {duration(facts['seconds'])}{since}"
    )
