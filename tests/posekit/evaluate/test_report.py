"""The page of `posekit eval`: the result in a sentence, and a second model beside the first."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import posekit
from posekit.bundle import Bundle
from posekit.evaluate import predict, read_annotations, score
from posekit.evaluate.outcome import Run, report
from posekit.evaluate.report import page
from posekit.evaluate.score import Evaluation
from tests.support.assets import shipped
from tests.support.labels import own_prediction


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A model whose own prediction is the label, and one that is off by a tenth of the box."""
    estimator = posekit.load("movenet-lightning", "cpu", 1, flip=False, boxes="full")
    image = shipped("tests/data/coco_000000397133.jpg")
    labels = own_prediction(estimator, image, tmp_path_factory.mktemp("labels"))
    read = read_annotations(labels, image.parent)
    spec = estimator.runtime.spec
    first = score(predict(estimator, read, skeleton=spec.skeleton), read, spec)
    height = read.boxes.xyxy[0, 3] - read.boxes.xyxy[0, 1]
    second = dataclasses.replace(first, points=first.points + height / 10)
    return Run(estimator.runtime, first), Run(estimator.runtime, second)


def shown(runs: tuple[Run, ...], **changes: Any) -> str:
    """The page of the first run, compared with the others; changes: of the difference."""
    result = report(list(runs), boxes="gt", annotations=Path("labels.json"))
    if len(runs) > 1:
        result["comparison"]["model"]["name"] = "other"
        result["comparison"]["difference"] |= changes
    return page(runs[0].evaluation, result, runs[0].runtime.spec.skeleton)


def box(text: str) -> str:
    return re.search(r'<div class="verdict.*?</div>', text)[0]


def test_the_result_is_a_sentence_with_its_intervals(runs: tuple[Run, Run]) -> None:
    text = box(shown(runs[:1]))
    assert "movenet-lightning: AP 1.000 (1.000 to 1.000)" in text
    assert "1 labeled people (1 found) in 1 images" in text


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([0.05, 0.02, 0.08], "is better than other: AP +0.050, 95 % interval +0.020 to +0.080."),
        ([-0.05, -0.08, -0.02], "is worse than other: AP -0.050"),
        ([0.05, -0.02, 0.08], "is not clearly apart from other"),
    ],
)
def test_a_comparison_says_which_model_is_better_only_if_it_is_significant(
    runs: tuple[Run, Run], cell: list[float], words: str
) -> None:
    assert words in box(shown(runs, AP=cell))


def test_the_second_model_stands_beside_the_first(runs: tuple[Run, Run]) -> None:
    text = shown(runs)
    assert "<h1>movenet-lightning and other on" in text
    head, *rows = re.findall(r"<tr>(.*?)</tr>", text.split("All figures")[1].split("</table>")[0])
    titles = re.findall("<th>(.*?)</th>", head)
    assert titles == ["", "movenet-lightning", "other", "difference, paired"]
    row = next(re.findall("<td>(.*?)</td>", row) for row in rows if "<td>PCK@0.05 box<" in row)
    assert row[1].startswith("1.000")
    assert row[2].startswith("0.000")
    assert row[3].startswith("+1.000")
    curves = re.findall(r'aria-label="PCK relative.*?</svg>', text)
    assert len(curves) >= 2
    for chart in curves:
        assert chart.count('class="curve"') == 2
        assert ">other<" in chart
    bars = re.search(r'aria-label="PCK@0.2 torso".*?</svg>', text)
    assert bars[0].count('fill="#1f6feb"') > 10
    assert ">other<" in bars[0]


def test_axes_have_titles_and_what_few_read_is_folded(runs: tuple[Run, Run]) -> None:
    text = shown(runs[:1])
    for title in ("Threshold, share of the length", "Right keypoints, %"):
        assert f">{title}</text>" in text
    folded = re.findall(r"<summary>(.*?)</summary>", text)
    assert "How it was measured" in folded
    assert "All figures with 95 % intervals" in folded
    before = text[: text.index("<details")]
    assert "sha256" not in before
    bundle: Bundle = runs[0].runtime.bundle
    assert bundle.sha256 in text


def test_the_evaluation_is_left_as_it_was(runs: tuple[Run, Run]) -> None:
    evaluation: Evaluation = runs[0].evaluation
    points = evaluation.points.copy()
    shown(runs)
    assert (evaluation.points == points).all()
