"""What an adaptation is given, and how a caller follows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from posekit.bundle import Bundle
from posekit_finetune.assess.label_check import Checker
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.data.find import FindOptions
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.recipe import Recipe


@dataclass(frozen=True)
class AdaptOptions:
    """What is learned from, how, and within what.

    unlabeled: images, folders, patterns, videos.  work: a folder for what can be made again.
    find: which persons of the pictures.  budget_s: of wall time for learning, or None for the
    recipe's steps.  teacher: another model that teaches instead of the source's own views.
    second: what the second of two networks begins as.  labeled: persons to learn from as well.
    resume: go on where a run with the same inputs stopped.  threads: CPU threads.
    checks: compare source and adapted with labels; they decide too.
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


@dataclass(frozen=True)
class Hooks:
    """How a caller follows a run: `on_stage` with a sentence, `on_count` with done and all,
    `on_reading` after each look at the held-out persons; `stopped` is asked between the steps of
    learning, which run within `deferred()`: anything else may be interrupted at any time.
    """

    on_stage: Callable[[str], None] = lambda _: None
    on_count: Callable[[int, int], None] = lambda _done, _all: None
    on_reading: Callable[[MonitorReading, float], None] = lambda _reading, _seconds: None
    stopped: Callable[[], bool] = lambda: False
    deferred: Callable[[], AbstractContextManager[None]] = nullcontext
