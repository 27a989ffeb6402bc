"""Bars and curves as SVG, without scripts."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 64, 430, 16, 236
"""Of a plot of curves, in its own units."""
LABEL_HEIGHT = 16
COLORS = 8
DASHES = ("", "6 3", "2 3")
"""The second and third round of colors."""


@dataclass(frozen=True)
class Bars:
    """A horizontal bar a row; `low` and `high` are whiskers where given."""

    title: str
    rows: Sequence[tuple[str, float]]
    whiskers: Sequence[tuple[float, float]] = ()

    def html(self) -> str:
        values = [value for _, value in self.rows] + [end for pair in self.whiskers for end in pair]
        lowest, highest = min(0.0, *values), max(0.0, *values)
        unit = 360 / (highest - lowest or 1)

        def at(value: float) -> float:
            return round(260 + (value - lowest) * unit, 1)

        parts = []
        for n, (name, value) in enumerate(self.rows):
            y = 22 * n + 4
            left, right = sorted((at(0.0), at(value)))
            parts.append(_text(252, y + 12, name, "end"))
            parts.append(f'<rect x="{left}" y="{y}" width="{right - left:.1f}" height="14"/>')
            end = right
            if self.whiskers:
                low, high = (at(end) for end in self.whiskers[n])
                parts.append(f'<path d="M{low} {y + 7}H{high}"/>')
                end = max(right, high)
            shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
            parts.append(_text(end + 6, y + 12, shown, "start"))
        return _svg(self.title, 700, 22 * len(self.rows) + 8, parts)


@dataclass(frozen=True)
class Lines:
    """Curves over a common axis, each named at its end; the y axis includes 0.

    axes: titles of x and y.
    """

    title: str
    curves: dict[str, Sequence[tuple[float, float]]]
    axes: tuple[str, str]
    diagonal: bool = False

    def html(self) -> str:
        xs, ys = ([p[i] for curve in self.curves.values() for p in curve] for i in (0, 1))
        across, up = ticks(min(xs), max(xs)), ticks(min(0.0, *ys), max(0.0, *ys))
        scale = _Scale((across[0], across[-1]), (up[0], up[-1]))
        parts = [*_axes(scale, across, up, self.axes)]
        if self.diagonal:
            ends = max(across[0], up[0]), min(across[-1], up[-1])
            path = "L".join(scale.at(end, end) for end in ends)
            parts.append(f'<path class="axis" d="M{path}"/>')
        for n, curve in enumerate(self.curves.values()):
            path = "L".join(scale.at(*point) for point in curve)
            dash = DASHES[n // COLORS % len(DASHES)]
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            parts.append(f'<path class="c{n % COLORS}"{dashed} d="M{path}"/>')
        ends = [scale.y(curve[-1][1]) for curve in self.curves.values()]
        for n, (name, y) in enumerate(zip(self.curves, spread(ends), strict=True)):
            parts.append(_text(RIGHT + 8, round(y + 4, 1), name, "start", f"c{n % COLORS}"))
        height = max(BOTTOM + 44, LABEL_HEIGHT * (len(ends) + 1))
        return _svg(self.title, 700, height, parts)


@dataclass(frozen=True)
class _Scale:
    """From values to the plot's units."""

    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.across
        return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x):.1f} {self.y(y):.1f}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from at or below `low` to at or above `high`, at most `most` of them."""
    high = high if high > low else low + 1.0
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9) >= most:
        leading = round(step / 10.0 ** math.floor(math.log10(step) + 1e-9))
        step *= 2.5 if leading == 2 else 2.0
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * n, 10) for n in range(first, last + 1)]


def spread(places: Sequence[float]) -> list[float]:
    """The places moved apart to LABEL_HEIGHT, in their order, none above the plot."""
    order = sorted(range(len(places)), key=places.__getitem__)
    room = max(BOTTOM, LABEL_HEIGHT * len(places))
    moved = list(places)
    below = TOP - LABEL_HEIGHT
    for n in order:
        moved[n] = below = max(places[n], below + LABEL_HEIGHT)
    above = room + LABEL_HEIGHT
    for n in reversed(order):
        moved[n] = above = min(moved[n], above - LABEL_HEIGHT)
    return moved


def _axes(
    scale: _Scale, across: Sequence[float], up: Sequence[float], titles: tuple[str, str]
) -> list[str]:
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>']
    parts += [_text(scale.x(x), BOTTOM + 16, f"{x:g}", "middle") for x in across]
    for y in up:
        place = round(scale.y(y), 1)
        parts.append(f'<path class="grid" d="M{LEFT} {place}H{RIGHT}"/>')
        parts.append(_text(LEFT - 6, place + 4, f"{y:g}", "end"))
    middle_x, middle_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    parts.append(_text(middle_x, BOTTOM + 36, titles[0], "middle"))
    turned = f'transform="rotate(-90 14 {middle_y})"'
    parts.append(_text(14, middle_y, titles[1], "middle", more=turned))
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", *, more: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    where = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"{" " if more else ""}{more}'
    return f"<text{attribute} {where}>{html.escape(text)}</text>"


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    caption = html.escape(title)
    return (
        f"<figure><figcaption>{caption}</figcaption>\n"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{caption}">'
        + "\n".join(parts)
        + "</svg></figure>"
    )
