"""FP32, FP16 and INT8 on this CPU: `python benchmarks/precision.py [--rows NAME ...]`.

For each network its plain points graph as `export` writes it: size of the file, least CPU time of
a crop on one thread (the three take turns in one process: compare ratios), and how far it is from
torch in float32 on crops that neither calibrated it nor chose its layers. Shifts in px are of
keypoints scored above 0.3; networks with random weights have none, so their maps are compared. A
row that is in results/ already is not measured again, unless it is named by --rows. Processors
with VNNI (they multiply bytes in one step) and without have a file each: it decides int8's speed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from figures import NETS, SIZE, figures, spec, trained
from numpy.typing import NDArray
from results_file import FOLDER, save
from torch import nn

from posekit import Bundle, codecs
from posekit.bundle import embedded
from posekit.errors import ParityError
from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import points_graph
from posekit_engines.graphs.weights import inline_weights, load_weights
from posekit_engines.parity.crops import embedded_crops as check_crops
from posekit_engines.parity.crops import load_check_crops
from posekit_engines.parity.source import SURE, source_maps
from posekit_engines.precision.activations import session
from posekit_engines.precision.fp16 import to_fp16
from posekit_engines.precision.int8 import to_int8
from posekit_engines.precision.int8_error import TrialOutputs, trial_outputs

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("fp32", "fp16", "int8")
LEAST_TURNS = 8  # of timing, however long they take
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """A network with weights, and crops to judge it on and to calibrate int8 with."""

    spec: ModelSpec
    net: nn.Module
    weights: dict[str, Array]
    judged: Array
    given: Array
    told: str


def movenet(name: str, assets: Path, count: int) -> Case:
    """An embedded model; of COCO's persons every third judges, the others calibrate."""
    bundle = Bundle.open(embedded()[name])
    kept = bundle.pose_spec
    crops = load_check_crops(assets / "coco_kpts" / "images", kept, count=3 * count).crops
    given = np.delete(crops, np.s_[::3], 0)
    net = load_weights(build(kept), bundle.weights)
    return Case(kept, net, dict(bundle.weights), crops[::3], given, "embedded; COCO's persons")


def drawn(name: str, count: int) -> Case:
    """A network that `figures.py` trained, judged on figures that it never saw."""
    net = trained(name)
    judged, given = figures(4 * count, 11)[0], figures(2 * count, 12)[0]
    return Case(spec(name), net, state(net), judged, given, "trained on drawn figures")


def random(name: str, size: tuple[int, int], count: int) -> Case:
    """Fresh weights. Batch norms of an HRNet scale by 0.3, or its sums grow a million-fold."""
    torch.manual_seed(0)
    kept = ModelSpec(name, size, (size[0] // 4, size[1] // 4), COCO_17)
    net = build(kept)
    for module in net.modules():
        if name.startswith("hrnet") and isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.3)
    crops = check_crops(kept).crops
    part = max(4, min(8, count))
    return Case(kept, net, state(net), crops[:4], crops[4 : 4 + part], "random")


def state(net: nn.Module) -> dict[str, Array]:
    return {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}


def cases(assets: Path, count: int) -> dict[str, Callable[[], Case]]:
    """By row: how to make it."""
    found: dict[str, Callable[[], Case]] = {
        name: lambda name=name: movenet(name, assets, count)  # type: ignore[misc]
        for name in ("movenet-lightning", "movenet-thunder")
    }
    for name in NETS:
        found[f"{name}, {SIZE[0]}x{SIZE[1]}"] = lambda name=name: drawn(name, count)  # type: ignore[misc]
    for name in ("simple-baseline-r50", "hrnet-w32", "vitpose-s-classic"):
        size = (192, 256)
        found[f"{name}, 192x256"] = lambda name=name, size=size: random(name, size, count)  # type: ignore[misc]
    return found


def truth(case: Case) -> TrialOutputs:
    """What torch in float32 and the numpy codecs say."""
    maps = np.concatenate(
        [source_maps(case.net, crop[None], case.spec, flip=False) for crop in case.judged]
    )
    return TrialOutputs(maps, *codecs.decode(maps, case.spec))


def far(found: TrialOutputs, source: TrialOutputs) -> dict[str, Any]:
    """Shifts in crop px, maps' difference as a share of the highest peak, and moved argmaxes.

    gap: by how much the source's own map prefers its cell to the one found, at most.
    """
    sure = source.scores > SURE
    flat = source.maps.reshape(*sure.shape, -1)
    cells = found.maps.reshape(flat.shape).argmax(2)
    gaps = flat.max(2) - np.take_along_axis(flat, cells[..., None], 2)[..., 0]
    same = sure & (cells == flat.argmax(2))
    shift = np.linalg.norm(found.points - source.points, axis=2)
    peak = float(np.abs(source.maps).max())
    row: dict[str, Any] = {"maps": float(np.abs(found.maps - source.maps).max()) / peak}
    row |= {"points": int(sure.sum()), "moved": int((sure & ~same).sum())}
    if sure.any():
        row |= {
            "mean_px": float(shift[sure].mean()),
            "p99_px": float(np.percentile(shift[sure], 99)),
            "p99_same_cell_px": float(np.percentile(shift[same], 99)) if same.any() else None,
            "gap": float(gaps[sure].max()),
        }
    return row


def variants(case: Case) -> dict[str, tuple[onnx.ModelProto, dict[str, Any]]]:
    """The stand-alone graph in each precision, and what was decided on the way."""
    network = network_graph(case.net, case.spec, case.weights)
    plain = points_graph(network, case.spec, flip=False)
    whole = inline_weights(plain, case.weights)
    feeds = [{"crops": crop[None]} for crop in case.given]
    half, told = to_fp16(whole, feeds)
    made = {"fp32": (whole, {}), "fp16": (half, {"kept_float": len(told["kept"])})}
    try:
        bytes_, said = to_int8(whole, feeds)
    except ParityError as error:
        print(f"  {error}", flush=True)
        return made
    kept = {key: said[key] for key in ("quantized", "calibration", "crops")}
    return {**made, "int8": (bytes_, {**kept, "kept_float": len(said["kept"])})}


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """One row: what the three files are, cost, and how far they stray."""
    source = truth(case)
    made = variants(case)
    feeds = [{"crops": crop[None]} for crop in case.judged]
    row: dict[str, Any] = {"weights": case.told, "crops": len(feeds)}
    works = {}
    for name, (model, told) in made.items():
        row[name] = {
            "bytes": model.ByteSize(),
            **far(trial_outputs(model, feeds), source),
            "operators": dtype_summary(model)["operators"],
            **told,
        }
        run = session(model).run
        works[name] = lambda run=run: run(["points", "scores"], feeds[0])
    times, row["turns"] = quickest(works, seconds)
    for name in made:
        row[name] |= {"ms": 1e3 * times[name], "speed": times["fp32"] / times[name]}
    return row


def quickest(works: dict[str, Callable[[], Any]], seconds: float) -> tuple[dict[str, float], int]:
    """Least CPU seconds of each; they take turns after one call to warm up; and how many turns."""
    best = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    turns, start = 0, time.thread_time()
    while turns < LEAST_TURNS or time.thread_time() - start < seconds:
        for name, work in works.items():
            begun = time.thread_time()
            work()
            best[name] = min(best[name], time.thread_time() - begun)
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


def place() -> str:
    """The results' name for processors like this one."""
    return "precision" if cpu()["vnni"] else "precision-without-vnni"


def known() -> dict[str, Any]:
    """The rows that were measured before."""
    path = FOLDER / f"{place()}.json"
    if not path.exists():
        return {}
    rows: dict[str, Any] = json.loads(path.read_text())["figures"]["rows"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--rows", nargs="*", help="measure these alone, anew; none: only print")
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU time for timing, a row")
    parser.add_argument("--crops", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = cases(options.assets, options.crops)
    rows = known()
    asked = [name for name in made if name not in rows] if options.rows is None else options.rows
    for name in asked:
        row = measured(made[name](), options.seconds)
        rows = {**known(), name: row}
        ordered = {each: rows[each] for each in made if each in rows}
        save(place(), "python benchmarks/precision.py", 1, {"cpu": cpu(), "rows": ordered})
        print(*line(name, row), sep="\n", flush=True)
    print(*(f"{name.upper()}: {'yes' if has else 'no'}" for name, has in cpu().items()), sep=", ")
    print(*(text for name in made for text in line(name, rows.get(name))), sep="\n")


if __name__ == "__main__":
    main()
