"""Cost of an export: `python -m benchmarks export`.

Each network has random weights and is exported in a process of its own, so that its peak memory is
its own: to a float32 points graph with the flip test, and its default parity. `alone` is the part
before parity. Wall time and CPU time are both there, since other work on the machine lengthens the
first alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results_file import ROOT, command, figures_of, save

NETWORKS = {"hrnet-w48": (288, 384)}
LARGE = {"vitpose-h-simple": (192, 256)}  # 2.5 GB of weights, in a file beside the graph
REPORTED = ("parity_s", "crops", "time", "maps")


def measure(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """In this process: seconds, peak memory and bytes, alone and with parity."""
    import torch

    from benchmarks.exported import random_network, weights_of
    from posekit import Bundle, ModelSpec, api
    from posekit.skeletons import COCO_17

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    spec = ModelSpec(name, size, (size[0] // 4, size[1] // 4), COCO_17)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "net.posekit", Path(folder) / "net.onnx"
        Bundle(name, spec, weights_of(random_network(spec)), {}).save(source)
        start, cpu = time.perf_counter(), time.process_time()
        report = api.export(source, path, force=True)
        sizes = {
            "graph_bytes": path.stat().st_size,
            "data_bytes": sum(p.stat().st_size for p in Path(folder).glob("*.data")),
        }
    common = {"size": f"{size[0]} x {size[1]}"}
    with_parity = {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    reported = {key: report[key] for key in REPORTED if key in report}
    return {
        "alone": {**common, "wall_s": report["export_s"], **sizes},
        "with_parity": {**common, **with_parity, **sizes, **reported},
    }


def in_new_process(name: str) -> dict[str, Any]:
    """`measure` in a process of its own."""
    one = [sys.executable, "-m", "benchmarks", "export", "--one", name]
    done = subprocess.run(one, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also ViTPose-H: 2.5 GB of weights")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, (NETWORKS | LARGE)[options.one])))
        return
    figures = figures_of("export")
    for name in NETWORKS | (LARGE if options.large else {}):
        figures[name] = in_new_process(name)
        print(name, json.dumps(figures[name]))
    run_as = command("export", *(["--large"] if options.large else []))
    print(save("export", run_as, len(os.sched_getaffinity(0)), figures))


if __name__ == "__main__":
    main()
