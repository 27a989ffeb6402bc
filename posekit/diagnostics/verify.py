"""Check a bundle's graphs against its spec and its stored reference, where it has one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import BundleError, EngineError
from posekit.inference.session import open_session, run_graph
from posekit.inputs.parsing import number, parse_json
from posekit.stats.parity import Parity, compare
from posekit.types import Float32, ModelSpec, UInt8

if TYPE_CHECKING:
    import onnxruntime

_TOLERANCE_PX = 0.5
"""How much further than when it was made a graph may deviate: other machines round otherwise."""
_MOST_MEAN = 0.05
"""Share of the crop's diagonal: a stored mean deviation above it is not reduced precision."""
_MOST_CROPS = 256


def verify(bundle: Bundle) -> dict[str, float]:
    """Of each graph that `measure` could compare the largest deviation, px. Raises BundleError."""
    return {name: found.max_px for name, found in measure(bundle).items() if found is not None}


def measure(bundle: Bundle) -> dict[str, Parity | None]:
    """Run each graph once: its parity with the stored reference, or None where there is none.

    Raises BundleError: shapes differ from the spec, results are not finite, or a graph deviates
    further than it did when the bundle was made; also where what is stored is damaged.
    """
    found: dict[str, Parity | None] = {}
    for name in bundle.graphs:
        session = open_session(bundle.graphs[name], bundle.weights, device="cpu", threads=1)
        _check_shapes(session, bundle, name)
        reference = _reference(bundle) if bundle.kind == "pose" else {}
        outputs = _run(session, bundle, name, crops=reference.get("crops"))
        found[name] = _parity(bundle, name, outputs, reference=reference) if reference else None
    return found


def _reference(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The stored crops and points, complete and finite, or nothing. Raises BundleError."""
    reference, spec = bundle.reference, bundle.pose_spec
    if not reference:
        return {}
    width, height = spec.input_size
    crops, count = reference.get("crops"), len(spec.skeleton)
    if crops is None or crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3):
        raise BundleError(f"{bundle.name}: damaged: its reference has no crops of the spec's size")
    if not 1 <= len(crops) <= _MOST_CROPS:
        raise BundleError(f"{bundle.name}: damaged: its reference is of {len(crops)} crops")
    shapes = {"points": (len(crops), count, 2), "scores": (len(crops), count)}
    for view in {"plain" if name == "maps" else name for name in bundle.graphs}:
        for kind, shape in shapes.items():
            value = reference.get(f"{view}_{kind}")
            sound = value is not None and value.dtype.kind == "f" and value.shape == shape
            if not sound or not np.isfinite(value).all():  # type: ignore[arg-type]
                raise BundleError(
                    f"{bundle.name}: damaged: {view}_{kind} of its reference are not finite "
                    f"numbers of shape {shape}"
                )
    return reference


def _run(
    session: onnxruntime.InferenceSession, bundle: Bundle, name: str, *, crops: UInt8 | None
) -> list[NDArray[Any]]:
    """The graph's outputs for the crops, of None for one gray image. Raises BundleError."""
    if crops is None:
        width, height = bundle.spec.input_size
        crops = np.full((1, height, width, 3), 128, np.uint8)
    try:
        outputs = run_graph(session, crops)
    except EngineError as error:
        raise BundleError(f"{bundle.name}: graph {name}: {error}") from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise BundleError(
            f"{bundle.name}: graph {name} gives values that are not finite: the bundle is damaged"
        )
    return outputs


def _parity(
    bundle: Bundle, name: str, outputs: list[NDArray[Any]], *, reference: Mapping[str, Any]
) -> Parity:
    """How far the outputs deviate. Raises BundleError where it is further than when made."""
    view = "plain" if name == "maps" else name
    points, scores = _decoded(outputs, bundle.pose_spec)
    truth = reference[f"{view}_points"], reference[f"{view}_scores"]
    found = compare(points, scores, truth, crops=len(reference["crops"]))
    mean_px, max_px = _known_deviation(bundle, view)
    for kind, far, known in (("", found.max_px, max_px), (" on average", found.mean_px, mean_px)):
        if not far <= known + _TOLERANCE_PX:
            raise BundleError(
                f"{bundle.name}: graph {name} deviates {far:.2f} px{kind} from the stored "
                f"reference; wanted at most {known + _TOLERANCE_PX:g}: the bundle is damaged or "
                "this machine computes wrongly"
            )
    return found


def _known_deviation(bundle: Bundle, graph: str) -> tuple[float, float]:
    """Mean and largest deviation when the graph was made, px: reduced precision has some.

    Raises BundleError where they are beyond reason.
    """
    where = f"{bundle.name}: parity.json"
    part = bundle.extras.get("parity.json", b"{}")
    stored = parse_json(part, name=where, error=BundleError, max_bytes=1 << 24)
    stored = stored.get(graph, {}) if isinstance(stored, dict) else None
    if not isinstance(stored, dict):
        raise BundleError(f"{where}: damaged: wanted a table of graphs")
    diagonal = math.hypot(*bundle.spec.input_size)
    largest = number(
        stored.get("max_px", 0.0), name=f"{where}: max_px", low=0, high=diagonal, error=BundleError
    )
    most = min(largest, _MOST_MEAN * diagonal)
    mean = number(
        stored.get("mean_px", most), name=f"{where}: mean_px", low=0, high=most, error=BundleError
    )
    return mean, largest


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


def _decoded(outputs: list[NDArray[Any]], spec: ModelSpec) -> tuple[Float32, Float32]:
    """Points and scores of a graph that gives them, or of one that gives heatmaps."""
    return (outputs[0], outputs[1]) if len(outputs) == 2 else codecs.decode(outputs[0], spec)
