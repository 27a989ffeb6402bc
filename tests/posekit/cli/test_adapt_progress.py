"""What `posekit adapt` prints while it runs and at its end."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from posekit.cli.make.adapt_progress import AdaptProgress
from posekit.cli.make.stage_clock import LINE_EVERY_S, StageClock, seconds_of
from posekit.errors import InputError


def test_a_stage_prints_one_line_a_minute_with_the_time_left() -> None:
    """A person a second: of 600, 300 are left after 300 s."""
    clock = StageClock("running the teacher", 0.0)
    lines = {second: clock.line(second, 600, float(second)) for second in range(1, 601)}
    due = [second for second, line in lines.items() if line]
    assert due == list(range(int(LINE_EVERY_S), 601, int(LINE_EVERY_S)))
    assert lines[300] == "running the teacher: 300 of 600; about 5 min left"
    assert lines[60] == "running the teacher: 60 of 600; about 9 min left"


def test_a_resumed_stage_counts_its_own_speed() -> None:
    """1,000 steps were done before; 10 took a minute, so 390 more take 39 minutes."""
    clock = StageClock("training", 0.0)
    assert clock.line(1000, 1400, 0.0) is None
    assert clock.line(1010, 1400, 60.0) == "training: 1,010 of 1,400; about 39 min left"


def test_hours_and_seconds_are_shown_as_such() -> None:
    clock = StageClock("training", 0.0)
    clock.line(0, 1000, 0.0)
    assert str(clock.line(10, 1000, 60.0)).endswith("about 1 h 39 min left")
    clock = StageClock("training", 0.0)
    clock.line(0, 100, 0.0)
    assert str(clock.line(90, 100, 90.0)).endswith("about 10 s left")


def test_without_a_terminal_every_stage_shows_its_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = AdaptProgress(silent=False)
    hooks = progress.hooks()
    for stage in ("searching the images for persons", "training, 100 steps; networks: one"):
        hooks.on_stage(stage)
        for done in range(0, 101, 10):
            hooks.on_count(done, 100)
            now += 30.0
    lines = capsys.readouterr().err.splitlines()
    assert "posekit: searching the images for persons" in lines
    assert "posekit: searching the images for persons: 20 of 100; about 4 min left" in lines
    assert "posekit: training: 80 of 100; about 1 min left" in [
        line.replace("60 s", "1 min") for line in lines
    ]


def test_the_verdict_is_printed_first_then_why_then_the_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapted = SimpleNamespace(
        headline="adapted: 1,400 of 1,400 steps on 900 persons in 24min",
        reason="under mirroring more joints stay in place",
        outputs=("mine.posekit",),
        summary={"facts": {"notes": ["boxes of 2 images were left out"]}},
    )
    progress = AdaptProgress(silent=False)
    progress.report(adapted, as_json=False, quiet=False)
    assert capsys.readouterr().out.splitlines() == [
        adapted.headline,
        adapted.reason,
        "note: boxes of 2 images were left out",
        "wrote mine.posekit",
    ]
    progress.report(adapted, as_json=False, quiet=True)
    assert capsys.readouterr().out == ""
    progress.report(adapted, as_json=True, quiet=True)
    assert json.loads(capsys.readouterr().out) == adapted.summary


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("20min", 1200.0),
        ("1.5h", 5400.0),
        (" 2 m ", 120.0),
        ("1h24min", 5040.0),
        ("2min 10s", 130.0),
    ],
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(None) is None


@pytest.mark.parametrize("text", ["20", "1..5h", "h", "-3min", "nan s", "", "1h 20", "5days"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="wanted a time such as 20min"):
        seconds_of(text)
