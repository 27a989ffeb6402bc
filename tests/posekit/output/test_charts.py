"""Charts are drawn to the scale of their axes, whose numbers are round and titled."""

import itertools
import math
import re

import pytest

from posekit.output import charts
from posekit.output.charts import Axis, Interval


def points(chart: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r'<polyline points="([^"]+)"', chart)
    ]


def numbers(chart: str, kind: str) -> list[float]:
    """The numbers at an axis: `end` at the vertical one, `middle` at the horizontal one."""
    texts = re.findall(rf'class="{kind}">([^<]*)</text>', chart)
    return [float(text) for text in texts if re.fullmatch(r"-?[\d.]+", text)]


def test_a_chart_leaves_out_values_that_are_not_finite():
    curves = {"b": [0.1, math.nan, None, 0.3], "c": [None] * 4}
    chart = charts.line_chart("a", [0, 1, 2, 3], curves)
    (curve,) = points(chart)
    assert len(curve) == 2
    assert "nan" not in chart
    assert ">c<" not in chart
    assert charts.line_chart("a", [0, 1], {"b": [math.nan, math.inf]}) == ""


def test_curves_are_drawn_to_the_scale_of_their_axis():
    axis = Axis("share", 0, 1)
    chart = charts.line_chart("a", [0, 5, 10], {"b": [0.0, 0.25, 1.0]}, y_axis=axis, diagonal=True)
    diagonal, curve = points(chart)
    (left, bottom), (right, top) = diagonal
    assert curve[0] == (left, bottom)
    assert curve[2] == (right, top)
    assert curve[1] == pytest.approx(((left + right) / 2, bottom + (top - bottom) / 4), abs=0.1)


@pytest.mark.parametrize(
    ("low", "high"), [(0.7834, 0.8521), (-2.0, 3.0), (0.0, 1399.0), (3e-5, 8.1e-5), (2.0, 2.0)]
)
def test_an_axis_has_a_few_round_numbers_around_every_value(low, high):
    chart = charts.line_chart("a", [0, 1], {"b": [low, high]})
    shown = numbers(chart, "end")
    assert 3 <= len(shown) <= 8
    assert shown == sorted(shown)
    assert shown[0] <= low
    assert high <= shown[-1]
    steps = [b - a for a, b in itertools.pairwise(shown)]
    digits = {f"{step:.1e}"[:3] for step in steps}
    assert len(digits) == 1
    assert digits <= {"1.0", "2.0", "2.5", "5.0"}


def test_axes_have_titles_and_shares_are_shown_in_percent():
    chart = charts.line_chart(
        "a",
        [0, 700, 1400],
        {"b": [0.79, 0.81, 0.83]},
        x_axis=Axis("Training step", low=0),
        y_axis=Axis("Body joints, %", percent=True),
    )
    assert ">Training step</text>" in chart
    assert ">Body joints, %</text>" in chart
    assert numbers(chart, "end") == [79, 80, 81, 82, 83]
    assert numbers(chart, "middle") == [0, 500, 1000, 1500]


def test_bars_are_as_long_as_their_values_and_missing_ones_are_left_out():
    chart = charts.bar_chart("a", {"x": [0.5, None], "y": [1.0, 2.0]}, ["first", "second"])
    bars = re.findall(r'<rect x="130"[^>]*width="([\d.]+)" height="10"', chart)
    widths = [float(w) for w in bars[:3]]
    assert widths[1] == widths[2] == 2 * widths[0]  # values beyond 1 end at the axis
    assert numbers(chart, "middle")[0] == 0
    assert numbers(chart, "middle")[-1] == 1


def test_an_interval_lies_between_its_ends_beside_its_limit():
    rows = [
        Interval("gain", "0.8 to 0.9", 0.1, low=0.0, high=0.2, limit=0.05, passed=True),
        Interval("loss", "", -0.1, low=-0.2, high=0.0, limit=-0.05, passed=False),
        Interval("other", "", 0.0),
    ]
    chart = charts.interval_chart("a", rows, Axis("Change", percent=True))
    values = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart)]
    limits = [
        float(x) for x in re.findall(r'<path d="M([\d.]+) [\d.]+V[\d.]+" class="limit"', chart)
    ]
    ends = re.findall(r'<path d="M([\d.]+) [\d.]+H([\d.]+)" stroke', chart)
    scale = (values[0] - values[1]) / 0.2
    zero = values[2]
    assert values[0] == pytest.approx(zero + 0.1 * scale, abs=0.2)
    assert limits == pytest.approx([zero + 0.05 * scale, zero - 0.05 * scale], abs=0.2)
    assert [float(x) for x in ends[0]] == pytest.approx([zero, zero + 0.2 * scale], abs=0.2)
    assert (chart.count("✓"), chart.count("✗")) == (1, 1)
    assert charts.interval_chart("a", []) == ""
