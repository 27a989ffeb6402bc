"""The grid of `collapse`: cases, arms (a recipe and settings) and the order of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from posekit_finetune import recipe

SEEDS = (0, 1, 2)
Settings = tuple[str, ...]
SMALL: Settings = (
    *("optimizer=adam", "rate=1e-3", "warm_up=1", "schedule=steps"),
    *("steps=300", "batch=16", "labelled_batch=16", "watch_every=75", "head_noise=0"),
    *("easy.turn_deg=[15,30]", "easy.turn_share=0.8", "easy.scale=[0.15,0.15]", "easy.flip=0"),
    *("hard.turn_share=0.8", "hard.flip=0", "hard.cutout=0"),
)
ALIKE: Settings = ("hard.turn_deg=[15,30]", "hard.scale=[0.15,0.15]")
HARDER: Settings = ("hard.turn_deg=[30,60]", "hard.scale=[0.25,0.25]")


@dataclass(frozen=True)
class Case:
    """Labeled persons of the source, the target's shift, and whether the labels take part."""

    labels: int
    shift: str
    supervised: bool = True


@dataclass(frozen=True)
class Arm:
    """A recipe of posekit with settings on top."""

    recipe: str
    settings: Settings

    def load(self, case: Case, steps: int | None = None) -> recipe.Recipe:
        """The recipe for a case.  steps: instead of its own number of steps."""
        settings = [*SMALL, *self.settings]
        settings += [] if case.supervised else ["supervised=0"]
        settings += [f"steps={steps}", f"watch_every={steps}"] if steps else []
        return recipe.load(self.recipe, settings)


@dataclass(frozen=True)
class Sizes:
    """Persons that learn without labels, that test and that probe the response; and steps.

    before: steps on labeled persons alone, in batches of 32, that every arm starts from.
    steps: of each arm, None for its recipe's.
    """

    unlabeled: int = 1000
    test: int = 400
    probe: int = 200
    before: int = 300
    steps: int | None = None


FULL = Sizes()
QUICK = Sizes(unlabeled=200, test=100, probe=100, before=150, steps=150)
CASES = {
    "60 labels": Case(60, "none"),
    "300 labels, shift": Case(300, "moderate"),
    "no labels, shift": Case(300, "moderate", supervised=False),
    "60 labels, shift": Case(60, "moderate"),
    "no labels": Case(60, "none", supervised=False),
    "300 labels": Case(300, "none"),
    "1000 labels": Case(1000, "none"),
    "300 labels, severe shift": Case(300, "severe"),
}
RUNS: dict[str, Arm] = {
    "supervised": Arm("supervised", ALIKE),
    "same strength, both sides": Arm("same-strength-both", ALIKE),
    "single": Arm("single", HARDER),
    "dual": Arm("dual", ("supervised=0.5", *HARDER)),
    "reversed": Arm("reversed", HARDER),
    "same strength": Arm("same-strength", ALIKE),
    "pseudo-label": Arm("pseudo-label", HARDER),
    "mean teacher": Arm("mean-teacher", ALIKE),
    "mean teacher, hard": Arm("mean-teacher-hard", HARDER),
    "rectified": Arm("rectified", HARDER),
    "rectified, self": Arm("rectified", ("teacher=self", "ema=0", *HARDER)),
    "dual student": Arm("dual-student", ("supervised=0.5", *ALIKE)),
    "paper": Arm("paper", ("hard.turn_deg=[30,60]", "hard.scale=[0.25,0.25]", "hard.cutout=2")),
    "data distillation": Arm("data-distillation", ALIKE),
    "multi-augs": Arm("multi-augs", ("hard_views=3", "hard.cutout=2", *HARDER)),
    "sspcm": Arm("sspcm", ("supervised=0.5", *HARDER)),
}
SWEEPS: dict[str, Arm] = {
    **{
        f"same strength, both sides, lambda {weight}": Arm(
            "same-strength-both", (f"consistency={weight}", *ALIKE)
        )
        for weight in (0.03, 0.1, 0.3)
    },
    **{
        f"single, lambda {weight}": Arm("single", (f"consistency={weight}", *HARDER))
        for weight in (0.3, 3.0)
    },
    **{f"single, JC {m}": Arm("single", (*HARDER, f"hard.cutout={m}")) for m in (1, 2, 3, 5)},
    **{
        f"single, RA {m}": Arm("single", (*HARDER, "hard.operations=2", f"hard.magnitude={m}"))
        for m in (5, 10, 20)
    },
    **{
        f"single, turn {turn}": Arm(
            "single", (f"hard.turn_deg=[{turn},{2 * turn}]", "hard.scale=[0.25,0.25]")
        )
        for turn in (0, 15, 45)
    },
    "dual, JC 2": Arm("dual", ("supervised=0.5", *HARDER, "hard.cutout=2")),
}
ARMS = RUNS | SWEEPS
LABEL_SWEEP = ("supervised", "same strength, both sides", "single")

MAIN = ("no labels, shift", "300 labels, shift", "60 labels", "60 labels, shift")


def plan() -> Iterator[tuple[str, str, int]]:
    """Case, arm and seed of every row, the most informative first."""
    for seed in SEEDS:
        yield from ((case, arm, seed) for case in MAIN for arm in arms_of(case))
    yield from (("60 labels", arm, 0) for arm in SWEEPS)
    for case in (case for case in CASES if case not in MAIN):
        yield from ((case, arm, 0) for arm in arms_of(case))


def arms_of(case: str) -> tuple[str, ...]:
    """What is run in a case: a supervised arm needs labels."""
    arms = {
        "300 labels": LABEL_SWEEP,
        "1000 labels": LABEL_SWEEP,
        "300 labels, severe shift": tuple(RUNS)[:4],
    }.get(case, tuple(RUNS))
    return arms if CASES[case].supervised else tuple(arm for arm in arms if arm != "supervised")


def key(case: str, arm: str, seed: int) -> str:
    """Name of a row in the results."""
    return f"{case} | {arm} | {seed}"
