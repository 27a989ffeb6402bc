"""What an export costs: `python benchmarks/export.py`.

Each network has random weights and is exported in a process of its own, so that its peak of memory
is its own: to a float32 points graph with the flip test, without parity; then what the default
parity adds to that. Wall time and CPU time both stand there, since other work on the machine
lengthens the first alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results_file import FOLDER, save

NETWORKS = {"hrnet-w48": (288, 384)}
LARGE = {"vitpose-h-simple": (192, 256)}  # 2.5 GB of weights: they stand beside the graph


def measure(name: str, size: tuple[int, int], *, parity: bool) -> dict[str, Any]:
    """In this process: seconds, peak of memory, bytes and, with `parity`, what it added."""
    import torch

    from posekit.bundle import Bundle
    from posekit.nets import build
    from posekit.skeletons import COCO_17
    from posekit.types import ModelSpec
    from posekit_engines import onnx_file
    from posekit_engines.export import export
    from posekit_engines.graphs.weights import load_weights
    from posekit_engines.options import ExportOptions

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    spec = ModelSpec(name, size, (size[0] // 4, size[1] // 4), COCO_17)
    state = build(spec).state_dict()
    weights = {key: v.numpy() for key, v in state.items() if v.is_floating_point()}
    source = Bundle(name, spec, weights, {})
    options = ExportOptions()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        start, work = time.perf_counter(), time.process_time()
        report: dict[str, Any] = {}
        if parity:
            report = export(source, path, dataclasses.replace(options, force=True))
        else:
            net = load_weights(build(spec), source.weights)
            onnx_file.write(source, net, spec, options=options, path=path)
        found = {
            "wall_s": round(time.perf_counter() - start, 1),
            "cpu_s": round(time.process_time() - work, 1),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "graph_bytes": path.stat().st_size,
            "data_bytes": sum(p.stat().st_size for p in Path(folder).glob("*.data")),
        }
    told = {key: report[key] for key in ("parity_s", "crops", "time", "maps") if key in report}
    return {"size": f"{size[0]} x {size[1]}", **found, **told}


def apart(name: str, *, parity: bool) -> dict[str, Any]:
    """The same in a new process."""
    command = [sys.executable, __file__, "--one", name, *(["--parity"] if parity else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--large", action="store_true", help="also ViTPose-H: 2.5 GB of weights")
    parser.add_argument("--no-parity", action="store_true", help="leave out what parity adds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--parity", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    networks = NETWORKS | (LARGE if arguments.large or arguments.one in LARGE else {})
    if arguments.one:
        size = networks[arguments.one]
        print(json.dumps(measure(arguments.one, size, parity=arguments.parity)))
        return
    path = FOLDER / "export.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    for name in networks:
        figures[name] = {"alone": apart(name, parity=False)}
        if not arguments.no_parity:
            figures[name]["with_parity"] = apart(name, parity=True)
        print(name, json.dumps(figures[name]))
    flags = {"--large": arguments.large, "--no-parity": arguments.no_parity}
    command = " ".join(["python benchmarks/export.py", *(k for k, given in flags.items() if given)])
    print(save("export", command, len(os.sched_getaffinity(0)), figures))


if __name__ == "__main__":
    main()
