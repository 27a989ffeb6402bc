"""A bundle whose weights were replaced: its stored answer made anew, its graphs held to it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from safetensors.numpy import save

from posekit.bundle import Bundle
from posekit.errors import ParityError
from posekit.nets import build
from posekit.onnx_scan import external_initializers
from posekit.session import open_session
from posekit.types import Float32
from posekit_engines.bundles.assemble import assemble_bundle
from posekit_engines.graphs.weights import load_weights
from posekit_engines.parity.crops import reference_crops
from posekit_engines.parity.source import Parity, compare, source_points

BUDGET_PX = 0.05


def refresh_bundle(bundle: Bundle) -> Bundle:
    """The bundle with reference and parity of its own weights; graphs that take them stay.

    A bundle exported in fp16 or int8 has a graph with its old weights inside: its graphs are made
    anew in fp32, and its provenance says so. Raises ParityError where a graph does not follow the
    weights.
    """
    graphs = (bundle.graphs.get(name, b"") for name in ("flip", "plain", "maps"))
    if not all(external_initializers(graph, bundle.name) for graph in graphs):
        bundle = _in_fp32(bundle)
    spec = bundle.pose_spec
    crops = bundle.reference.get("crops")
    crops = reference_crops(spec) if crops is None else crops
    net = load_weights(build(spec), bundle.weights)
    reference: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"crops": crops}
    told = {}
    for view in ("flip", "plain"):
        answer = source_points(net, crops, spec, flip=view == "flip")
        reference[f"{view}_points"], reference[f"{view}_scores"] = answer
        parity = _measured(bundle, view, crops, answer=answer)
        if not parity.mean_px <= BUDGET_PX:
            raise ParityError(
                f"{bundle.name}: graph {view} strays {parity.mean_px:.3f} px on average from its "
                f"new weights; wanted at most {BUDGET_PX}: the model is not written",
                parity.mean_px,
            )
        told[view] = parity.to_dict()
    extras = {
        **bundle.extras,
        "reference.safetensors": save(reference),
        "parity.json": json.dumps(told, indent=1, sort_keys=True).encode(),
    }
    return dataclasses.replace(bundle, extras=extras)


def _in_fp32(bundle: Bundle) -> Bundle:
    """With the three graphs of any bundle; what held its weights inside must be exported again."""
    was = bundle.provenance.get("export", {}).get("precision", "of other graphs")
    note = f"its parent was {was}; export it again in that precision"
    said = {"precision": "fp32", "decode": bundle.pose_spec.decode, "note": note}
    provenance = {**bundle.provenance, "export": said}
    return dataclasses.replace(assemble_bundle(bundle), provenance=provenance)


def _measured(
    bundle: Bundle,
    view: str,
    crops: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    *,
    answer: tuple[Float32, Float32],
) -> Parity:
    session = open_session(bundle.graphs[view], bundle.weights, device="cpu", threads=1)
    points, scores = session.run(["points", "scores"], {"crops": crops})
    return compare(points, scores, answer, crops=len(crops))
