"""The graph of a person detector's engine, and its deviation from the bundle's own graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import BundleError, ParityError
from posekit.inference.session import open_cpu_session, open_session, session_options
from posekit.types import DetectorSpec, UInt8
from posekit_engines.graphs.edit import rename_tensors, set_nodes
from posekit_engines.graphs.weights import inline_weights
from posekit_engines.trt.graph import FLOAT

MIN_SCORE = 0.05
"""Boxes with a lower score in both graphs are not compared."""
MAX_SHIFT_PX, MAX_SCORE_DIFFERENCE = 0.5, 0.01


def write_detector_graph(source: Bundle, file: Path) -> dict[str, Any]:
    """Write the graph to `file`; returns how far boxes and scores differ, both run on the CPU.

    Raises BundleError, ExportError, ParityError.
    """
    onnx.save(detector_of(source), str(file))
    own = open_session(source.graphs["detect"], source.weights, device="cpu", threads=1)
    new = open_cpu_session(file)
    shift_px = score_difference = 0.0
    canvases = candidates = 0
    for canvas in _canvases(source.spec.input_size):
        (boxes, scores), (own_boxes, own_scores) = (
            each.run(["boxes", "scores"], {"image": canvas[None]}) for each in (new, own)
        )
        compared = np.maximum(scores, own_scores) >= MIN_SCORE
        score_difference = max(score_difference, float(np.abs(scores - own_scores).max()))
        shift_px = max(shift_px, float(np.abs(boxes - own_boxes)[compared].max(initial=0)))
        canvases, candidates = canvases + 1, candidates + int(compared.sum())
    # A comparison with NaN is false.
    if not (shift_px <= MAX_SHIFT_PX and score_difference <= MAX_SCORE_DIFFERENCE):
        raise ParityError(
            f"{source.name}, the engine's graph: boxes deviate by {shift_px:.2f} px and scores by "
            f"{score_difference:.3f}; wanted at most {MAX_SHIFT_PX:g} and {MAX_SCORE_DIFFERENCE:g}",
            shift_px,
        )
    return {
        "boxes_px": shift_px,
        "scores": score_difference,
        "canvases": canvases,
        "boxes": candidates,
    }


def _canvases(size: tuple[int, int]) -> Iterator[UInt8]:
    """Images of persons: the check crops of an embedded pose model, four to a canvas."""
    crops = Bundle.open(bundle.find("movenet-lightning")).reference["crops"]
    width, height = size
    for start in range(len(crops)):
        a, b, c, d = (crops[(start + n) % len(crops)] for n in range(4))
        sheet = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
        cropped = sheet[:height, :width]
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: cropped.shape[0], : cropped.shape[1]] = cropped
        yield canvas


def detector_of(bundle: Bundle) -> onnx.ModelProto:
    """A detector's graph for its largest canvas, uint8 (1, H, W, 3), stand-alone, in float32.

    Every shape is static, so that TensorRT infers none; the casts of the weights are folded.
    Raises BundleError where the bundle has no graph `detect`, ExportError.
    """
    spec = bundle.spec
    if not isinstance(spec, DetectorSpec) or "detect" not in bundle.graphs:
        raise BundleError(f"{bundle.name}: has no graph 'detect' of a person detector")
    whole = inline_weights(onnx.load_from_string(bundle.graphs["detect"]), bundle.weights)
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for name, size in zip("WH", spec.input_size, strict=True):
        options.add_free_dimension_override_by_name(name, size)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detect.onnx"
        options.optimized_model_filepath = str(file)
        open_cpu_session(whole.SerializeToString(), options)
        model = onnx.load(str(file))
    del model.opset_import[:]
    model.opset_import.extend(each for each in whole.opset_import if each.domain == "")
    rename_tensors(
        model.graph, "image", "image.float"
    )  # TensorRT cannot transpose uint8: cast first
    into = helper.make_node("Cast", ["image"], ["image.float"], to=FLOAT)
    set_nodes(model.graph, [into, *model.graph.node])
    return model
