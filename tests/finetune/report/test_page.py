import dataclasses
import json
import re

import numpy as np
import pytest

from posekit.errors import SourceError
from posekit_finetune.assess.checks import Check
from posekit_finetune.assess.gate import judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.recipe import Recipe
from posekit_finetune.report.page import SHOWN, Run, notes_of, page, write
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
        reason="better",
        facts=FACTS,
        recipe=Recipe(rate=3e-4),
        before=before,
        persons=persons,
        after=after,
        verdict=judge(before, after, checks=[check]),
        history=monitor.history,
    )


def test_the_page_is_self_contained(run):
    text = page(run)
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "figure &lt;b&gt;" in text  # names are escaped


def test_the_page_shows_labels_verdict_indicators_recipe_data_and_time(run):
    text = page(run)
    assert "Labels used: none." in text
    assert (">Passed<" in text) == run.verdict.passed
    for reason in run.verdict.reasons:
        assert reason in text
    for finding in run.verdict.findings:
        assert (f"<td>{finding.name}:" in text) == finding.defined
    for value in ("f00d" * 16, "beef" * 16, "peak_memory_mb", "versions.torch", "PCK@0.2"):
        assert value in text
    for name in Recipe().to_dict():
        assert f"<td>{name}" in text
    assert f"<td>0.0003</td><td>{Recipe().rate:g}</td>" in text  # the setting and the default


def test_curves_contain_the_start_and_every_reading(run):
    text = page(run)
    assert text.count("<svg") == 8
    line = re.search(r'<polyline points="([^"]+)" stroke="[^"]+" class="curve"/>', text)
    assert len(line[1].split()) == 1 + len(run.history)


def test_images_show_the_persons_that_changed_most_and_may_be_left_out(run):
    text = page(run)
    assert text.count("data:image/jpeg;base64,") == min(SHOWN, COUNT)
    moved = np.linalg.norm(run.after.points - run.before.points, axis=2) / run.before.side
    most = int(np.minimum(moved, 0.2).mean(1).argmax())
    assert f"<figcaption>{most}.png" in text[: text.index("</figcaption>") + 20]
    private = page(run, images=False)
    assert "data:image" not in private
    assert ".png" not in private


def test_a_refusal_is_the_first_heading(run):
    refused = dataclasses.replace(run.verdict, passed=False, reasons=("it is worse & wrong",))
    text = page(dataclasses.replace(run, verdict=refused))
    assert "Refused: the old model stands" in text
    assert "it is worse &amp; wrong" in text


def test_without_a_verdict_the_reason_is_shown(run):
    text = page(
        dataclasses.replace(run, verdict=None, after=None, history=(), reason="nothing to learn")
    )
    assert "nothing to learn" in text
    assert "No training took place." in text


def test_both_files_are_written_and_the_json_is_valid(run, tmp_path):
    write(tmp_path / "a.html", tmp_path / "a.json", run)
    summary = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert summary["verdict"]["passed"] == run.verdict.passed
    assert summary["labels_used"] == "none"
    assert summary["recipe"]["rate"] == 3e-4
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
    notes = notes_of(Recipe)
    # A few are described by their name alone.
    missing = {name for name in Recipe().to_dict() if not notes.get(name)}
    assert len(missing) <= 6, missing
    assert "M" in notes["power"]
