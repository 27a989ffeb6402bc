"""README's two tables: the models in the package, and at most eight figures that matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report.accuracy_sections import counts
from benchmarks.report.adapt_section import of_default, shifted
from benchmarks.report.pieces import Table
from benchmarks.results_file import figures_of

MOST_ROWS = 8
Row = list[str]


def models() -> Table:
    """The embedded models: accuracy, time, size, license."""
    measured, cost = figures_of("accuracy"), figures_of("cost")
    rows = [
        [
            f"`{model}`{', flip test' if view == 'flip' else ''}",
            _given(row.get("coco_protocol"), "AP", "AR"),
            _given(row.get("lspet"), "PCK@0.2"),
            f"{cost[model][view]['ms']:.0f}" if model in cost else "",
            f"{cost[model]['bytes'] / 1e6:.1f}" if model in cost else "",
            cost.get(model, {}).get("license", ""),
        ]
        for model, views in measured.items()
        for view, row in sorted(views.items())
    ]
    head = ["model", "COCO AP / AR", "athletes PCK", "CPU ms per person", "MB", "license"]
    return Table(head, [*rows, *_detector(cost)])


def _detector(cost: dict[str, Any]) -> list[Row]:
    found = figures_of("detector")
    each = cost.get("nanodet-person")
    if not found or not each:
        return []
    ap50 = f"persons: AP50 {found['coco_val_one_look']['ap50']:.3f}"
    ms = f"{each['plain']['ms']:.0f} per image"
    return [["`nanodet-person`", ap50, "", ms, f"{each['bytes'] / 1e6:.1f}", each["license"]]]


def _given(values: dict[str, float] | None, *names: str) -> str:
    return " / ".join(f"{values[name]:.3f}" for name in names) if values else ""


def figures() -> Table:
    """What was measured, posekit, what stands beside it, and the program. Missing files: no row."""
    rows = [*_adaptation(), *_gate(), *_rtmlib(), *_calibration()]
    assert len(rows) <= MOST_ROWS
    return Table(["what", "posekit", "compared with", "program"], rows)


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:.3f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _adaptation() -> list[Row]:
    found = figures_of("adapt")
    if not found:
        return []
    rows = []
    runs = [each for each in of_default(found) if each["model"] == "movenet-lightning"]
    views = found.get("views", {}).get("movenet-lightning")
    beside = f"; 8 views of it {views['pck']['after']:.3f}, at 8 times the time" if views else ""
    for what, key, more in (
        ("Lightning adapted to images of athletes, no labels: PCK", "pck", beside),
        ("the same on COCO, which it forgets a little: AR", "coco", ""),
    ):
        after = _span([run[key]["after"] for run in runs])
        before = _span([run[key]["before"] for run in runs])
        seeds = f" ({len(runs)} seeds)" if key == "pck" else ""
        rows.append([what, f"{after}{seeds}", f"unadapted {before}{more}", "`adapt`"])
    rows += _duration(runs)
    for run in shifted(found):
        if run["shift"] == "dark":
            pck = run["pck"]
            before = f"unadapted {pck['before']:.3f}"
            what = "Lightning adapted to dark and noisy images: PCK"
            rows.append([what, f"{pck['after']:.3f}", before, "`adapt`"])
    return rows


def _duration(runs: list[dict[str, Any]]) -> list[Row]:
    """Of a run that reused nothing from another."""
    whole = next((run for run in runs if run.get("whole")), None)
    if whole is None:
        return []
    threads = f"{whole['threads']} CPU thread{'s' if whole['threads'] > 1 else ''}"
    what = f"the same, {whole['persons']:,} persons: time on {threads}, memory"
    spent = f"{whole['seconds'] / 60:.0f} min, {whole['peak_memory_mb'] / 1e3:.1f} GB"
    return [[what, spent, f"{whole['steps']:,} training steps", "`adapt`"]]


def _gate() -> list[Row]:
    found = figures_of("gate")
    if not found:
        return []
    harmful, helpful = counts(found, "harmful"), counts(found, "helpful")
    refused = (
        f"{harmful['refused']} of {sum(harmful.values())} harmful, "
        f"{helpful['refused']} of {sum(helpful.values())} helpful"
    )
    what = f"runs that the gate refuses, without labels, of {found['runs']}"
    return [[what, refused, "what labels say of the runs", "`gate`"]]


def _rtmlib() -> list[Row]:
    whole = figures_of("end_to_end_rivals").get("rtmlib, 8 persons, 2 threads")
    around = figures_of("end_to_end").get("rtmlib-8")
    rows = []
    if whole:
        ours, theirs = (f"{whole[name]['cpu_ms_a_person']:.0f}" for name in ("posekit", "rtmlib"))
        what = "a ResNet-50, 8 persons in a frame: CPU ms per person"
        rows.append([what, ours, f"rtmlib {theirs}, same network", "`end_to_end_baselines`"])
    if around:
        ours, theirs = (f"{around[f'{name}_around_ms']:.2f}" for name in ("ours", "rtmlib"))
        what = "crop and decode alone, 8 persons: CPU ms per person"
        rows.append([what, ours, f"rtmlib {theirs}", "`end_to_end`"])
    return rows


def _calibration() -> list[Row]:
    found = figures_of("calibration").get("models", {}).get("movenet-thunder", {}).get("flip")
    if not found:
        return []
    what = "calibration error of Thunder's `confidence`, held-out COCO persons"
    error = f"{found['calibrated']['ece']:.3f}"
    return [[what, error, f"raw scores {found['raw']['ece']:.3f}", "`calibration`"]]
