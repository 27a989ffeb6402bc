"""Reports as one self-contained HTML page: style, tables, figures and SVG charts.

No script, no font, no reference to another file or host.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence

import cv2

from posekit.errors import InputError
from posekit.types import UInt8

COLORS = ("#1f6feb", "#d9730d", "#2da44e", "#8250df", "#bf3989")
"""Colors of a chart's curves and bars, in order."""
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
color:#1f2328;background:#fff}table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;
text-align:right;border-bottom:1px solid #d8dee4;vertical-align:top}td:first-child,
th:first-child,.left td{text-align:left}svg{margin:.5em 1em .5em 0;vertical-align:top}
svg text{font:11px system-ui,sans-serif}svg .title{font-weight:600;font-size:13px}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}svg .grid{stroke:#d8dee4}
svg .diagonal{stroke:#8c959f;stroke-dasharray:4}svg .curve{fill:none;stroke-width:2}
figure{display:inline-block;margin:.4em;font-size:12px}figcaption{max-width:34em}
.note{color:#59636e}.good{color:#1a7f37}.bad{color:#cf222e;font-weight:600}
.warnings{background:#fff8c5}"""
_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT = 460, 46, 14, 28, 200
_LEGEND_COLUMNS, _TICKS = 4, 5
_BAR_LEFT, _BAR_WIDTH = 132, 250


def escape(text: str) -> str:
    """`text` for an element or a quoted attribute."""
    return html.escape(text)


def page(title: str, parts: Iterable[str]) -> str:
    """The document. title: plain text, for the browser's tab.  parts: HTML elements, in order."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def heading(text: str, level: int = 2, kind: str = "") -> str:
    """A heading of plain text; kind: good, bad or nothing."""
    style = f' class="{kind}"' if kind else ""
    return f"<h{level}{style}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "note") -> str:
    """A paragraph of plain text; kind: note (gray), good, bad or nothing."""
    style = f' class="{kind}"' if kind else ""
    return f"<p{style}>{escape(text)}</p>"


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """A list of plain texts; kind: warnings or nothing. Empty where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    style = f' class="{kind}"' if kind else ""
    return f"<ul{style}>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: bool = False) -> str:
    """A table of plain texts, columns right-aligned but the first.

    head: column titles; empty for no title row.  left: every column left-aligned.
    """
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = [f"<tr>{top}</tr>"] if top else []
    lines += [
        "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows
    ]
    style = ' class="left"' if left else ""
    return f"<table{style}>{''.join(lines)}</table>"


def figure(image: UInt8, caption: str) -> str:
    """An image uint8 (H, W, 3) RGB as an embedded JPEG, and its caption. Raises InputError."""
    written, data = cv2.imencode(".jpg", image[:, :, ::-1])
    if not written:
        raise InputError(f"figure: OpenCV cannot encode an image of shape {image.shape} as JPEG")
    coded, text = base64.b64encode(data.tobytes()).decode(), escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{coded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def line_chart(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    *,
    x_label: str = "",
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """Curves over [0, max(x)] as an SVG; None, NaN and infinite values are left out.

    y_range: None for one that holds 0 and all values.  diagonal: also a dashed line from corner
    to corner.  Empty where no value is finite.
    """
    known = {
        name: [(a, b) for a, b in zip(x, values, strict=True) if b is not None and math.isfinite(b)]
        for name, values in curves.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return ""
    values = [b for points in known.values() for _, b in points]
    axes = _Axes(max(x) or 1.0, *(y_range or (min(0.0, *values), max(1e-9, *values) * 1.05)))
    body = [_title(title), axes.grid()]
    if diagonal:
        corners = axes.path([(0.0, axes.low), (axes.right, axes.high)])
        body.append(f'<polyline points="{corners}" class="diagonal"/>')
    for n, points in enumerate(known.values()):
        color = COLORS[n % len(COLORS)]
        body.append(f'<polyline points="{axes.path(points)}" stroke="{color}" class="curve"/>')
    y = _TOP + _PLOT + 30
    if x_label:
        body.append(f'<text x="{_WIDTH - 6}" y="{y}" class="end">{escape(x_label)}</text>')
        y += 15
    legend, height = _legend(list(known), x=_LEFT, y=y)
    return _svg([*body, legend], height)


def bar_chart(
    title: str, groups: Mapping[str, Sequence[float | None]], names: Sequence[str]
) -> str:
    """Horizontal bars over [0, 1] as an SVG: for each group one bar for each of `names`."""
    body = [_title(title)]
    step = 10 * len(names) + 8
    for row, (group, values) in enumerate(groups.items()):
        y = _TOP + row * step
        middle = y + 5 * len(names) + 3
        body.append(f'<text x="{_BAR_LEFT - 6}" y="{middle}" class="end">{escape(group)}</text>')
        for n, value in enumerate(values):
            if value is None:
                continue
            width, top = _BAR_WIDTH * min(max(value, 0), 1), y + 10 * n
            body.append(
                f'<rect x="{_BAR_LEFT}" y="{top}" width="{width:.1f}" height="9" '
                f'fill="{COLORS[n % len(COLORS)]}"/>'
                f'<text x="{_BAR_LEFT + 4 + width:.1f}" y="{top + 8}">{value:.3f}</text>'
            )
    legend, height = _legend(names, x=_BAR_LEFT, y=_TOP + len(groups) * step + 12)
    return _svg([*body, legend], height)


class _Axes:
    """From values to SVG px of a line chart; x from 0 to `right`, y from `low` to `high`."""

    def __init__(self, right: float, low: float, high: float) -> None:
        self.right, self.low, self.high = right, low, high

    def place(self, a: float, b: float) -> tuple[float, float]:
        """(x, y), px; y values beyond the axis lie on its end."""
        share = (min(max(b, self.low), self.high) - self.low) / (self.high - self.low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * a / self.right, _TOP + _PLOT * (1 - share)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """A polyline's `points`."""
        return " ".join("{:.1f},{:.1f}".format(*self.place(a, b)) for a, b in points)

    def grid(self) -> str:
        """Horizontal lines and the numbers of both axes."""
        lines = []
        for n in range(_TICKS + 1):
            level = self.low + (self.high - self.low) * n / _TICKS
            across = self.right * n / _TICKS
            x, y = self.place(0, level)
            lines += [
                f'<path d="M{x:.0f} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>',
                f'<text x="{x - 4:.0f}" y="{y + 4:.0f}" class="end">{level:.3g}</text>',
                f'<text x="{self.place(across, 0)[0]:.0f}" y="{_TOP + _PLOT + 14}" '
                f'class="middle">{across:g}</text>',
            ]
        return "".join(lines)


def _title(text: str) -> str:
    return f'<text x="8" y="16" class="title">{escape(text)}</text>'


def _legend(names: Sequence[str], *, x: int, y: int) -> tuple[str, int]:
    """Each name in its color, a few a line; and the height of a chart that ends with it."""
    across = (_WIDTH - x) // _LEGEND_COLUMNS
    texts = [
        f'<text x="{x + across * (n % _LEGEND_COLUMNS)}" y="{y + 14 * (n // _LEGEND_COLUMNS)}" '
        f'fill="{COLORS[n % len(COLORS)]}">{escape(name)}</text>'
        for n, name in enumerate(names)
    ]
    return "".join(texts), y + 14 * ((len(names) - 1) // _LEGEND_COLUMNS) + 6


def _svg(body: Iterable[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
        f"{''.join(body)}</svg>"
    )
