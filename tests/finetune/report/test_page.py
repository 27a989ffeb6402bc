"""The report of an adaptation: what a person reads first, what is folded, and the JSON."""

import dataclasses
import json
import re

import numpy as np
import pytest

from posekit.errors import SourceError
from posekit_finetune.assess import gate
from posekit_finetune.assess.checks import Check
from posekit_finetune.assess.gate import judge
from posekit_finetune.assess.indicators import FAINT_PEAK, NEAR, body_keypoints, measure
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.assess.probe_views import UNTRAINED
from posekit_finetune.recipe import Recipe
from posekit_finetune.report import curves, moved, recipe_table
from posekit_finetune.report.page import Run, page, write
from posekit_finetune.train.teacher import PseudoLabels
from tests.support.figures import drawn_model, figures, unsteady

COUNT = 16
FACTS = {
    "labels used": "none",
    "data_fingerprint": "f00d" * 16,
    "parent": "beef" * 16,
    "seed": 7,
    "versions": {"posekit": "0.1.0", "torch": "2"},
    "found": {"persons": np.int64(16)},
    "seconds": 12.5,
    "peak_memory_mb": 512,
}


@pytest.fixture(scope="module")
def run():
    persons, joints = figures(COUNT)
    rows = np.arange(COUNT)
    teacher = PseudoLabels(np.zeros((COUNT, 1, 1, 1), np.float16), joints, np.ones((COUNT, 9)))
    before = measure(unsteady(0.2), persons, rows, teacher=teacher)
    after = measure(drawn_model, persons, rows, teacher=teacher, source=before)
    monitor = Monitor(before)
    for step in (50, 100):
        monitor.watch(step, after, {"consistency": 1 / step})
    check = Check("PCK@0.2", np.zeros((COUNT, 2)), np.ones((COUNT, 2)), rows)
    return Run(
        title="figure <b>",
        reason="adapted: better",
        headline="adapted: 100 of 1,400 steps on 60 persons (16 more held out) in 2min",
        facts=FACTS,
        recipe=Recipe(rate=3e-4),
        before=before,
        persons=persons,
        after=after,
        verdict=judge(before, after, checks=[check]),
        history=monitor.history,
    )


def folded(text):
    """The titles of folded sections, and what is shown before the first of them."""
    return re.findall(r"<summary>(.*?)</summary>", text), text[: text.index("<details")]


def deciding(run):
    return re.search(r'aria-label="What decided.*?</svg>', page(run))[0]


def test_the_page_is_self_contained(run):
    text = page(run)
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "figure &lt;b&gt;" in text  # names are escaped


def test_the_verdict_is_a_sentence_with_steps_persons_time_and_evidence(run):
    box = re.search(r'<div class="verdict (\w*)">(.*?)</div>', page(run))
    assert box[1] == "good"
    assert box[2].startswith("<strong>Passed: the adapted model was written.</strong>")
    lines = re.findall("<p>(.*?)</p>", box[2])
    assert lines[0] == "100 of 1,400 steps on 60 persons (16 more held out) in 2min."
    assert len(lines) == len(run.verdict.reasons) + 2
    assert all(line[0].isupper() or line[0].isdigit() for line in lines)
    assert all(line.endswith(".") for line in lines)
    assert "16 held-out persons" in lines[-1]
    assert "labels used: none" in lines[-1]


def test_the_indicators_that_decide_are_drawn_with_their_intervals_and_limits(run):
    chart = deciding(run)
    for name in ("when mirrored", "untrained view", "the teacher", "Confident", "PCK@0.2"):
        assert name in chart
    rows = chart.count("<circle")
    assert rows == 5
    assert chart.count('class="curve"') == rows  # an interval each
    assert chart.count('class="limit"') == rows
    assert "✗" not in chart  # it passed
    assert "percentage points" in chart


def test_an_indicator_over_its_limit_is_drawn_as_failed_and_labels_may_only_report(run):
    worse = [
        dataclasses.replace(each, after=each.before + 0.2, difference=0.2, low=0.1, high=0.3)
        if each.name == "swaps"
        else each
        for each in run.verdict.findings
    ]
    assert gate.MARGINS["swaps"] < 0.2
    verdict = dataclasses.replace(run.verdict, passed=False, findings=tuple(worse), labels=())
    chart = deciding(dataclasses.replace(run, verdict=verdict))
    assert "✗ Left/right swaps" in chart
    assert ">PCK@0.2<" in chart  # without a mark and without a limit
    assert chart.count('class="limit"') == chart.count("<circle") - 1


def test_a_refusal_for_lack_of_significance_is_marked_where_it_was_decided(run):
    unsure = [
        dataclasses.replace(each, low=0.0) if each.name in ("flip", UNTRAINED) else each
        for each in run.verdict.findings
    ]
    verdict = dataclasses.replace(run.verdict, passed=False, findings=tuple(unsure))
    chart = deciding(dataclasses.replace(run, verdict=verdict))
    assert chart.count("✗ Joints in place") == 2
    assert chart.count(": not significant") == 2
    passed = dataclasses.replace(verdict, passed=True)  # labels showed a gain
    assert "✗" not in deciding(dataclasses.replace(run, verdict=passed))


def test_what_few_read_is_folded(run):
    titles, shown = folded(page(run))
    assert "All indicators, before and after" in titles
    assert "Data, time, machine and versions" in titles
    assert any(title.startswith("Recipe") for title in titles)
    for value in ("f00d" * 16, "response:", "labelled_batch"):
        assert value not in shown
    text = page(run)
    for finding in run.verdict.findings:
        assert (f"<td>{finding.name}:" in text) == finding.defined
    for value in ("f00d" * 16, "beef" * 16, "peak_memory_mb", "versions.torch", "PCK@0.2"):
        assert value in text


def test_the_recipe_begins_with_what_was_changed(run):
    section = recipe_table.section(run.recipe, "default")
    assert "Recipe default: 1 of" in section
    first = section.index("<td>rate</td><td>0.0003</td><td>0.001</td>")
    assert first < section.index("Networks and teacher")
    for name in Recipe().to_dict():
        assert re.search(rf"<td>{name}[<.]", section), name
    assert "0 of" in recipe_table.section(Recipe(), "default")


def test_every_number_of_the_recipe_belongs_to_one_group():
    members = [name for group in recipe_table.GROUPS.values() for name in group]
    assert sorted(members) == sorted(Recipe().to_dict())


def test_curves_have_axis_titles_and_contain_the_start_and_every_reading(run):
    text = page(run)
    for chart in (*curves.CHARTS, *curves.MORE_CHARTS):
        assert chart.axis.title
        drawn = chart.title in text.replace("&#x27;", "'")
        known = {**run.before.summary(), **run.history[0].values}
        assert drawn == any(np.isfinite(known.get(name, np.nan)) for name in chart.names)
    assert text.count("Training step") == text.count("<svg") - 1  # all but the verdict's
    line = re.search(r'<polyline points="([^"]+)" stroke="[^"]+" class="curve"/>', text)
    assert len(line[1].split()) == 1 + len(run.history)


def test_images_show_the_persons_whose_joints_moved_the_largest_movement_first(run):
    found = moved.movement(run.before, run.after)
    distance = np.linalg.norm(run.after.points - run.before.points, axis=2) / run.before.side
    body = body_keypoints(run.before.skeleton)
    peak = np.maximum(run.before.scores, run.after.scores)
    wanted = ((distance >= NEAR) & (peak >= FAINT_PEAK))[:, body].any(1)
    assert set(found.order.tolist()) == set(np.flatnonzero(wanted).tolist())
    assert len(found.order) > 0
    sums = np.where(found.joints, found.distances, 0).sum(1)[found.order]
    assert (np.diff(sums) <= 1e-12).all()
    text = page(run)
    assert text.count("data:image/jpeg;base64,") == min(moved.SHOWN, len(found.order))
    assert f"<figcaption>{found.order[0]}.png: " in text
    private = page(run, images=False)
    assert "data:image" not in private
    assert ".png" not in private


def test_no_image_of_a_person_that_did_not_move(run):
    text = page(dataclasses.replace(run, after=run.before))
    assert "data:image" not in text
    assert f"No detected joint of the {COUNT} held-out persons moved by 5% of the crop" in text


@pytest.mark.parametrize(
    ("status", "title"),
    [
        ("refused", "Refused: the old model stands."),
        ("forced", "Refused, and written only because --force was given."),
        ("learned too little", "Learned too little: the old model stands."),
    ],
)
def test_the_first_line_says_what_became_of_the_model(run, status, title):
    refused = dataclasses.replace(run.verdict, passed=False, reasons=("it is worse & wrong",))
    facts = {**FACTS, "status": status}
    text = page(dataclasses.replace(run, verdict=refused, facts=facts))
    assert f"<strong>{title}</strong>" in text
    assert "It is worse &amp; wrong." in text


def test_without_a_verdict_the_reason_is_shown(run):
    stopped = {**FACTS, "status": "stopped"}
    text = page(
        dataclasses.replace(
            run, verdict=None, after=None, history=(), reason="stopped: collapse", facts=stopped
        )
    )
    assert "<p>Collapse.</p>" in text
    assert "No training took place." in text


def test_both_files_are_written_and_the_json_is_valid(run, tmp_path):
    write(tmp_path / "a.html", tmp_path / "a.json", run)
    summary = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert summary["verdict"]["passed"] == run.verdict.passed
    assert summary["labels_used"] == "none"
    assert summary["recipe"]["rate"] == 3e-4
    assert summary["headline"] == run.headline
    assert summary["before"]["jumps"] is None  # no video
    assert summary["facts"]["found"] == {"persons": 16}
    assert [reading["step"] for reading in summary["history"]] == [50, 100]
    assert (tmp_path / "a.html").read_text() == page(run)
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "a.json"}


def test_the_error_names_a_path_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot be written"):
        write(tmp_path / "file" / "a.html", tmp_path / "a.json", run)


def test_the_numbers_of_the_recipe_are_described():
    notes = recipe_table.notes_of(Recipe)
    missing = {
        name
        for name, value in Recipe().to_dict().items()
        if not notes.get(name) and not isinstance(value, dict)  # a view's numbers have their own
    }
    assert not missing
    assert "M" in notes["power"]
