"""FP32, FP16 and INT8 on this CPU: `python -m benchmarks precision [--rows NAME ...]`.

For each network its plain points graph as `posekit export` writes it: size of the file, minimum CPU
time of a crop on one thread (the three alternate in one process: compare ratios), and its deviation
from torch in float32 on crops that neither calibrated it nor chose its layers. Deviations in px are
of keypoints scored above 0.3; networks with random weights have none, so their maps are compared. A
row that is in results/ already is not measured again, unless it is named by --rows. Processors with
VNNI (they multiply bytes in one step) and without have a file each: it decides int8's speed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.export.precision_cases import PRECISIONS, Array, Case, cases, normalized
from benchmarks.exported import export
from benchmarks.results_file import ASSETS, command, figures_of, save
from posekit import codecs
from posekit.errors import ParityError
from posekit.inference.session import open_session
from posekit.stats.parity import HIGH_CONFIDENCE

MIN_TURNS = 8  # of timing, however long they take
MAPS = ("network/heatmaps", "heatmaps")
"""Names of the network's maps in an exported graph."""
Outputs = tuple[Array, Array, Array]


def source_outputs(case: Case) -> Outputs:
    """Maps, points and scores of torch in float32 and the numpy codecs."""
    with torch.no_grad():
        maps = [case.net(normalized(crop[None], case.spec)).numpy() for crop in case.check]
    together = np.concatenate(maps)
    return together, *codecs.decode(together, case.spec)


def file_outputs(file: bytes, crops: Array) -> Outputs:
    """Maps, points and scores of an exported file, crop by crop."""
    model = onnx.load_from_string(file)
    made = {name for node in model.graph.node for name in node.output}
    name = next(name for name in MAPS if name in made)
    if name not in {output.name for output in model.graph.output}:
        kind = onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    session = open_session(model.SerializeToString(), {}, device="cpu", threads=1)
    rows = [session.run([name, "points", "scores"], {"crops": crop[None]}) for crop in crops]
    maps, points, scores = (np.concatenate(column) for column in zip(*rows, strict=True))
    return maps, points, scores


def deviation(found: Outputs, source: Outputs) -> dict[str, Any]:
    """Distances in crop px, maps' difference as a share of the highest peak, and moved argmaxes.

    gap: by how much the source's own map prefers its cell to the one found, at most.
    """
    maps, points, scores = source
    confident = scores > HIGH_CONFIDENCE
    flat = maps.reshape(*confident.shape, -1)
    cells = found[0].reshape(flat.shape).argmax(2)
    gaps = flat.max(2) - np.take_along_axis(flat, cells[..., None], 2)[..., 0]
    same = confident & (cells == flat.argmax(2))
    distance = np.linalg.norm(found[1] - points, axis=2)
    row: dict[str, Any] = {"maps": float(np.abs(found[0] - maps).max() / np.abs(maps).max())}
    row |= {"points": int(confident.sum()), "moved": int((confident & ~same).sum())}
    if confident.any():
        row |= {
            "mean_px": float(distance[confident].mean()),
            "p99_px": float(np.percentile(distance[confident], 99)),
            "p99_same_cell_px": float(np.percentile(distance[same], 99)) if same.any() else None,
            "gap": float(gaps[confident].max()),
        }
    return row


def exported(case: Case, folder: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """By precision: the file, and the figures of its report on its operators."""
    made = {}
    for precision in PRECISIONS:
        path = folder / f"{precision}.onnx"
        only = {"calibrate": case.calibrate} if precision == "int8" else {}
        try:
            report = export(case.spec, case.weights, path, flip=False, precision=precision, **only)
        except ParityError as error:
            print(f"  {error}", flush=True)
            continue
        decided = report.get("decided", {})
        figures = {key: decided[key] for key in ("quantized", "calibration") if key in decided}
        if precision == "int8":
            figures["crops"] = decided["crops"]
        if precision != "fp32":
            figures["kept_float"] = len(decided["kept"])
        operators = {"operators": report["contained"]["operators"]}
        made[precision] = (path.read_bytes(), operators | figures)
    return made


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """One row: the three files, their cost, and their deviation."""
    source = source_outputs(case)
    row: dict[str, Any] = {"weights": case.weights_from, "crops": len(case.check)}
    works = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, figures) in exported(case, Path(folder)).items():
            found = deviation(file_outputs(file, case.check), source)
            row[name] = {"bytes": len(file), **found, **figures}
            works[name] = timed_call(file, case.check[:1])
    times, row["turns"] = best_times(works, seconds)
    for name, cpu_s in times.items():
        row[name] |= {"ms": 1e3 * cpu_s, "speed": times["fp32"] / cpu_s}
    return row


def timed_call(file: bytes, crops: Array) -> Callable[[], Any]:
    """One inference, one thread."""
    session = open_session(file, {}, device="cpu", threads=1)
    return lambda: session.run(["points", "scores"], {"crops": crops})


def best_times(works: dict[str, Callable[[], Any]], seconds: float) -> tuple[dict[str, float], int]:
    """Minimum CPU seconds of each; they alternate after a call to warm up; and how many turns."""
    best = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    turns, start = 0, time.thread_time()
    while turns < MIN_TURNS or time.thread_time() - start < seconds:
        for name, work in works.items():
            before = time.thread_time()
            work()
            best[name] = min(best[name], time.thread_time() - before)
        turns += 1
    return best, turns


def line(name: str, row: dict[str, Any] | None) -> list[str]:
    """The printed rows of a network."""
    if row is None:
        return [f"{name:28} not run"]
    lines = []
    for precision in PRECISIONS:
        if precision not in row:
            lines.append(f"{name:28} {precision}  refused: over 0.5 px whatever layers are int8")
            continue
        each = row[precision]
        px = f"{each['mean_px']:.4f} {each['p99_px']:.4f}" if "mean_px" in each else "-"
        timed = f"{each['ms']:7.1f} ms  x {each['speed']:.2f}" if "ms" in each else "not timed"
        lines.append(
            f"{name:28} {precision}  {each['bytes'] / 1e6:7.2f} MB  {timed:18}  px {px:14}  "
            f"maps {each['maps']:.1e}  moved {each['moved']}"
        )
    return lines


def cpu() -> dict[str, bool]:
    """Whether the processor multiplies bytes in one step (VNNI)."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return {"vnni": bool(flags & {"avx512_vnni", "avx_vnni"}), "avx2": "avx2" in flags}


def results_name() -> str:
    """The results file for processors like this one."""
    return "precision" if cpu()["vnni"] else "precision-without-vnni"


def known_rows() -> dict[str, Any]:
    """The rows that were measured before."""
    rows: dict[str, Any] = figures_of(results_name()).get("rows", {})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument(
        "--rows", nargs="*", help="measure these alone, again; empty: measure nothing, only print"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU time per row for timing")
    parser.add_argument("--crops", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = known_rows()
    with tempfile.TemporaryDirectory() as folder:
        made = cases(options.assets, options.crops, Path(folder))
        missing = [name for name in made if name not in rows]
        for name in missing if options.rows is None else options.rows:
            row = measured(made[name](), options.seconds)
            rows = {**known_rows(), name: row}
            ordered = {each: rows[each] for each in (*made, *rows) if each in rows}
            figures = {"cpu": cpu(), "rows": ordered}
            save(results_name(), command("precision"), 1, figures)
            print(*line(name, row), sep="\n", flush=True)
    print(*(f"{name.upper()}: {'yes' if has else 'no'}" for name, has in cpu().items()), sep=", ")
    every = dict.fromkeys((*made, *rows))  # also rows of networks that are no longer measured
    print(*(text for name in every for text in line(name, rows.get(name))), sep="\n")


if __name__ == "__main__":
    main()
