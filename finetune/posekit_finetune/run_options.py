"""The inputs of an adaptation, and the calls by which its caller follows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from posekit.bundle import Bundle
from posekit.errors import InputError, RecipeError
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.recipe import Recipe


@dataclass(frozen=True)
class RunOptions:
    """What to train on, how, and for how long; checked when it is made.

    unlabeled: images, folders, patterns, videos.  work: folder for intermediate files.
    find: which persons to use.  budget_s: wall time of the whole run, at most the recipe's steps.
    teacher: another model as the teacher instead of the source's own views.  second: the initial
    second network, where the recipe has two.  labeled: labeled persons to train on as well.
    resume: continue an interrupted run with the same inputs.  threads: CPU threads.
    checks: compare source and adapted model with labels; they are part of the decision.
    """

    unlabeled: tuple[str, ...]
    work: Path
    recipe: Recipe = Recipe()
    recipe_name: str = "default"
    find: FindOptions = FindOptions()
    seed: int = 0
    budget_s: float | None = None
    teacher: Bundle | None = None
    second: Bundle | None = None
    labeled: LabeledPersons | None = None
    resume: bool = False
    threads: int = 1
    checks: tuple[Checker, ...] = ()

    def __post_init__(self) -> None:
        if self.threads < 1 or (self.budget_s is not None and self.budget_s <= 0):
            raise InputError(
                f"threads {self.threads}, budget_s {self.budget_s}: wanted at least 1 thread, and "
                "a budget above 0 s or none"
            )
        recipe = self.recipe
        if self.second is not None and recipe.networks == 1:
            raise RecipeError(
                f"--second {self.second.name}: the recipe {self.recipe_name} trains one network; "
                "use a recipe with two, such as --recipe dual, or --set networks=2"
            )
        if self.teacher is not None and recipe.teacher != "ensemble":
            raise RecipeError(
                f"--teacher {self.teacher.name}: in the recipe {self.recipe_name} the teacher is "
                f"{recipe.teacher}; use --recipe default, or --set teacher=ensemble"
            )


@dataclass(frozen=True)
class AdaptHooks:
    """Called during a run: `on_stage` with a sentence at the start of each stage, `on_count` with
    its done and total counts (images, persons, steps), `on_reading` after each evaluation of the
    held-out persons; `stopped` between the training steps, which run within `deferred()`: anything
    else may be interrupted at any time.
    """

    on_stage: Callable[[str], None] = lambda _: None
    on_count: Callable[[int, int], None] = lambda _done, _all: None
    on_reading: Callable[[MonitorReading, float], None] = lambda _reading, _seconds: None
    stopped: Callable[[], bool] = lambda: False
    deferred: Callable[[], AbstractContextManager[None]] = nullcontext
