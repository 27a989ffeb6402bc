"""SVG charts for the reports: curves, bars, and values with their intervals and limits.

Drawn for a width of 480 px and scaled down by the page where a screen is narrower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLORS = ("#1f6feb", "#d9730d", "#2da44e", "#8250df", "#bf3989")
"""Colors of a chart's curves and bars, in order."""

GOOD, BAD, NEUTRAL = "#1a7f37", "#cf222e", "#57606a"
"""Colors of values that keep their limit, exceed it, or have none."""

_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT = 480, 58, 16, 32, 210
_TICKS, _MARKED = 5, 24
_CHARACTER = 7.4
"""Width of a character of the legend, about, in px."""
_BAR_LEFT, _BAR = 130, 11
_ROW, _EDGE = 46, 28
"""Height of a row of an interval chart, and where its axis begins and ends, px."""


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    title: what it shows, with the unit.  low, high: its ends; None: rounded from the values.
    percent: numbers are shares and shown times 100.
    """

    title: str = ""
    low: float | None = None
    high: float | None = None
    percent: bool = False

    def span(self, values: Iterable[float]) -> _Span:
        """Ends and ticks for these values; the ends given stay, the others are ticks."""
        known = list(values)
        low = min(known, default=0.0) if self.low is None else self.low
        high = max(known, default=1.0) if self.high is None else self.high
        if high <= low:
            low, high = low - 0.5 * (self.low is None), low + 0.5
        step = round_step((high - low) / _TICKS)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [n * step for n in range(first, last + 1)]
        low = ticks[0] if self.low is None else low
        high = ticks[-1] if self.high is None else high
        inside = [each for each in ticks if low - 1e-9 <= each <= high + 1e-9]
        return _Span(low, high, tuple(inside), self.number_format(step))

    def number_format(self, step: float) -> str:
        """Format of the numbers of ticks `step` apart: as many decimals as they need."""
        step = 100 * step if self.percent else step
        decimals = next((n for n in range(6) if math.isclose(round(step, n), step)), 6)
        return f"{{:.{decimals}f}}"

    def text(self, value: float, form: str) -> str:
        """A number of the axis."""
        scaled = 100 * value if self.percent else value
        return form.format(scaled + 0.0)


@dataclass(frozen=True)
class _Span:
    low: float
    high: float
    ticks: tuple[float, ...]
    form: str

    def share(self, value: float) -> float:
        """Where a value lies from `low` (0) to `high` (1); beyond, on the end."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def round_step(step: float) -> float:
    """The next number of 1, 2, 2.5 or 5 times a power of ten that is not smaller."""
    power = float(10.0 ** math.floor(math.log10(step)))
    return next(n * power for n in (1.0, 2.0, 2.5, 5.0, 10.0) if n * power >= step * (1 - 1e-9))


def line_chart(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    *,
    x_axis: Axis = Axis(),
    y_axis: Axis = Axis(),
    diagonal: bool = False,
) -> str:
    """Curves as an SVG; None, NaN and infinite values are left out.

    diagonal: also a dashed line from corner to corner.  Empty where no value is finite.
    """
    known = {
        name: [(a, b) for a, b in zip(x, values, strict=True) if b is not None and math.isfinite(b)]
        for name, values in curves.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return ""
    across = x_axis.span(x)
    upward = y_axis.span(b for points in known.values() for _, b in points)
    body = [_title(title), _grid(across, upward, x_axis=x_axis, y_axis=y_axis)]
    if diagonal:
        ends = _path([(across.low, upward.low), (across.high, upward.high)], across, upward)
        body.append(f'<polyline points="{ends}" class="diagonal"/>')
    for n, points in enumerate(known.values()):
        body.append(_curve(_path(points, across, upward), COLORS[n % len(COLORS)]))
    legend, height = _legend(list(known), x=_LEFT, y=_TOP + _PLOT + 54)
    return _svg(title, [*body, legend], height)


def bar_chart(
    title: str,
    groups: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    *,
    axis: Axis = Axis(low=0, high=1),
) -> str:
    """Horizontal bars as an SVG: for each group one bar for each of `names`."""
    step = _BAR * len(names) + 9
    span = axis.span([0.0, *(v for row in groups.values() for v in row if v is not None)])
    width = _WIDTH - _BAR_LEFT - 52
    bottom = _TOP + len(groups) * step
    body = [_title(title)]
    body += [
        _tick(_BAR_LEFT + width * span.share(tick), bottom, axis.text(tick, span.form))
        for tick in span.ticks
    ]
    for row, (group, values) in enumerate(groups.items()):
        y = _TOP + row * step
        middle = y + _BAR * len(names) / 2 + 4
        body.append(_text(_BAR_LEFT - 8, middle, group, kind="end"))
        for n, value in enumerate(values):
            if value is None:
                continue
            length, top = width * span.share(value), y + _BAR * n
            body.append(
                f'<rect x="{_BAR_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR - 1}" '
                f'fill="{COLORS[n % len(COLORS)]}"/>'
            )
            shown = axis.text(value, "{:.1f}" if axis.percent else "{:.3f}")
            body.append(_text(_BAR_LEFT + 4 + length, top + _BAR - 2, shown))
    body.append(_text(_BAR_LEFT + width / 2, bottom + 34, axis.title, kind="middle"))
    legend, height = _legend(names, x=_BAR_LEFT, y=bottom + 54)
    return _svg(title, [*body, legend], height)


@dataclass(frozen=True)
class Interval:
    """A row of an interval chart.

    name: what was measured.  shown: its value in words.  value, low, high: None where undefined.
    limit: what the value is compared with, None without.  passed: None where nothing decides.
    """

    name: str
    shown: str
    value: float
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    passed: bool | None = None


def interval_chart(title: str, rows: Sequence[Interval], axis: Axis = Axis()) -> str:
    """Values with intervals and limits, one a row, over a common axis. Empty without rows."""
    if not rows:
        return ""
    known = [v for row in rows for v in (row.value, row.low, row.high, row.limit) if v is not None]
    span = axis.span([0.0, *known])
    left, width = _EDGE, _WIDTH - 2 * _EDGE
    bottom = _TOP + len(rows) * _ROW + 4
    body = [_title(title)]
    for tick in span.ticks:
        zero = " axis" if abs(tick) < 1e-12 else ""
        body.append(
            _tick(left + width * span.share(tick), bottom, axis.text(tick, span.form), kind=zero)
        )
    for n, row in enumerate(rows):
        body.append(_interval(row, span, _TOP + n * _ROW))
    body.append(_text(_WIDTH / 2, bottom + 36, axis.title, kind="middle"))
    return _svg(title, body, bottom + 46)


def _interval(row: Interval, span: _Span, top: float) -> str:
    color = NEUTRAL if row.passed is None else GOOD if row.passed else BAD
    mark = "" if row.passed is None else "✓ " if row.passed else "✗ "

    def x(value: float) -> float:
        return _EDGE + (_WIDTH - 2 * _EDGE) * span.share(value)

    y = top + 32
    parts = [
        f'<rect x="8" y="{top + 5}" width="{_WIDTH - 16}" height="16" fill="#fff"/>',
        f'<text x="8" y="{top + 18}" fill="{color}">{escape(mark + row.name)}</text>',
        _text(_WIDTH - 8, top + 18, row.shown, kind="end"),
    ]
    if row.limit is not None:
        at = x(row.limit)
        parts.append(f'<path d="M{at:.1f} {y - 9}V{y + 9}" class="limit"/>')
    if row.low is not None and row.high is not None:
        parts.append(
            f'<path d="M{x(row.low):.1f} {y}H{x(row.high):.1f}" stroke="{color}" class="curve"/>'
        )
    parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y}" r="5" fill="{color}"/>')
    return "".join(parts)


def _path(points: Iterable[tuple[float, float]], across: _Span, upward: _Span) -> str:
    """A polyline's `points`."""
    width = _WIDTH - _LEFT - _RIGHT
    return " ".join(
        f"{_LEFT + width * across.share(a):.1f},{_TOP + _PLOT * (1 - upward.share(b)):.1f}"
        for a, b in points
    )


def _curve(points: str, color: str) -> str:
    """A polyline, with its points marked where they are few."""
    line = f'<polyline points="{points}" stroke="{color}" class="curve"/>'
    places = points.split(" ")
    if len(places) > _MARKED:
        return line
    dots = (place.split(",") for place in places)
    return line + "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>' for x, y in dots)


def _grid(across: _Span, upward: _Span, *, x_axis: Axis, y_axis: Axis) -> str:
    """Lines, numbers and titles of both axes."""
    width, bottom = _WIDTH - _LEFT - _RIGHT, _TOP + _PLOT
    lines = [
        f'<path d="M{_LEFT} {bottom - _PLOT * upward.share(tick):.1f}H{_LEFT + width}" '
        'class="grid"/>'
        + _text(
            _LEFT - 6,
            bottom - _PLOT * upward.share(tick) + 4,
            y_axis.text(tick, upward.form),
            kind="end",
        )
        for tick in upward.ticks
    ]
    for tick in across.ticks:
        place = _LEFT + width * across.share(tick)
        lines.append(_text(place, bottom + 16, x_axis.text(tick, across.form), kind="middle"))
    lines.append(_text(_LEFT + width / 2, bottom + 34, x_axis.title, kind="middle"))
    if y_axis.title:
        y = _TOP + _PLOT / 2
        lines.append(
            f'<text x="14" y="{y:g}" class="middle" transform="rotate(-90 14 {y:g})">'
            f"{escape(y_axis.title)}</text>"
        )
    return "".join(lines)


def _tick(x: float, bottom: float, number: str, *, kind: str = "") -> str:
    """A vertical line of the grid, and its number below."""
    line = f'<path d="M{x:.1f} {_TOP}V{bottom}" class="grid{kind}"/>'
    return line + _text(x, bottom + 16, number, kind="middle")


def _text(x: float, y: float, text: str, *, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(text)}</text>' if text else ""


def _title(text: str) -> str:
    return f'<text x="8" y="16" class="title">{escape(text)}</text>'


def _legend(names: Sequence[str], *, x: float, y: float) -> tuple[str, float]:
    """Each name beside its color, as many a line as fit; and where a chart with it ends."""
    parts, at = [], x
    for n, name in enumerate(names):
        width = 22 + _CHARACTER * len(name)
        if at > x and at + width > _WIDTH:
            at, y = x, y + 18
        color = COLORS[n % len(COLORS)]
        parts.append(f'<rect x="{at:.1f}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        parts.append(_text(at + 14, y, name))
        at += width
    return "".join(parts), y + 10


def _svg(title: str, body: Iterable[str], height: float) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(body)}</svg>'
    )
