"""A page holds all that it shows, and texts stay texts."""

import base64
import re

import cv2
import numpy as np
import pytest

from posekit.output import charts, html

TEXT = '<b>a & "b"</b> \''


def inside(element: str) -> str:
    return re.sub(r"<[^>]*>", "", element)


def test_a_page_refers_to_nothing_outside_itself():
    image = np.zeros((8, 6, 3), np.uint8)
    parts = [html.figure(image, "black"), charts.line_chart("a", [0, 1], {"b": [0.0, 1.0]})]
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
        html.verdict(TEXT, [TEXT]),
        html.details(TEXT, [html.paragraph(TEXT)]),
        charts.line_chart(TEXT, [0, 1], {TEXT: [0.0, 1.0]}, x_axis=charts.Axis(TEXT)),
        charts.bar_chart(TEXT, {TEXT: [0.5]}, [TEXT]),
        charts.interval_chart(TEXT, [charts.Interval(TEXT, TEXT, 1.0)], charts.Axis(TEXT)),
    ],
    ids=[
        *("h1", "h2", "p", "ul", "table", "figure", "verdict", "details", "lines", "bars"),
        "intervals",
    ],
)
def test_markup_in_a_text_is_shown_and_not_obeyed(element):
    assert "<b>" not in element
    assert html.escape(TEXT) in inside(element)


def test_tables_have_a_title_row_only_where_there_are_titles():
    assert html.table((), [["a", "b"]]) == (
        '<div class="scroll"><table><tr><td>a</td><td>b</td></tr></table></div>'
    )
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


def test_a_folded_section_is_closed_and_an_empty_one_is_left_out():
    section = html.details("all numbers", [html.paragraph("one"), html.paragraph("two")])
    assert section.startswith("<details><summary>all numbers</summary>")
    assert html.details("nothing", ["", ""]) == ""
    assert html.grid([]) == ""


def test_a_page_fits_a_telephone():
    """It is laid out for the screen's own width; wide tables scroll, images and charts shrink."""
    page = html.page("a", [html.table(["x"], [["y"]])])
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in page
    assert '<div class="scroll"><table>' in page
    assert "img,svg{max-width:100%;height:auto" in page
