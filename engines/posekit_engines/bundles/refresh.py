"""A bundle with new weights: compute its reference again and check its graphs against it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from safetensors.numpy import save

from posekit.bundle import Bundle
from posekit.errors import ParityError
from posekit.inference.session import open_session
from posekit.inputs.onnx_scan import external_initializers
from posekit.nets import build
from posekit.stats.parity import Parity, compare
from posekit.types import Float32
from posekit_engines.bundles.assemble import assemble_bundle, points_views
from posekit_engines.graphs.weights import load_weights
from posekit_engines.parity.crops import reference_crops
from posekit_engines.parity.source import source_points

BUDGET_PX = 0.05


def refresh_bundle(bundle: Bundle) -> Bundle:
    """The bundle with reference and parity of its own weights; graphs with external weights stay.

    A bundle exported in fp16 or int8 has a graph with the old weights inside: its graphs are
    replaced by fp32 ones, and its provenance says so. Raises ParityError where a graph deviates
    from the network with the new weights.
    """
    views = points_views(bundle.pose_spec)
    graphs = (bundle.graphs.get(name, b"") for name in (*views, "maps"))
    if not all(external_initializers(graph, bundle.name) for graph in graphs):
        bundle = _with_fp32_graphs(bundle)
    spec = bundle.pose_spec
    crops = bundle.reference.get("crops")
    crops = reference_crops(spec) if crops is None else crops
    net = load_weights(build(spec), bundle.weights)
    reference: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"crops": crops}
    measured = {}
    for view in views:
        source = source_points(net, crops, spec, flip=view == "flip")
        reference[f"{view}_points"], reference[f"{view}_scores"] = source
        parity = _measure(bundle, view, crops, source=source)
        if not parity.mean_px <= BUDGET_PX:
            raise ParityError(
                f"{bundle.name}: graph {view} deviates {parity.mean_px:.3f} px on average from the "
                f"network with its new weights; wanted at most {BUDGET_PX}; nothing is written",
                parity.mean_px,
            )
        measured[view] = parity.to_dict()
    extras = {
        **bundle.extras,
        "reference.safetensors": save(reference),
        "parity.json": json.dumps(measured, indent=1, sort_keys=True).encode(),
    }
    return dataclasses.replace(bundle, extras=extras)


def _with_fp32_graphs(bundle: Bundle) -> Bundle:
    """With the three graphs of an fp32 bundle; another precision must be exported again."""
    precision = bundle.provenance.get("export", {}).get("precision", "of other graphs")
    note = f"its parent was {precision}; export it again in that precision"
    export = {"precision": "fp32", "decode": bundle.pose_spec.decode, "note": note}
    provenance = {**bundle.provenance, "export": export}
    return dataclasses.replace(assemble_bundle(bundle), provenance=provenance)


def _measure(
    bundle: Bundle,
    view: str,
    crops: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    *,
    source: tuple[Float32, Float32],
) -> Parity:
    """The graph `view` against the source's points and scores."""
    session = open_session(bundle.graphs[view], bundle.weights, device="cpu", threads=1)
    points, scores = session.run(["points", "scores"], {"crops": crops})
    return compare(points, scores, source, crops=len(crops))
