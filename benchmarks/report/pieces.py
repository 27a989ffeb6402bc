"""What a report is made of: paragraphs, tables and plots, as Markdown and as HTML with SVG."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A head and rows of text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = "|" + "---|" * len(self.head)
        head, *rows = (
            "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|"
            for line in (self.head, *self.rows)
        )
        return "\n".join([head, rule, *rows])

    def html(self) -> str:
        head = "".join(f"<th>{marked(cell)}</th>" for cell in self.head)
        rows = (
            "<tr>" + "".join(f"<td>{marked(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(rows) + "</table></div>"


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
    """Curves over a common axis, both from their minimum to their maximum."""

    title: str
    curves: dict[str, Sequence[tuple[float, float]]]
    diagonal: bool = False

    def html(self) -> str:
        xs, ys = ([p[i] for curve in self.curves.values() for p in curve] for i in (0, 1))
        low_x, high_x = min(xs), max(xs)
        low_y, high_y = min(0.0, *ys), max(ys)

        def at(x: float, y: float) -> str:
            across = 50 + 380 * (x - low_x) / (high_x - low_x or 1)
            return f"{across:.1f} {220 - 200 * (y - low_y) / (high_y - low_y or 1):.1f}"

        parts = ['<path class="axis" d="M50 20V220H430"/>']
        if self.diagonal:
            ends = max(low_x, low_y), min(high_x, high_y)
            parts.append(f'<path class="axis" d="M{at(ends[0], ends[0])}L{at(ends[1], ends[1])}"/>')
        for n, (name, curve) in enumerate(self.curves.items()):
            path = "L".join(at(*point) for point in curve)
            parts.append(f'<path class="c{n % 8}" d="M{path}"/>')
            parts.append(_text(440, 30 + 18 * n, name, "start", f"c{n % 8}"))
        for x, y, anchor, value in (
            (50, 236, "middle", low_x),
            (430, 236, "middle", high_x),
            (44, 220, "end", low_y),
            (44, 26, "end", high_y),
        ):
            parts.append(_text(x, y, f"{value:.3g}", anchor))
        return _svg(self.title, 700, max(242, 40 + 18 * len(self.curves)), parts)


@dataclass(frozen=True)
class Aside:
    """A table that only docs/benchmarks.html has, and its introduction."""

    text: str
    table: Table

    def html(self) -> str:
        return page([self.text, self.table])


Piece = str | Table | Bars | Lines | Aside


def markdown(pieces: Sequence[Piece]) -> str:
    """Paragraphs and tables; plots and asides are for the page."""
    texts = [piece if isinstance(piece, str) else piece.markdown() for piece in _flat(pieces)]
    return "\n\n".join(texts)


def _flat(pieces: Sequence[Piece]) -> list[str | Table]:
    return [piece for piece in pieces if isinstance(piece, str | Table)]


def page(pieces: Sequence[Piece]) -> str:
    """All of it as HTML."""
    return "\n".join(
        f"<p>{marked(piece)}</p>" if isinstance(piece, str) else piece.html() for piece in pieces
    )


def marked(text: str) -> str:
    """Escaped, with `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def formatted(value: Any) -> str:
    """A number to four digits; anything else as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    where = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f"<text{attribute} {where}>{html.escape(text)}</text>"


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    caption = html.escape(title)
    return (
        f"<figure><figcaption>{caption}</figcaption>\n"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{caption}">'
        + "\n".join(parts)
        + "</svg></figure>"
    )
