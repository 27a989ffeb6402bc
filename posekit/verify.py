"""A bundle against its stored answer."""

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
    """`compared`, of each graph the largest shift alone, px. Raises BundleError."""
    return {name: found.max_px for name, found in compared(bundle).items()}


def compared(bundle: Bundle) -> dict[str, Parity]:
    """Check a bundle's graphs against its spec and the source network's stored answer.

    Returns what each pose graph strays. Raises BundleError where shapes differ, or a shift exceeds
    what it was when the bundle was made by more than 0.5 px.
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
        points, scores = _answer(session, crops, bundle.pose_spec)
        truth = reference[source[0]], reference[source[1]]
        found[name] = compare(points, scores, truth, crops=len(crops))
        far, most = found[name].max_px, 0.5 + _known_shift(bundle, view)
        if not far <= most:
            raise BundleError(
                f"{bundle.name}: graph {name} strays {far:.2f} px from the stored answer; wanted "
                f"at most {most:g}: the bundle is damaged or this machine computes wrongly"
            )
    return found


def _known_shift(bundle: Bundle, graph: str) -> float:
    """How far the graph strayed when it was made, px: reduced precision does."""
    told = json.loads(bundle.extras.get("parity.json", b"{}")).get(graph, {})
    return float(told.get("max_px", 0.0))


def _check_shapes(session: onnxruntime.InferenceSession, bundle: Bundle, name: str) -> None:
    width, height = bundle.spec.input_size
    taken = session.get_inputs()[0]
    sides = [{"H": height, "W": width}.get(side, side) for side in taken.shape[1:]]
    if taken.type != "tensor(uint8)" or sides != [height, width, 3]:
        raise BundleError(
            f"{bundle.name}: graph {name} takes {taken.type} {taken.shape}; its spec says "
            f"uint8 (N, {height}, {width}, 3)"
        )
    if isinstance(bundle.spec, ModelSpec):
        count, (columns, rows) = len(bundle.spec.skeleton), bundle.spec.heatmap_size
        wanted = [[count, rows, columns]] if name == "maps" else [[count, 2], [count]]
        given = [list(output.shape[1:]) for output in session.get_outputs()]
        if given != wanted:
            raise BundleError(f"{bundle.name}: graph {name} gives {given}; its spec says {wanted}")


def _answer(
    session: onnxruntime.InferenceSession, crops: UInt8, spec: ModelSpec
) -> tuple[Float32, Float32]:
    """Points and scores of a graph that gives them, or of one that gives heatmaps."""
    answer: list[Float32] = session.run(None, {"crops": crops})
    return (answer[0], answer[1]) if len(answer) == 2 else codecs.decode(answer[0], spec)
