"""The graph of a person detector's plan, and how far it strays from the bundle's own."""

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
from posekit.session import open_cpu_session, open_session, session_options
from posekit.types import DetectorSpec, UInt8
from posekit_engines.graphs.edit import rename_tensors, set_nodes
from posekit_engines.graphs.weights import inline_weights
from posekit_engines.trt.graph import FLOAT

LEAST_SCORE = 0.05
"""Boxes that score less in both are nobody's."""
MOST_PX, MOST_SCORE = 0.5, 0.01


def write(source: Bundle, file: Path) -> dict[str, Any]:
    """The graph at `file`; what boxes and scores differ by, both graphs run on the CPU.

    Raises BundleError, ExportError, ParityError.
    """
    onnx.save(detector_of(source), str(file))
    own = open_session(source.graphs["detect"], source.weights, device="cpu", threads=1)
    new = open_cpu_session(file)
    far_px = far_score = 0.0
    count = persons = 0
    for canvas in _canvases(source.spec.input_size):
        (boxes, scores), (wanted, sure) = (
            each.run(["boxes", "scores"], {"image": canvas[None]}) for each in (new, own)
        )
        seen = np.maximum(scores, sure) >= LEAST_SCORE
        far_score = max(far_score, float(np.abs(scores - sure).max()))
        far_px = max(far_px, float(np.abs(boxes - wanted)[seen].max(initial=0)))
        count, persons = count + 1, persons + int(seen.sum())
    # A comparison with NaN is false.
    if not (far_px <= MOST_PX and far_score <= MOST_SCORE):
        raise ParityError(
            f"{source.name}, the plan's graph: boxes stray {far_px:.2f} px and scores "
            f"{far_score:.3f}; wanted at most {MOST_PX:g} and {MOST_SCORE:g}",
            far_px,
        )
    return {"boxes_px": far_px, "scores": far_score, "canvases": count, "boxes": persons}


def _canvases(size: tuple[int, int]) -> Iterator[UInt8]:
    """Pictures of persons: the check crops of an embedded pose model, four to a canvas, in turn."""
    crops = Bundle.open(bundle.find("movenet-lightning")).reference["crops"]
    width, height = size
    for start in range(len(crops)):
        a, b, c, d = (crops[(start + n) % len(crops)] for n in range(4))
        sheet = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
        part = sheet[:height, :width]
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: part.shape[0], : part.shape[1]] = part
        yield canvas


def detector_of(bundle: Bundle) -> onnx.ModelProto:
    """A detector's graph for its largest canvas, uint8 (1, H, W, 3), stand-alone, in float32.

    Every shape is a number then: TensorRT need not work any out. The casts of the weights are
    done. Raises BundleError where the bundle has no graph `detect`, ExportError.
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
    )  # TensorRT moves no bytes about: numbers first
    into = helper.make_node("Cast", ["image"], ["image.float"], to=FLOAT)
    set_nodes(model.graph, [into, *model.graph.node])
    return model
