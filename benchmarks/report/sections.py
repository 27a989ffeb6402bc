"""Each results file as text, tables and plots; the program `report` puts them together.

A section takes the file's figures. It must accept rows that are missing and rows that are new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.report.accuracy_sections import accuracy, cost, detector, gate, views
from benchmarks.report.adapt_section import adapt
from benchmarks.report.collapse_section import collapse
from benchmarks.report.external_sections import end_to_end_baselines, readers, reprojection
from benchmarks.report.pieces import Bars, Lines, Piece, Table, formatted

Figures = Any


def end_to_end(figures: Figures) -> list[Piece]:
    own = {k: r for k, r in figures.items() if isinstance(r, dict) and "cpu_ratio" in r}
    rows = [
        [
            name,
            f"{row['cpu_ratio']:.2f}",
            f"{row['wall_over_cpu']:.2f}",
            f"{row['frames'] / row['wall_s']:.1f}",
        ]
        for name, row in own.items()
    ]
    head = [f"on {figures['video']}", "CPU, whole / bare", "wall / own CPU", "frames/s"]
    pieces: list[Piece] = [
        "Overhead over bare inference and video decoding (whole run of `infer`, no overlay, "
        "against the bare calls in the same process):",
        Table(head, rows),
    ]
    baseline = {k: r for k, r in figures.items() if k.startswith("rtmlib-")}
    return pieces + (_against_rtmlib(baseline) if baseline else [])


def _against_rtmlib(baseline: dict[str, Any]) -> list[Piece]:
    rows = [
        [
            name.removeprefix("rtmlib-"),
            f"{row['ours_around_ms']:.2f}",
            f"{row['rtmlib_around_ms']:.2f}",
            f"{row['around_ratio']:.1f}",
            f"{row['ours_whole_ms']:.0f}",
            f"{row['rtmlib_whole_ms']:.0f}",
            f"{row['whole_ratio']:.2f}",
            f"{100 * row['network_share_ours']:.0f} %",
        ]
        for name, row in baseline.items()
    ]
    head = ["persons", "crop and decode: posekit", "rtmlib", "ratio", "whole: posekit", "rtmlib"]
    return [
        "Against rtmlib with the same ONNX network (a ResNet-50 with three deconvolutions) and "
        "the same boxes, CPU milliseconds per person, one thread:",
        Table([*head, "ratio", "network's share of posekit's"], rows),
    ]


def crop(figures: Figures) -> list[Piece]:
    return _baselines(figures, "Cropping persons from a frame, microseconds per person")


def decode(figures: Figures) -> list[Piece]:
    persons = f"{figures.get('persons', '?')} persons"
    return _baselines({persons: figures}, "Decoding heatmaps, microseconds per person")


def _baselines(columns: dict[str, Any], title: str) -> list[Piece]:
    rows = []
    for column, each in columns.items():
        for side in ("ours", "rivals"):
            for name, row in each.get(side, {}).items():
                if "us_a_person" in row:
                    times = row.get("times_ours")
                    shown = f"posekit, {name}" if side == "ours" and name != "bare" else name
                    rows.append([column, shown, row["us_a_person"], times])
    bars = [(f"{name}, {column}", us) for column, name, us, _ in rows]
    cells = [[c, n, f"{us:.0f}", f"{t:.1f}" if t else ""] for c, n, us, t in rows]
    head = ["", "what", "us", "times posekit's"]
    return [f"{title}:", Table(head, cells), Bars(title, bars)]


def graph(figures: Figures) -> list[Piece]:
    rows = [
        [
            name,
            f"{row['network_ms']:.1f}",
            f"{100 * row['added']:+.1f} %",
            " to ".join(f"{100 * each:+.1f}" for each in row["quartiles"]),
        ]
        for name, row in figures.items()
        if "blur" not in name
    ]
    return [
        "Overhead of the points graph (normalize, mirror, merge, argmax, refine) over the bare "
        "network, which alternates with it; the median turn and the quartiles:",
        Table(["", "network ms", "added", "half of the turns, %"], rows),
    ]


def smoothing(figures: Figures) -> list[Piece]:
    rows = [
        [name, f"{100 * row['fall']:.0f} %", f"{row['wrist_lag_frames']:.2f}"]
        for name, row in figures["clips"].items()
    ]
    ratios = ", ".join(
        motion + " " + ", ".join(f"{each['ratio']:.2f}" for each in rates.values())
        for motion, rates in figures["generated"].items()
    )
    return [
        "Smoothing: median second difference of confident keypoints, and lag of the fastest "
        "wrist. Its settings were chosen on these clips.",
        Table(["clip", "falls by", "lag, frames"], rows),
        f"Error after over before on generated motion at 30 and 60 fps: {ratios}.",
    ]


def memory(figures: Figures) -> list[Piece]:
    resident = figures["resident_mb"]
    return [
        f"Memory over {figures['frames']} frames with every format and the overlay: "
        f"{resident['middle']:.0f} MB half-way, {resident['last']:.0f} MB at the end "
        f"({figures['slope_mb_per_1000_frames']:+.2f} MB per 1000 frames)."
    ]


def calibration(figures: Figures) -> list[Piece]:
    made = {
        f"{name} ({graph})": row
        for name, graphs in figures["models"].items()
        for graph, row in graphs.items()
        if isinstance(row, dict) and "calibrated" in row
    }
    changes = ", ".join(
        f"{name} {row['raw']['ece']:.3f} to {row['calibrated']['ece']:.3f}"
        for name, row in made.items()
    )
    curves = {
        f"{name}, {side}": [(b["chance"], b["share"]) for b in row[side]["reliability"]]
        for name, row in made.items()
        if "(flip)" in name
        for side in ("raw", "calibrated")
    }
    return [
        "Expected calibration error on held-out COCO persons, from the raw score to "
        f"`confidence`: {changes}.",
        Lines(
            "Share of correct keypoints over predicted probability",
            curves,
            ("predicted probability", "share correct"),
            diagonal=True,
        ),
    ]


def precision(figures: Figures) -> list[Piece]:
    rows, bars = [], []
    for name, row in figures["rows"].items():
        for kind in ("fp32", "fp16", "int8"):
            if "bytes" not in row.get(kind, {}):
                continue
            each = row[kind]
            moved = f"{each['mean_px']:.4f} / {each['p99_px']:.4f}" if "mean_px" in each else ""
            bars.append((f"{name}, {kind}", each["bytes"] / 1e6))
            rows.append(
                [
                    name,
                    kind,
                    f"{each['bytes'] / 1e6:.1f}",
                    f"{each['ms']:.1f}" if "ms" in each else "",
                    f"{each['speed']:.2f}" if "speed" in each else "",
                    moved,
                    f"{each['maps']:.1e}" if "maps" in each else "",
                ]
            )
    vnni = "with" if figures.get("cpu", {}).get("vnni") else "without"
    head = ["network", "arithmetic", "MB", "ms per crop", "speed", "px, mean / p99", "maps"]
    return [
        f"Precision on a CPU {vnni} VNNI: plain graphs as `export` writes them, one thread. "
        "Deviations from torch in float32 are of high-confidence keypoints, in crop pixels; "
        "networks with random weights have none, so the largest difference of maps is given as "
        "well, as a share of the peak.",
        Table(head, rows),
        Bars("Size of the file, MB", bars),
    ]


def scaling(figures: Figures) -> list[Piece]:
    rows = [
        [
            name,
            ", ".join(
                f"{' '.join(p)} {formatted(v)}".replace("_", " ") for p, v in _leaves(row, ())
            ),
        ]
        for name, row in figures.items()
    ]
    persons = [
        (float(name.removeprefix("persons ")), row["ms_a_frame"])
        for name, row in figures.items()
        if name.startswith("persons ") and "ms_a_frame" in row
    ]
    title, axes = "CPU ms per frame over persons", ("persons in the frame", "CPU ms per frame")
    plot = [Lines(title, {"one thread": persons}, axes)] if persons[1:] else []
    return [
        "Cost of more persons, larger frames, more streams and longer videos; Lightning without "
        "the flip test, one thread. Missing rows were not run.",
        Table(["row", "figures"], rows),
        *plot,
    ]


def plain(figures: Figures) -> list[Piece]:
    """Any figures: a line per value, for files that have no section of their own."""
    rows = [[" · ".join(path) or "value", formatted(value)] for path, value in _leaves(figures, ())]
    return [Table(["figure", ""], rows)]


def _leaves(data: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Numbers and texts with their keys; of lists only those of a few plain values."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(data, list):
        if len(data) <= 4 and not any(isinstance(each, dict | list) for each in data):
            yield path, ", ".join(map(formatted, data))
        elif data and isinstance(data[0], dict) and "run" in data[0]:
            for each in data:
                yield from _leaves(each, (*path, str(each["run"])))
    else:
        yield path, data


SECTIONS: dict[str, Callable[[Figures], list[Piece]]] = {
    "accuracy": accuracy,
    "cost": cost,
    "views": views,
    "detector": detector,
    "end_to_end": end_to_end,
    "end_to_end_rivals": end_to_end_baselines,
    "graph-cpu": graph,
    "precision": precision,
    "adapt": adapt,
    "gate": gate,
    "collapse": collapse,
    "calibration": calibration,
    "smoothing": smoothing,
    "memory": memory,
    "readers": readers,
    "precision-without-vnni": precision,
    "reprojection": reprojection,
    "scaling": scaling,
    "crop-cpu": crop,
    "decode-cpu": decode,
}
"""In the page's order; files that are not named here follow as plain figures."""

TITLES = {
    "accuracy": "Accuracy of the embedded models",
    "cost": "Size and time of the embedded models",
    "views": "Test-time augmentation: what it gains and costs",
    "detector": "The person detector",
    "end_to_end": "Overhead of a whole run",
    "end_to_end_rivals": "Beside rtmlib, VitPose and MediaPipe",
    "graph-cpu": "Overhead of the exported graph",
    "precision": "Float16 and int8, CPU with VNNI",
    "adapt": "Adaptation without labels",
    "gate": "Decisions of the gate",
    "collapse": "Collapse of consistency training, at small scale",
    "calibration": "Calibrated confidence",
    "smoothing": "Smoothing",
    "memory": "Memory over a long video",
    "readers": "Files read by other packages",
    "precision-without-vnni": "Float16 and int8, CPU without VNNI",
    "reprojection": "Bias against calibrated cameras",
    "scaling": "More persons, larger frames, more streams",
    "crop-cpu": "Cropping persons",
    "decode-cpu": "Decoding heatmaps",
    "conventions": "Conventions of crop and decode",
    "export": "Size and time of exports",
    "harmful": "Models made worse on purpose, for the gate",
    "step": "Time of a training step",
    "turned": "Persons who are not upright",
    "gpu": "GPU",
}
"""Of results files, in words; others are called by their name."""
