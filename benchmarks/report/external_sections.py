"""Sections on comparisons outside posekit: its baselines, and calibrated cameras."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.report.pieces import Aside, Piece, Table, formatted

Figures = Any
KINDS = {"found": "found", "smoothed": "smoothed", "aimed": "found, cameras aimed"}


def reprojection(figures: Figures) -> list[Piece]:
    rows = [
        [
            model,
            clip,
            words,
            *(
                f"{found[part]['median_px']:.2f} / {found[part]['p90_px']:.2f}"
                if part in found
                else ""
                for part in ("residual", "held_out")
            ),
            "; ".join(f"{x:+.2f}, {y:+.2f}" for x, y in found.get("bias_px", [])),
        ]
        for model, clips in figures.items()
        if isinstance(clips, dict)
        for clip, entry in clips.items()
        for kind, words in KINDS.items()
        if (found := entry.get(kind))
    ]
    apart = max(
        (abs(v) for view in figures.get("bias_difference_px", []) for v in view), default=0.0
    )
    head = ["model", "clip", "points", "residual px, median / p90", "held-out view", "bias x, y"]
    return [
        "Geometric bias without labels: keypoints of calibrated cameras, triangulated and "
        "projected back; the held-out view took no part in the triangulation. Bias is the median "
        "offset in each view. What both models share is the rig's own; by what they do not share "
        f"they differ by at most {apart:.1f} px. Cameras aimed: each principal point moved to "
        "where the other model's points agree best.",
        Table(head, rows),
    ]


def end_to_end_baselines(figures: Figures) -> list[Piece]:
    rows = [
        [
            re.sub(r"\b1 (person|thread)s", r"1 \1", key),
            name,
            f"{row['frames_a_s']:.2f}",
            f"{row['cpu_ms_a_person']:.1f}",
            f"{row['cpu_ratio']:.2f}" if "cpu_ratio" in row else "",
            f"{row['peak_mb']:.0f}",
            f"{row['wall_over_cpu']:.2f}",
        ]
        for key, each in figures.items()
        if isinstance(each, dict)
        for name, row in each.items()
        if isinstance(row, dict) and "frames_a_s" in row
    ]
    apart = figures.get("points of rtmlib and posekit, the same network")
    points = [] if apart is None else [_apart(apart)]
    if not rows:
        return points
    head = ["row", "", "frames/s", "CPU ms per person", "baseline's CPU / posekit's", "peak MB"]
    head.append("wall / CPU")
    few = [row for row in rows if " 8 persons, 2 threads" in row[0]]
    return [
        *points,
        "From decoded frames to points, posekit and its baselines, same frames and boxes, each "
        "in a process of its own. The network is the same with rtmlib, of the same shape with "
        "VitPose; MediaPipe runs another, so compare time only. Medians over three turns, of the "
        "ratio within a turn: the machine's speed changes between them.",
        Table(head, few),
        Aside("All rows:", Table(head, rows)),
    ]


def _apart(figures: Figures) -> str:
    return (
        "The same network (MoveNet Thunder, in rtmlib's crop and decode conventions) on the same "
        f"persons: {figures['points']} points of rtmlib and posekit lie {figures['p50_px']:.4f} px "
        f"apart in the median, 90 % within {figures['p90_px']:.4f}, 99 % within "
        f"{figures['p99_px']:.2f}, all within {figures['largest_px']:.1f} px of the frame."
    )


READERS = {
    "pose2sim": "Pose2Sim: calibration, association of persons and triangulation of four cameras",
    "label-studio-sdk": "label-studio-sdk: predictions checked against a labeling interface",
    "deeplabcut": "DeepLabCut: `load_analyzed_data`, after pandas saved the table as .h5",
    "movement": "movement: `load_dataset`, as a file of DeepLabCut",
}
FOUND = {
    "reprojection_px": "mean reprojection error {} px",
    "reprojection_mm": "about {} mm",
}


def readers(figures: Figures) -> list[Piece]:
    rows = [
        [
            READERS.get(name, name),
            row["version"],
            f"`{row['format']}`",
            ", ".join(
                FOUND.get(key, f"{{}} {key}").format(formatted(value))
                for key, value in row.items()
                if key not in ("version", "format")
            ),
        ]
        for name, row in figures.items()
    ]
    return [
        "posekit's files, read by the code of the packages that they are for. Packages not "
        "in the table were not tried.",
        Table(["package, and what of it", "version", "`--format`", "what it found"], rows),
    ]
