"""Check a bundle's graphs against its spec and its stored reference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import BundleError
from posekit.parity import Parity, compare
from posekit.session import open_session
from posekit.types import Float32, ModelSpec, UInt8

if TYPE_CHECKING:
    import onnxruntime


def verify(bundle: Bundle) -> dict[str, float]:
    """The largest deviation of each graph from the reference, crop px. Raises BundleError."""
    return {name: parity.max_px for name, parity in compared(bundle).items()}


def compared(bundle: Bundle) -> dict[str, Parity]:
    """Check a bundle's graphs against its spec and the source network's stored outputs.

    Returns each pose graph's deviation. Raises BundleError where shapes differ, or where the
    largest deviation exceeds the one measured when the bundle was made by more than 0.5 px.
    """
    found: dict[str, Parity] = {}
    for name in bundle.graphs:
        session = open_session(bundle.graphs[name], bundle.weights, device="cpu", threads=1)
        _check_shapes(session, bundle, name)
        if bundle.kind != "pose" or not bundle.reference:
            continue
        reference = bundle.reference
        view = "plain" if name == "maps" else name
        crops, source = reference["crops"], (f"{view}_points", f"{view}_scores")
        points, scores = _decoded(session, crops, bundle.pose_spec)
        stored = reference[source[0]], reference[source[1]]
        found[name] = compare(points, scores, stored, crops=len(crops))
        deviation, limit = found[name].max_px, 0.5 + _known_deviation(bundle, view)
        if not deviation <= limit:
            raise BundleError(
                f"{bundle.name}: graph {name} deviates {deviation:.2f} px from the stored "
                f"reference; wanted at most {limit:g}: the bundle is damaged or this machine "
                "computes wrongly"
            )
    return found


def _known_deviation(bundle: Bundle, graph: str) -> float:
    """The graph's deviation when it was made, px: reduced precision has one."""
    parity = json.loads(bundle.extras.get("parity.json", b"{}")).get(graph, {})
    return float(parity.get("max_px", 0.0))


def _check_shapes(session: onnxruntime.InferenceSession, bundle: Bundle, name: str) -> None:
    width, height = bundle.spec.input_size
    crops = session.get_inputs()[0]
    sides = [{"H": height, "W": width}.get(side, side) for side in crops.shape[1:]]
    if crops.type != "tensor(uint8)" or sides != [height, width, 3]:
        raise BundleError(
            f"{bundle.name}: graph {name} takes {crops.type} {crops.shape}; its spec wants "
            f"uint8 (N, {height}, {width}, 3)"
        )
    if isinstance(bundle.spec, ModelSpec):
        count, (columns, rows) = len(bundle.spec.skeleton), bundle.spec.heatmap_size
        wanted = [[count, rows, columns]] if name == "maps" else [[count, 2], [count]]
        given = [list(output.shape[1:]) for output in session.get_outputs()]
        if given != wanted:
            raise BundleError(f"{bundle.name}: graph {name} gives {given}; its spec wants {wanted}")


def _decoded(
    session: onnxruntime.InferenceSession, crops: UInt8, spec: ModelSpec
) -> tuple[Float32, Float32]:
    """Points and scores of a graph that gives them, or decoded from one that gives heatmaps."""
    outputs: list[Float32] = session.run(None, {"crops": crops})
    return (outputs[0], outputs[1]) if len(outputs) == 2 else codecs.decode(outputs[0], spec)
