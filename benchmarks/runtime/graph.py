"""Overhead of the points graph over its network, one thread: `python -m benchmarks graph`.

The embedded models are exported twice, as `--outputs raw` (the network alone) and as points. Both
alternate on the same crops (2N views with the flip test). The cost is the median over the turns of
graph over network, less one: the two of a turn have the same machine speed, which changes by the
minute. Times are CPU time, the minimum of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.exported import exported_bytes
from benchmarks.results_file import command, save
from posekit import Bundle, ModelSpec
from posekit.bundle import embedded
from posekit.inference.session import open_session

MIN_TURNS = 9


def cost(
    bare: onnxruntime.InferenceSession,
    points: onnxruntime.InferenceSession,
    *,
    spec: ModelSpec,
    persons: int,
    seconds: float,
) -> dict[str, Any]:
    """CPU ms of both, and the share that the graph adds: median and quartiles."""
    width, height = spec.input_size
    crops = np.random.default_rng(0).integers(0, 256, (persons, height, width, 3), np.uint8)
    image = ((crops - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)
    image = np.ascontiguousarray(image)
    if "flip" in points.get_modelmeta().graph_name:
        image = np.concatenate([image, image[..., ::-1]])
    turns = []
    end = time.perf_counter() + seconds
    while len(turns) < MIN_TURNS or time.perf_counter() < end:
        start = time.thread_time()
        bare.run(None, {"image": image})
        between = time.thread_time()
        points.run(None, {"crops": crops})
        turns.append((between - start, time.thread_time() - between))
    network, graph = np.array(turns[1:]).T  # the first allocates
    low, added, high = np.quantile(graph / network, (0.25, 0.5, 0.75)) - 1
    return {
        "network_ms": 1e3 * network.min(),
        "graph_ms": 1e3 * graph.min(),
        "added": added,
        "quartiles": [low, high],
        "turns": len(network),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="per row of the table")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in ("movenet-lightning", "movenet-thunder"):
        bundle = Bundle.open(embedded()[name])
        spec = bundle.pose_spec
        network = exported_bytes(spec, bundle.weights, outputs="raw")
        bare = open_session(network, {}, device="cpu", threads=1)
        # As shipped, and with the costliest refinement.
        for label, each in (("", spec), (", blur 11", dataclasses.replace(spec, blur=11))):
            for flip in (False, True):
                graph = exported_bytes(each, bundle.weights, flip=flip)
                points = open_session(graph, {}, device="cpu", threads=1)
                for persons in (1, 8):
                    row = cost(bare, points, spec=each, persons=persons, seconds=options.seconds)
                    key = f"{name}{label}, {'flip' if flip else 'plain'}, N = {persons}"
                    figures[key] = row
                    print(
                        f"{key:48} network {row['network_ms']:7.2f} ms, points graph "
                        f"{row['graph_ms']:7.2f} ms: {100 * row['added']:+.1f} % "
                        f"({100 * row['quartiles'][0]:+.1f} to {100 * row['quartiles'][1]:+.1f})",
                        flush=True,
                    )
    print(save("graph-cpu", command("graph"), 1, figures))


if __name__ == "__main__":
    main()
