"""What a report is made of: paragraphs, tables and plots, as Markdown and as HTML with SVG."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.plots import Bars, Lines


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
class Aside:
    """A table that only docs/benchmarks.html has, folded, and its introduction."""

    text: str
    table: Table

    def html(self) -> str:
        summary = f"<summary>{marked(self.text.rstrip(':'))}</summary>"
        return f"<details>{summary}\n{self.table.html()}</details>"


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
