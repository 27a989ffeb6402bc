"""The section on adaptation: gain and cost by run, and one change of the recipe at a time."""

from __future__ import annotations

from typing import Any

from benchmarks.report.pieces import Aside, Bars, Piece, Table

Figures = Any
Run = dict[str, Any]
SHIFTS = {
    "roll": "rolled images",
    "lowres": "low-resolution images",
    "dark": "dark and noisy images",
    "thermal": "thermal-like images",
}
CHANGED = {
    "short": "150 steps",
    "short, one view teaches": "one view teaches",
    "short, nothing retained": "nothing retained",
    "short, moving teacher": "moving teacher",
    "short, all layers": "all layers learn",
    "short, no turns": "no rotations",
    "short, eight views": "eight views teach",
    "short, pixel loss": "mean squared error of maps",
    "short, plain weights": "no weights by confidence",
    "short, no amplitude": "no amplitude term",
    "short, adam": "plain Adam",
    "taught by thunder": "Thunder teaches, 350 steps",
}
"""Rows with one change of the recipe."""


def adapt(figures: Figures) -> list[Piece]:
    runs = {name: row for name, row in figures.items() if name != "views"}
    views = [
        (f"8 views of {_model(name)}, unadapted", row)
        for name, row in figures.get("views", {}).items()
    ]
    plain = of_default(runs)
    default = [(f"{_model(row['model'])}, seed {row['seed']}", row) for row in plain]
    named = [*default, *views, *_shifted(runs), *_of_paper(runs)]
    head = ["run", "PCK before", "after", "difference", "COCO AR before", "after", "gate"]
    return [
        "Adaptation to LSPET's 1,500 images of athletes, no label used, measured on 250 labeled "
        "ones (PCK at 0.2 of the torso, paired 95 % interval over images) and on the 256 COCO "
        "persons (catastrophic forgetting), plain crops, no flip test. Rows of a corruption learn "
        "from images that have it (800 persons, 350 steps) and are measured on such images. "
        "Test-time augmentation of the unadapted model (8 views) learns nothing and takes eight "
        "times the time.",
        Table(head, [_cells(name, row) for name, row in named]),
        *_cost(default),
        Aside(
            "The default recipe stopped after 150 steps, and the same with one change (Lightning, "
            "seed 0):",
            Table(head, [_cells(name, row) for name, row in _changed(runs)]),
        ),
        *_gains(named),
    ]


def of_default(runs: dict[str, Run]) -> list[Run]:
    """Runs of the default recipe on images without a corruption."""
    return [
        row
        for name, row in runs.items()
        if name != "views"
        and row["recipe"] == "default"
        and not (row["settings"] or row.get("shift") or row.get("teacher"))
    ]


def shifted(runs: dict[str, Run]) -> list[Run]:
    """Runs on images with a synthetic corruption."""
    return [row for name, row in runs.items() if name != "views" and row.get("shift")]


def _shifted(runs: dict[str, Run]) -> list[tuple[str, Run]]:
    return [
        (f"{_model(row['model'])}, {SHIFTS.get(row['shift'], row['shift'])}", row)
        for row in shifted(runs)
    ]


def _of_paper(runs: dict[str, Run]) -> list[tuple[str, Run]]:
    return [
        (f"{_model(row['model'])}, recipe {row['recipe']} of the paper", row)
        for row in runs.values()
        if row["recipe"] != "default"
    ]


def _changed(runs: dict[str, Run]) -> list[tuple[str, Run]]:
    return [(CHANGED[name], row) for name, row in runs.items() if name in CHANGED]


def _model(name: str) -> str:
    return name.removeprefix("movenet-").capitalize()


def _cost(runs: list[tuple[str, Run]]) -> list[Piece]:
    """Time and memory of the runs that reused nothing from another."""
    costs = [
        f"{name}: {row['persons']} persons, {row['steps']} steps on {row['threads']} "
        f"thread{'s' if row['threads'] > 1 else ''} of {row['cpu']}, "
        f"{row['seconds'] / 60:.0f} minutes, {row['learning_s'] / 60:.0f} of them learning, "
        f"{row['peak_memory_mb']} MB"
        for name, row in runs
        if row.get("whole")
    ]
    return ["Time from images to verdict: " + "; ".join(costs) + "."] if costs else []


def _cells(name: str, row: Run) -> list[str]:
    if "pck" not in row:
        return [name, "", "", _ended(row), "", "", "stopped"]
    pck, coco = row["pck"], row["coco"]
    # There is no verdict where nothing was learned.
    gate = {True: "passed", False: "refused", None: ""}
    return [
        name,
        f"{pck['before']:.3f}",
        f"{pck['after']:.3f}",
        f"{pck['difference']:+.3f} ({pck['low']:+.3f} to {pck['high']:+.3f})",
        f"{coco['before']:.3f}",
        f"{coco['after']:.3f}",
        gate[row.get("verdict", {}).get("passed")],
    ]


def _gains(rows: list[tuple[str, Run]]) -> list[Piece]:
    """Bars of the measured rows."""
    found = [(name, row["pck"]) for name, row in rows if "pck" in row]
    bars = [(name, pck["difference"]) for name, pck in found]
    whiskers = [(pck["low"], pck["high"]) for _, pck in found]
    title = "Gain in PCK on images of athletes (LSPET), with 95 % intervals"
    return [Bars(title, bars, whiskers)] if bars else []


def _ended(row: Run) -> str:
    """How a run that was not measured ended."""
    ending = str(row.get("stopped") or row.get("reason") or "not measured")
    if not row.get("history"):
        return ending
    end = row["history"][-1]
    return f"{ending} at step {end['step']}: mean peak {end['values']['response']:.3f}"
