"""Sections on the models in the package: accuracy, cost, the detector, and the gate's decisions."""

from __future__ import annotations

from typing import Any

from benchmarks.report.pieces import Bars, Piece, Table

Figures = Any


def accuracy(figures: Figures) -> list[Piece]:
    named = {
        f"{model}{', flip test' if view == 'flip' else ''}": row
        for model, views in figures.items()
        for view, row in views.items()
    }
    rows = [
        [
            name,
            _shown(row.get("coco_protocol", {}), "AP", "AP50", "AR"),
            _shown(row["coco"], "AR", "AR50"),
            _shown(row["coco_large"], "AR", "AR50"),
            _shown(row["lspet"], "PCK@0.2"),
        ]
        for name, row in named.items()
    ]
    head = ["model", "COCO AP / AP50 / AR", "persons: AR / AR50", "large persons: AR / AR50"]
    return [
        "Accuracy of the embedded models in the labeled boxes. COCO: 256 persons of 90 images, a "
        "sample and not the official validation set. AP and AR as `posekit eval` computes them, "
        "with pycocotools; beside them the mean share of persons above OKS 0.50:0.05:0.95, for "
        "all and for the 135 large ones. LSPET: 250 images of athletes (PCK at 0.2 of the torso), "
        "measured once, at the end. The gate, padding and refinement were chosen on the COCO "
        "persons: those columns are optimistic.",
        Table([*head, "LSPET PCK"], rows),
        Bars(
            "PCK on 250 images of athletes (LSPET)",
            [(name, row["lspet"]["PCK@0.2"]) for name, row in named.items()],
        ),
    ]


def _shown(values: dict[str, float], *names: str) -> str:
    return " / ".join(f"{values[name]:.3f}" for name in names if name in values)


def cost(figures: Figures) -> list[Piece]:
    rows = [
        [
            f"{model}{', flip test' if view == 'flip' else ''}",
            f"{each['bytes'] / 1e6:.1f}",
            f"{row['ms']:.1f}",
            " to ".join(f"{value:.1f}" for value in row["quartiles_ms"]),
            each["license"],
        ]
        for model, each in figures.items()
        for view, row in each.items()
        if view in ("plain", "flip")
    ]
    return [
        "Size of the embedded models and CPU ms on one thread: for a pose model crop, network, "
        "decode and the way back to the frame of one person; for the detector one call on a "
        "frame of the demo clip. The median and the quartiles of the turns.",
        Table(["model", "MB", "CPU ms", "half of the turns, ms", "license of the weights"], rows),
    ]


def detector(figures: Figures) -> list[Piece]:
    one, photos = figures["coco_val_one_look"], figures["one_person_fills_photo"]
    return [
        f"Person detector: AP50 {one['ap50']:.3f} on {one['persons']} persons of "
        f"{one['images']} COCO val images; one person who fills the photo is found in "
        f"{photos['found']} of {photos['photos']} street photos; "
        f"{figures['ms_one_thread']['call_1080p']:.0f} ms a 1080p frame. Its thresholds were "
        "chosen on these images."
    ]


def gate(figures: Figures) -> list[Piece]:
    rows = [
        [kind, *(str(counts(figures, kind)[word]) for word in ("passed", "refused"))]
        for kind in figures["trained"]
    ]
    return [
        f"Decisions of the gate, which has no labels, on {figures['runs']} runs whose true change "
        "was measured with labels: trained models, and models made worse on purpose. Harmful and "
        "helpful: the 95 % interval of the change in PCK excludes 0.",
        Table(["with labels the run is", "passed", "refused"], rows),
    ]


def counts(figures: Figures, kind: str) -> dict[str, int]:
    """How many runs of a kind passed and were refused."""
    parts = [figures[part][kind] for part in ("trained", "planted")]
    return {word: sum(part[word] for part in parts) for word in ("passed", "refused")}


def views(figures: Figures) -> list[Piece]:
    rows = []
    for model, each in figures.items():
        for name, row in each["kinds"].items():
            change = "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["change"])
            lspet = _shown(row, "lspet", "upright", "not upright")
            ar = f"{row['coco_ar']:.3f}"
            rows.append([model, name, f"{row['time']:.1f}", lspet, change, ar])
    head = ["model", "views", "time", "LSPET PCK: all / upright / not upright"]
    return [
        "Test-time augmentation in labeled boxes. Time: of a person on one thread, crop and decode "
        "included, as a multiple of the plain view's. Aligned: the person again, turned upright by "
        "its own first prediction, and mirrored; aligned-flip: both with their mirror image. "
        "Upright: the head is above the hips. The change is paired with the plain view, with its "
        "95 % interval over images.",
        Table([*head, "change from plain", "COCO AR"], rows),
    ]
