"""What the points graph adds to its network, one thread: `python benchmarks/graph.py`.

The embedded models' networks are cut out of their graphs and wrapped anew by points_graph. The
bare network and the points graph take turns on the same crops (2N views with the flip test). The
cost is the median over the turns of graph over network, less one: the two of a turn have the same
machine, whose pace changes by the minute. Times are CPU time, the least of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from results_file import save

import posekit
from posekit import Bundle, ModelSpec
from posekit.session import open_session
from posekit_engines.graphs.points import points_graph

LEAST_TURNS = 9
MODELS = Path(posekit.__file__).parent / "models"


def network_of(graph: bytes, spec: ModelSpec) -> onnx.ModelProto:
    """What lies between `image` and `heatmaps`."""
    whole = onnx.load_from_string(graph)
    needed, kept = {"heatmaps"}, []
    for node in reversed(whole.graph.node):
        if needed & set(node.output) and "image" not in node.output:
            kept.insert(0, node)
            needed |= set(node.input)
    weights = [tensor for tensor in whole.graph.initializer if tensor.name in needed]
    (width, height), (columns, rows) = spec.input_size, spec.heatmap_size
    kind = onnx.TensorProto.FLOAT
    ends = (
        helper.make_tensor_value_info("image", kind, ["N", 3, height, width]),
        helper.make_tensor_value_info("heatmaps", kind, ["N", len(spec.skeleton), rows, columns]),
    )
    cut = helper.make_graph(kept, spec.architecture, [ends[0]], [ends[1]], weights)
    return helper.make_model(cut, opset_imports=whole.opset_import, ir_version=whole.ir_version)


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
    while len(turns) < LEAST_TURNS or time.perf_counter() < end:
        begun = time.thread_time()
        bare.run(None, {"image": image})
        between = time.thread_time()
        points.run(None, {"crops": crops})
        turns.append((between - begun, time.thread_time() - between))
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
    parser.add_argument("--seconds", type=float, default=20.0, help="a row of the table")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in ("movenet-lightning", "movenet-thunder"):
        bundle = Bundle.open(MODELS / f"{name}.posekit")
        spec = bundle.pose_spec
        network = network_of(bundle.graphs["plain"], spec)
        bare = open_session(network.SerializeToString(), bundle.weights, device="cpu", threads=1)
        # As shipped, and with the costliest refinement.
        for label, each in (("", spec), (", blur 11", dataclasses.replace(spec, blur=11))):
            for flip in (False, True):
                graph = points_graph(network, each, flip=flip).SerializeToString()
                points = open_session(graph, bundle.weights, device="cpu", threads=1)
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
    print(save("graph-cpu", "python benchmarks/graph.py", 1, figures))


if __name__ == "__main__":
    main()
