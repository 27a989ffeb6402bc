"""Write README's figures from `results/`: `python benchmarks/readme.py [--check]`.

With --check nothing is written, and the exit status is 1 where README says something else.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- figures: [^>]*-->\n).*?(<!-- /figures -->)", re.DOTALL)


def load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def where(data: dict[str, Any]) -> str:
    machine = data["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return (
        f"`{data['command']}`, {machine['cpu']}, {machine['threads']} threads, "
        f"Python {machine['python']}, {versions}, commit {machine['commit']}."
    )


def end_to_end(data: dict[str, Any]) -> str:
    rows = [
        "What posekit adds to the networks and the decoding that it cannot do without "
        "(whole run of `infer`, no overlay, against the bare calls in the same process):",
        "",
        "| on " + data["figures"]["video"] + " | CPU, whole / bare | wall / own CPU | frames/s |",
        "|---|---|---|---|",
    ]
    for name, row in data["figures"].items():
        if isinstance(row, dict) and "cpu_ratio" in row:
            speed = row["frames"] / row["wall_s"]
            rows.append(
                f"| {name} | {row['cpu_ratio']:.2f} | {row['wall_over_cpu']:.2f} | {speed:.1f} |"
            )
    rival = [(n, r) for n, r in data["figures"].items() if n.startswith("rtmlib-")]
    if rival:
        rows += [
            "",
            "Against rtmlib with the same ONNX network (a ResNet-50 with three deconvolutions) and "
            "the same boxes, CPU milliseconds a person, one thread:",
            "",
            "| persons | crop and decode: posekit | rtmlib | ratio | whole: posekit | rtmlib |"
            " ratio | network's share of posekit's |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for name, row in rival:
        rows.append(
            f"| {name.removeprefix('rtmlib-')} | {row['ours_around_ms']:.2f} | "
            f"{row['rtmlib_around_ms']:.2f} | {row['around_ratio']:.1f} | "
            f"{row['ours_whole_ms']:.0f} | {row['rtmlib_whole_ms']:.0f} | "
            f"{row['whole_ratio']:.2f} | {100 * row['network_share_ours']:.0f} % |"
        )
    return "\n".join([*rows, "", where(data)])


def accuracy(data: dict[str, Any]) -> str:
    rows = [
        "Accuracy of the embedded models, boxes given. COCO: 256 persons of 90 images (mean share "
        "of persons above OKS 0.50:0.05:0.95, not the official protocol), and the 135 large ones; "
        "LSPET: 250 images of athletes (PCK at 0.2 of the torso), measured once, at the end. The "
        "gate, padding and refinement were chosen on the COCO persons, so those rows flatter.",
        "",
        "| model | flip test | COCO AR / AR50 | COCO large AR / AR50 | LSPET PCK |",
        "|---|---|---|---|---|",
    ]
    for model, views in data["figures"].items():
        for view, row in views.items():
            coco, large = row["coco"], row["coco_large"]
            rows.append(
                f"| {model} | {'yes' if view == 'flip' else 'no'} | {coco['AR']:.3f} / "
                f"{coco['AR50']:.3f} | {large['AR']:.3f} / {large['AR50']:.3f} | "
                f"{row['lspet']['PCK@0.2']:.3f} |"
            )
    return "\n".join([*rows, "", where(data)])


def detector(data: dict[str, Any]) -> str:
    figures = data["figures"]
    one, photos = figures["coco_val_one_look"], figures["one_person_fills_photo"]
    return (
        f"Person detector: AP50 {one['ap50']:.3f} on {one['persons']} persons of "
        f"{one['images']} COCO val images; one person who fills the photo is found in "
        f"{photos['found']} of {photos['photos']} street photos; "
        f"{figures['ms_one_thread']['call_1080p']:.0f} ms a 1080p frame. Its thresholds were "
        "chosen on these images. " + where(data)
    )


def graph(data: dict[str, Any]) -> str:
    rows = [
        "What the points graph (normalise, mirror, merge, argmax, refine) adds to the bare "
        "network:",
        "",
        "| | network ms | added |",
        "|---|---|---|",
    ]
    for name, row in data["figures"].items():
        if "blur" not in name:
            rows.append(f"| {name} | {row['network_ms']:.1f} | {100 * row['added']:+.1f} % |")
    return "\n".join([*rows, "", where(data)])


def smoothing(data: dict[str, Any]) -> str:
    rows = [
        "Smoothing: median second difference of confident keypoints, and lag of the fastest "
        "wrist. Its settings were chosen on these clips.",
        "",
        "| clip | falls by | lag, frames |",
        "|---|---|---|",
    ]
    for name, row in data["figures"]["clips"].items():
        rows.append(f"| {name} | {100 * row['fall']:.0f} % | {row['wrist_lag_frames']:.2f} |")
    ratios = ", ".join(
        motion + " " + ", ".join(f"{each['ratio']:.2f}" for each in rates.values())
        for motion, rates in data["figures"]["generated"].items()
    )
    rows += ["", f"Error after over before on generated motion at 30 and 60 fps: {ratios}."]
    return "\n".join([*rows, "", where(data)])


def memory(data: dict[str, Any]) -> str:
    figures = data["figures"]
    return (
        f"Memory over {figures['frames']} frames with every format and the overlay: "
        f"{figures['resident_mb']['middle']:.0f} MB half-way, "
        f"{figures['resident_mb']['last']:.0f} MB at the end "
        f"({figures['slope_mb_per_1000_frames']:+.2f} MB a 1000 frames). " + where(data)
    )


def adapt(data: dict[str, Any]) -> str:
    rows = [
        "Adaptation to LSPET's 1,500 pictures of athletes, no label used, measured on 250 labelled "
        "ones (PCK at 0.2 of the torso, paired 95 % interval over pictures) and on the 256 COCO "
        "persons (what is forgotten), plain crops, no flip test:",
        "",
        "| run | PCK before | after | difference | COCO AR before | after | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in data["figures"].items():
        if "pck" not in row:
            end = row["history"][-1]
            rows.append(
                f"| {name} | | | {row['stopped']} at step {end['step']}: mean peak "
                f"{end['values']['response']:.3f} | | | stopped |"
            )
            continue
        pck, coco = row["pck"], row["coco"]
        rows.append(
            f"| {name} | {pck['before']:.3f} | {pck['after']:.3f} | {pck['difference']:+.3f} "
            f"({pck['low']:+.3f} to {pck['high']:+.3f}) | {coco['before']:.3f} | "
            f"{coco['after']:.3f} | {'passed' if row['verdict']['passed'] else 'refused'} |"
        )
    return "\n".join([*rows, "", where(data)])


def calibration(data: dict[str, Any]) -> str:
    told = [
        f"{name} ({graph}) {row['raw']['ece']:.3f} to {row['calibrated']['ece']:.3f}"
        for name, graphs in data["figures"]["models"].items()
        for graph, row in graphs.items()
        if isinstance(row, dict) and "calibrated" in row
    ]
    return (
        "Expected calibration error on held-out COCO persons, from the raw score to "
        f"`confidence`: {', '.join(told)}. {where(data)}"
    )


SECTIONS = {
    "accuracy": accuracy,
    "detector": detector,
    "end_to_end": end_to_end,
    "graph-cpu": graph,
    "smoothing": smoothing,
    "memory": memory,
    "adapt": adapt,
    "calibration": calibration,
}


def figures() -> str:
    """The block between README's marks."""
    parts = [make(data) for name, make in SECTIONS.items() if (data := load(name))]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    path = ROOT / "README.md"
    before = path.read_text()
    after = BLOCK.sub(lambda found: f"{found[1]}\n{figures()}\n\n{found[2]}", before)
    if options.check:
        sys.exit("README.md differs from benchmarks/results" if before != after else 0)
    path.write_text(after)


if __name__ == "__main__":
    main()
