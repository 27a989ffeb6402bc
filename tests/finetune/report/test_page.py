import dataclasses
import json
import re

import numpy as np
import pytest

from posekit.errors import SourceError
from posekit_finetune.assess.gate import judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.label_check import Check
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.recipe import Recipe
from posekit_finetune.report.page import SHOWN, Run, chart, notes_of, page, write
from posekit_finetune.train.teacher import PseudoLabels
from tests.figures import drawn_model, figures, unsteady

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


def test_the_page_needs_nothing_from_outside(run):
    told = page(run)
    assert not re.search(r"(src|href)=\"(?!data:)", told)
    assert "<script" not in told
    assert "@import" not in told
    assert "url(" not in told
    assert "figure &lt;b&gt;" in told  # names are text, not markup


def test_the_page_tells_labels_verdict_indicators_recipe_data_and_time(run):
    told = page(run)
    assert "Labels used: <b>none</b>" in told
    assert (">Passed<" in told) == run.verdict.passed
    for reason in run.verdict.reasons:
        assert reason in told
    for finding in run.verdict.findings:
        assert (f"<td>{finding.name}:" in told) == finding.known
    for text in ("f00d" * 16, "beef" * 16, "peak_memory_mb", "versions.torch", "PCK@0.2"):
        assert text in told
    for name in Recipe().to_dict():
        assert f"<td>{name}" in told
    assert f"<td>0.0003</td><td>{Recipe().rate:g}</td>" in told  # set, beside the default


def test_curves_run_from_the_start_through_every_look(run):
    told = page(run)
    assert told.count("<svg") == 8
    line = re.search(r'<polyline points="([^"]+)" stroke="[^"]+" class="c"/>', told)
    assert len(line[1].split()) == 1 + len(run.history)


def test_pictures_show_whom_the_change_concerns_most_and_may_be_left_out(run):
    told = page(run)
    assert told.count("data:image/jpeg;base64,") == min(SHOWN, COUNT)
    far = np.linalg.norm(run.after.points - run.before.points, axis=2) / run.before.side
    most = int(np.minimum(far, 0.2).mean(1).argmax())
    assert f"<figcaption>{most}.png" in told[: told.index("</figcaption>") + 20]
    private = page(run, pictures=False)
    assert "data:image" not in private
    assert ".png" not in private


def test_a_refusal_stands_at_the_top(run):
    refused = dataclasses.replace(run.verdict, passed=False, reasons=("it is worse & wrong",))
    told = page(dataclasses.replace(run, verdict=refused))
    assert "Refused: the old model stands" in told
    assert "it is worse &amp; wrong" in told


def test_without_a_verdict_the_reason_is_told(run):
    told = page(
        dataclasses.replace(run, verdict=None, after=None, history=(), reason="nothing to learn")
    )
    assert "nothing to learn" in told
    assert "Nothing was learned." in told


def test_both_files_appear_and_the_json_is_json(run, tmp_path):
    write(tmp_path / "a.html", tmp_path / "a.json", run)
    told = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert told["verdict"]["passed"] == run.verdict.passed
    assert told["labels_used"] == "none"
    assert told["recipe"]["rate"] == 3e-4
    assert told["before"]["jumps"] is None  # no video
    assert told["facts"]["found"] == {"persons": 16}
    assert [reading["step"] for reading in told["history"]] == [50, 100]
    assert (tmp_path / "a.html").read_text() == page(run)
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "a.json"}


def test_a_place_that_cannot_be_written_to_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot be written"):
        write(tmp_path / "file" / "a.html", tmp_path / "a.json", run)


def test_every_number_of_the_recipe_says_what_it_is():
    notes = notes_of(Recipe)
    # A few say all with their name; more without a word would be an oversight.
    missing = {name for name in Recipe().to_dict() if not notes.get(name)}
    assert len(missing) <= 6, missing
    assert "M" in notes["power"]


def test_a_chart_leaves_out_what_is_not_a_number_and_none_is_no_chart():
    told = chart("a", [0, 1, 2], {"b": [0.1, float("nan"), 0.3]})
    assert len(re.search(r'points="([^"]+)"', told)[1].split()) == 2
    assert "nan" not in told
    assert chart("a", [0, 1], {"b": [float("nan")] * 2}) == ""
