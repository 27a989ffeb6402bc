"""The section on the collapse at small scale: methods by case, sweeps, histogram and curves."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.report.pieces import Aside, Lines, Piece, Table

Figures = Any
Rows = list[dict[str, Any]]
MAIN = ("no labels, shift", "60 labels, shift", "300 labels, shift", "60 labels")
CURVES = "no labels, shift"
SWEPT = re.compile(r", (lambda|JC|RA|turn) [\d.]+$")


def collapse(figures: Figures) -> list[Piece]:
    kept: dict[str, dict[str, Rows]] = {}
    for row in figures["rows"].values():
        kept.setdefault(row["arm"], {}).setdefault(row["case"], []).append(row)
    methods = {arm: runs for arm, runs in kept.items() if not SWEPT.search(arm)}
    cases = list(dict.fromkeys(row["case"] for row in figures["rows"].values()))
    first = [case for case in MAIN if case in cases]
    others = [case for case in cases if case not in MAIN]
    seeds = len({row["seed"] for row in figures["rows"].values()})
    return [
        "The collapsing problem of Xie et al. at small scale, on synthetic people, 300 steps: PCK "
        f"within {figures['near_px']} px at the end, and in brackets the mean height of the peaks "
        f"as a share of that at the start; means over {seeds} seeds, whose spans are in "
        "`docs/benchmarks.html`. Empty cells were not run.",
        _by_case(methods, first, _ended),
        Aside(
            "Number of seeds, minimum and maximum PCK at the end:",
            _by_case(methods, first, _span),
        ),
        *([Aside("The other cases:", _by_case(methods, others, _ended))] if others else []),
        *_sweeps(kept),
        *_networks(kept),
        *_histogram(kept),
        *_curves(kept),
    ]


def _by_case(
    methods: dict[str, dict[str, Rows]], cases: list[str], summary: Callable[[Rows], str]
) -> Table:
    every = {
        case: [row for runs in methods.values() for row in runs.get(case, [])] for case in cases
    }
    start = ["at the start", *(f"{_mean(rows, 'pck', 0):.3f}" for rows in every.values())]
    rows = [
        [arm, *(summary(runs.get(case, [])) for case in cases)] for arm, runs in methods.items()
    ]
    return Table(["method", *cases], [start, *(row for row in rows if any(row[1:]))])


def _ended(rows: Rows) -> str:
    """PCK at the end, and the remaining height of the peaks."""
    if not rows:
        return ""
    left = _mean(rows, "response", 1) / _mean(rows, "response", 0)
    return f"{_mean(rows, 'pck', 1):.3f} ({left:.2f})"


def _span(rows: Rows) -> str:
    found = [row["pck"][1] for row in rows]
    return f"x{len(rows)}, {min(found):.3f} to {max(found):.3f}" if found else ""


def _mean(rows: Rows, name: str, end: int) -> float:
    return statistics.fmean(row[name][end] for row in rows)


def _sweeps(kept: dict[str, dict[str, Rows]]) -> list[Piece]:
    """One number of a recipe changed, beside the recipe: accuracy gap of its views, and the end."""
    swept = {arm: runs for arm, runs in kept.items() if SWEPT.search(arm)}
    plain = dict.fromkeys(SWEPT.sub("", arm) for arm in swept)
    shown = {arm: kept[arm] for arm in plain if arm in kept} | swept
    rows = [
        [
            arm,
            f"{row['accuracy_gap']['teaches'] - row['accuracy_gap']['learns']:+.3f}",
            f"{row['pck'][1] - row['pck'][0]:+.3f}",
            f"{row['response'][1] / row['response'][0]:.2f}",
        ]
        for arm, runs in shown.items()
        for row in runs.get("60 labels", [])
        if row["seed"] == 0
    ]
    head = [
        "60 labels, seed 0",
        "PCK of the teacher's view - the student's",
        "PCK gained",
        "peaks left",
    ]
    text = (
        "Numbers of the recipes changed: the weight of the consistency (lambda), joints cut out "
        "(JC), photometric operations (RA) and the rotation of the hard view. Beside them the gap "
        "between the starting network's accuracy on the teacher's view and on the student's, "
        "which according to the paper prevents the collapse:"
    )
    return (
        [Aside(text, Table(head, sorted(rows, key=lambda row: _natural(row[0]))))] if rows else []
    )


def _natural(arm: str) -> tuple[str, float]:
    """Sorts JC 2 before JC 10."""
    name, _, number = arm.rpartition(" ")
    return (name, float(number)) if SWEPT.search(arm) else (arm, 0.0)


def _networks(kept: dict[str, dict[str, Rows]]) -> list[Piece]:
    rows = [
        [arm, case, *(f"{_member(rows, name):.3f}" for name in ("net 1", "net 2", "ensemble"))]
        for arm, runs in kept.items()
        for case, rows in runs.items()
        if all("net 2" in row["members"] for row in rows)
    ]
    head = ["method", "case", "network 1", "network 2", "mean of their maps"]
    return [Aside("PCK of two networks and of both, means over seeds:", Table(head, rows))]


def _member(rows: Rows, name: str) -> float:
    return statistics.fmean(row["members"][name]["pck"] for row in rows)


def _histogram(kept: dict[str, dict[str, Rows]]) -> list[Piece]:
    rows = [
        [
            arm,
            *(
                "" if share is None else f"{share:.2f}"
                for share in runs[CURVES][0]["histogram_ratio"]
            ),
        ]
        for arm, runs in kept.items()
        if CURVES in runs
    ]
    head = ["method", "0 to .2", ".2 to .4", ".4 to .6", ".6 to .8", "above"]
    text = f"Values of heatmaps by fifths, as a share of those at the start; {CURVES}, one seed:"
    return [Aside(text, Table(head, rows))] if rows else []


def _curves(kept: dict[str, dict[str, Rows]]) -> list[Piece]:
    recorded = {arm: runs[CURVES][0]["curve"] for arm, runs in kept.items() if CURVES in runs}
    pieces: list[Piece] = []
    for what, column in (("Mean peak", 2), ("PCK", 1)):
        curves = {arm: [(step[0], step[column]) for step in each] for arm, each in recorded.items()}
        title = f"{what} over training steps, {CURVES}, one seed"
        pieces += [Lines(title, curves, ("step", what))] if curves else []
    return pieces
