"""A page holds all that it shows, and texts stay texts."""

import base64
import math
import re

import cv2
import numpy as np
import pytest

from posekit.output import html

TEXT = '<b>a & "b"</b> \''


def inside(element: str) -> str:
    return re.sub(r"<[^>]*>", "", element)


def test_a_page_refers_to_nothing_outside_itself():
    image = np.zeros((8, 6, 3), np.uint8)
    parts = [html.figure(image, "black"), html.line_chart("a", [0, 1], {"b": [0.0, 1.0]})]
    page = html.page("all & inside", parts)
    assert "<title>all &amp; inside</title>" in page
    assert not re.search(r"(src|href)=.(?!data:)|https?://|@import|url\(|<script", page)


@pytest.mark.parametrize(
    "element",
    [
        html.heading(TEXT, 1),
        html.heading(TEXT, kind="good"),
        html.paragraph(TEXT),
        html.bullets([TEXT]),
        html.table([TEXT], [[TEXT]]),
        html.figure(np.zeros((8, 6, 3), np.uint8), TEXT),
        html.line_chart(TEXT, [0, 1], {TEXT: [0.0, 1.0]}, x_label=TEXT),
        html.bar_chart(TEXT, {TEXT: [0.5]}, [TEXT]),
    ],
    ids=["h1", "h2", "p", "ul", "table", "figure", "lines", "bars"],
)
def test_markup_in_a_text_is_shown_and_not_obeyed(element):
    assert "<b>" not in element
    assert html.escape(TEXT) in inside(element)


def test_tables_have_a_title_row_only_where_there_are_titles():
    assert html.table((), [["a", "b"]]) == "<table><tr><td>a</td><td>b</td></tr></table>"
    assert "<tr><th>x</th></tr>" in html.table(["x"], [])
    assert 'class="left"' in html.table((), [["a"]], left=True)
    assert html.bullets([]) == ""


def test_a_figure_embeds_its_image_in_rgb():
    """Red stays red: JPEG at OpenCV's default quality keeps a flat color within 8 levels."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    coded = re.search(r"base64,([^\"]+)", html.figure(red, "red"))[1]
    back = cv2.imdecode(np.frombuffer(base64.b64decode(coded), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(back[:, :, ::-1].astype(int) - red).max() <= 8


def points(chart: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r'<polyline points="([^"]+)"', chart)
    ]


def test_a_chart_leaves_out_values_that_are_not_finite():
    chart = html.line_chart("a", [0, 1, 2, 3], {"b": [0.1, math.nan, None, 0.3], "c": [None] * 4})
    (curve,) = points(chart)
    assert len(curve) == 2
    assert "nan" not in chart
    assert ">c<" not in chart
    assert html.line_chart("a", [0, 1], {"b": [math.nan, math.inf]}) == ""


def test_curves_are_drawn_to_the_scale_of_their_axis():
    chart = html.line_chart("a", [0, 5, 10], {"b": [0.0, 0.25, 1.0]}, y_range=(0, 1), diagonal=True)
    diagonal, curve = points(chart)
    (left, bottom), (right, top) = diagonal
    assert curve[0] == (left, bottom)
    assert curve[2] == (right, top)
    assert curve[1] == pytest.approx(((left + right) / 2, bottom + (top - bottom) / 4), abs=0.1)


def test_an_axis_without_a_range_holds_zero_and_every_value():
    (curve,) = points(html.line_chart("a", [0, 1, 2], {"b": [-2.0, 1.0, 3.0]}))
    heights = [y for _, y in curve]
    assert heights == sorted(heights, reverse=True)
    assert ">-2<" in html.line_chart("a", [0, 1, 2], {"b": [-2.0, 1.0, 3.0]})
    assert ">0<" in html.line_chart("a", [0, 1, 2], {"b": [2.0, 1.0, 3.0]})


def test_bars_are_as_long_as_their_values_and_missing_ones_are_left_out():
    chart = html.bar_chart("a", {"x": [0.5, None], "y": [1.0, 2.0]}, ["first", "second"])
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    assert len(widths) == 3
    assert widths[1] == widths[2] == 2 * widths[0]  # values beyond 1 end at the axis
