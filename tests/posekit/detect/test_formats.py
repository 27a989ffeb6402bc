"""posekit.detect.formats: what other projects export, as small graphs on real ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from posekit.detect import Detector
from posekit.errors import BundleError
from posekit.types import Frame
from tests.support.graphs import as_model

SIDE = 64
BOX = (16.0, 8.0, 48.0, 24.0)  # edges in the 64 x 64 input; the frame is 200 x 100
LETTERBOXED = [49.5, 24.5, 149.5, 74.5]  # times 200 / 64
STRETCHED = [49.5, 12, 149.5, 37]  # down by 100 / 64


def frame_200x100() -> Frame:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :, 0] = 255  # red: a graph that takes blue first finds it in its third plane
    return Frame(image)


def redness_of_plane(
    plane: int, scale: float
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that give `redness`, (1, 1, 1): the pixel (10, 10) of a plane, 1 for red at 255."""
    constants = {
        "from": np.array([0, plane, 10, 10], np.int64),
        "to": np.array([1, plane + 1, 11, 11], np.int64),
        "flat": np.array([1, 1, 1], np.int64),
        "unit": np.array(scale, np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["images", "from", "to"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "flat"], ["value"]),
        helper.make_node("Mul", ["value", "unit"], ["redness"]),
    ]
    return nodes, constants


def yolox(classes: int, *, decoded: bool) -> bytes:
    """An export whose cell at column 3, row 1, stride 8 finds BOX, with the redness as score."""
    rows = []
    for stride in (8, 16, 32):
        for y in range(SIDE // stride):
            rows += [[x * stride, y * stride] for x in range(SIDE // stride)]
    table = np.zeros((1, len(rows), 5 + classes), np.float32)
    if decoded:
        table[0, :, :2] = rows
        table[0, 11, :4] = [32, 16, 32, 16]
    else:
        table[0, 11, :4] = [32 / 8 - 3, 16 / 8 - 1, np.log(32 / 8), np.log(16 / 8)]
    table[0, 11, 5] = 0.9
    mask = np.zeros_like(table)
    mask[0, 11, 4] = 1
    if classes > 20:  # a cat is not a person
        table[0, 40, 4], table[0, 40, 20] = 1, 1
    nodes, constants = redness_of_plane(2, 1 / 255)
    nodes += [
        helper.make_node("Mul", ["mask", "redness"], ["objects"]),
        helper.make_node("Add", ["table", "objects"], ["output"]),
    ]
    float32 = TensorProto.FLOAT
    return as_model(
        nodes,
        constants | {"table": table, "mask": mask},
        {"images": (float32, [1, 3, SIDE, SIDE])},
        {"output": (float32, list(table.shape))},
    )


def mmdeploy() -> bytes:
    nodes, constants = redness_of_plane(2, 1 / 255)
    constants["boxes"] = np.array([[[*BOX], [0, 0, 30, 30]]], np.float32)
    constants["share"] = np.array([[[0.9], [1.0]]], np.float32)
    constants["classes"] = np.array([[0, 7]], np.int64)
    nodes += [
        helper.make_node("Mul", ["share", "redness"], ["confident"]),
        helper.make_node("Concat", ["boxes", "confident"], ["dets"], axis=2),
        helper.make_node("Identity", ["classes"], ["labels"]),
    ]
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    return as_model(
        nodes,
        constants,
        {"images": (float32, [1, 3, SIDE, SIDE])},
        {"dets": (float32, [1, 2, 5]), "labels": (int64, [1, 2])},
    )


def rt_detr() -> bytes:
    nodes, constants = redness_of_plane(0, 1.0)
    constants["shares"] = np.array([[[v / SIDE for v in BOX], [0, 0, 1, 1]]], np.float32)
    constants["share"] = np.array([[0.9, 1.0]], np.float32)
    constants["classes"] = np.array([[0, 7]], np.int64)
    constants["shape_2"] = np.array([1, 1], np.int64)
    nodes += [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sizes"], axis=1),
        helper.make_node("Mul", ["shares", "sizes"], ["boxes"]),
        helper.make_node("Reshape", ["redness", "shape_2"], ["red"]),
        helper.make_node("Mul", ["share", "red"], ["scores"]),
        helper.make_node("Identity", ["classes"], ["labels"]),
    ]
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    return as_model(
        nodes,
        constants,
        {"images": (float32, ["N", 3, SIDE, SIDE]), "orig_target_sizes": (int64, ["N", 2])},
        {"labels": (int64, [1, 2]), "boxes": (float32, [1, 2, 4]), "scores": (float32, [1, 2])},
    )


def transformers(classes: int = 80) -> bytes:
    nodes, constants = redness_of_plane(0, 1.0)
    logits = np.full((1, 2, classes), -20, np.float32)
    logits[0, 0, 0], logits[0, 1, -1] = np.log(9) - 10, 20  # with red, log(9): 0.9
    constants["logits_0"] = logits
    constants["ten"] = np.array(10, np.float32)
    x0, y0, x1, y1 = (v / SIDE for v in BOX)
    box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    constants["boxes"] = np.array([[box, [0.5, 0.5, 1, 1]]], np.float32)
    nodes += [
        helper.make_node("Mul", ["redness", "ten"], ["more"]),
        helper.make_node("Add", ["logits_0", "more"], ["logits"]),
        helper.make_node("Identity", ["boxes"], ["pred_boxes"]),
    ]
    float32 = TensorProto.FLOAT
    return as_model(
        nodes,
        constants,
        {"images": (float32, ["batch", 3, SIDE, SIDE])},
        {"logits": (float32, [1, 2, classes]), "pred_boxes": (float32, [1, 2, 4])},
    )


@pytest.mark.parametrize(
    ("graph", "wanted"),
    [
        pytest.param(yolox(80, decoded=False), LETTERBOXED, id="YOLOX raw"),
        pytest.param(yolox(80, decoded=True), LETTERBOXED, id="YOLOX decoded"),
        pytest.param(yolox(1, decoded=False), LETTERBOXED, id="YOLOX of one class"),
        pytest.param(mmdeploy(), LETTERBOXED, id="MMDeploy"),
        pytest.param(rt_detr(), STRETCHED, id="RT-DETR"),
        pytest.param(transformers(), STRETCHED, id="transformers"),
    ],
)
def test_exports_of_other_projects_find_the_person_only(tmp_path, graph, wanted):
    """Score 0.9 needs the right color order and range, the place the right way back."""
    path = tmp_path / "detector.onnx"
    path.write_bytes(graph)
    found = Detector(path, device="cpu", threads=1)(frame_200x100())
    assert found.scores.tolist() == pytest.approx([0.9], abs=1e-4)
    assert found.xyxy[0].tolist() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("graph", [transformers(91), yolox(2, decoded=True)])
def test_an_export_of_another_kind_is_refused_with_what_it_gives(tmp_path, graph):
    path = tmp_path / "other.onnx"
    path.write_bytes(graph)
    with pytest.raises(BundleError, match=r"other\.onnx: not a detector.*gives \{.*wanted"):
        Detector(path, device="cpu")


@pytest.mark.parametrize("content", [None, b"", b"not a graph"])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError):
        Detector(path, device="cpu")
