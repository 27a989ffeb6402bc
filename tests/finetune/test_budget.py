"""A budget covers the whole run; one in which too little can be learned is refused at once."""

import re
import time
from pathlib import Path

import pytest

import posekit
from posekit.cli.make.stage_clock import seconds_of
from posekit.errors import InputError
from posekit_finetune.budget import (
    EVALUATIONS,
    MIN_STEPS,
    Costs,
    TimeBudget,
    duration,
    minimum_steps,
)
from posekit_finetune.recipe import Recipe

COSTS = Costs(step_s=1.0, teacher_s=0.5, held_out_s=0.5, evaluation_s=0.1)
PERSONS, HELD = 1000, 100
RECIPE = Recipe()


def budget(limit_s: float, *, spent_s: float = 0.0, costs: Costs = COSTS) -> TimeBudget:
    return TimeBudget(limit_s, time.perf_counter() - spent_s, costs, RECIPE)


def whole_s(steps: int, persons: int = PERSONS, held: int = HELD) -> float:
    """What a run costs by its own parts: teacher, rotated views, evaluations, steps."""
    teacher = persons * COSTS.teacher_s + held * COSTS.held_out_s
    return teacher + held * COSTS.evaluation_s * (EVALUATIONS + 2) + steps * COSTS.step_s


@pytest.mark.parametrize(
    ("steps", "least"), [(1400, 140), (5000, 500), (700, MIN_STEPS), (60, 60), (1, 1)]
)
def test_a_tenth_of_the_steps_is_the_minimum_and_at_least_100(steps: int, least: int) -> None:
    assert minimum_steps(Recipe(steps=steps)) == least


def test_the_refusal_names_steps_persons_and_a_budget_that_is_enough() -> None:
    short = budget(whole_s(40))
    with pytest.raises(InputError) as refused:
        short.check(PERSONS, HELD)
    text = str(refused.value)
    assert "of the recipe's 1,400 steps with 1,000 persons" in text
    assert "wanted at least 140" in text
    enough, every = (
        seconds_of(found) or 0.0
        for found in re.search(r"Pass --budget (.+) or more \((.+) for all steps", text).groups()
    )
    assert whole_s(140) < enough < 1.6 * whole_s(140)
    budget(enough).check(PERSONS, HELD)
    assert whole_s(RECIPE.steps) < every
    spent = COSTS.before_training(PERSONS, HELD)
    assert budget(every, spent_s=spent).steps(HELD) == RECIPE.steps


def test_fewer_persons_are_suggested_where_they_fit() -> None:
    with pytest.raises(InputError, match=r"--limit (\d+)") as refused:
        budget(whole_s(80)).check(PERSONS, HELD)
    limit = int(re.search(r"--limit (\d+)", str(refused.value))[1])
    held = max(limit // 10, min(100, limit * 3 // 10))
    budget(whole_s(80)).check(limit, held)
    with pytest.raises(InputError) as hopeless:
        budget(30).check(PERSONS, HELD)
    assert "--limit" not in str(hopeless.value)


def test_time_that_is_spent_counts() -> None:
    enough = 1.3 * whole_s(140)
    budget(enough).check(PERSONS, HELD)
    with pytest.raises(InputError):
        budget(enough, spent_s=0.5 * enough).check(PERSONS, HELD)


def test_a_search_that_takes_too_long_is_stopped_before_its_end() -> None:
    """At a tenth of the images, after a tenth of a search that leaves no time to learn."""
    limit = 2.5 * whole_s(140, 50, 12)
    slow = budget(limit, spent_s=0.1 * limit)
    slow.check_search(5, 1000)  # too few images to judge by
    with pytest.raises(InputError, match="after searching 1,000 images"):
        slow.check_search(100, 1000)
    budget(limit, spent_s=0.001 * limit).check_search(100, 1000)


def test_the_steps_fill_the_remaining_time_and_no_more_than_the_recipe() -> None:
    spent = COSTS.before_training(PERSONS, HELD)
    planned = budget(whole_s(400), spent_s=spent).steps(HELD)
    assert 0.7 * 400 < planned <= 400
    total = spent + COSTS.training(planned, HELD)
    assert total <= whole_s(400)
    assert budget(1e6).steps(HELD) == RECIPE.steps
    assert budget(1.0).steps(HELD) == minimum_steps(RECIPE)  # the teacher took longer than expected


def test_where_the_teacher_was_slower_than_expected_fewer_steps_are_planned() -> None:
    """Twice as slow: half the steps in what remains."""
    limit, before = 4000.0, COSTS.before_training(PERSONS, HELD)
    on_time, late = budget(limit), budget(limit)
    for each in (on_time, late):
        each.check(PERSONS, HELD)
    on_time.started -= before
    late.started -= 2 * before
    steps = [each.steps(HELD) for each in (on_time, late)]
    assert steps[0] == RECIPE.steps
    left = 0.85 * (limit - 2 * before) - COSTS.training(0, HELD)
    assert steps[1] == pytest.approx(min(left / 2, RECIPE.steps), rel=0.01)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.4, "1s"), (90, "90s"), (120, "2min"), (130, "2min10s"), (599.5, "10min")),
        *((601, "11min"), (3600, "1h"), (5000, "1h24min")),
    ],
)
def test_durations_are_rounded_up_and_may_be_passed_as_a_budget(value: float, text: str) -> None:
    assert duration(value) == text
    assert value <= (seconds_of(text) or 0.0) < value + 60


def test_a_budget_without_hope_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    stages: list[str] = []
    hooks = posekit.AdaptHooks(on_stage=stages.append)
    with pytest.raises(InputError, match=r"--budget 2s allows about 0 .* even with 50 persons"):
        posekit.adapt(
            "movenet-lightning",
            tmp_path / "there_is_no_such_folder",
            tmp_path / "mine.posekit",
            budget_s=2.0,
            threads=1,
            hooks=hooks,
        )
    assert len(stages) == 1
    assert stages[0].startswith("timing")
    assert not list(tmp_path.iterdir())
