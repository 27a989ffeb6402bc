"""posekit.detect: persons in frames of any shape, other projects' exports, boxes from files."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posekit.bundle import Bundle
from posekit.detect import BoxFile, Detector, full_frame
from posekit.detect.detector import _distinct
from posekit.errors import BundleError, InputError, SourceError
from posekit.geometry import box_iou
from posekit.types import Boxes, DetectorSpec, Frame
from tests.assets import shared, shipped

NANODET = "posekit/models/nanodet-person.posekit"


def picture(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


@pytest.fixture(scope="module")
def nanodet() -> Detector:
    return Detector(shipped(NANODET), device="cpu", threads=1)


@pytest.fixture(scope="module")
def man() -> np.ndarray:
    """One man beside a car; COCO has him at x 273..417, y 130..384."""
    return picture(shipped("tests/data/coco_000000234748.jpg"))


MAN = Boxes(np.array([[273, 130, 417, 384]], np.float32) - 0.5)


# --- NanoDet on real pictures ---------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_man_is_found_at_his_place_at_any_resolution(nanodet, man, scale):
    found = nanodet(Frame(cv2.resize(man, None, fx=scale, fy=scale)))
    placed = Boxes((found.xyxy[:1] + 0.5) / scale - 0.5)
    assert box_iou(placed, MAN)[0, 0] > 0.8


@pytest.mark.parametrize("around", [(0, 0, 0, 600), (0, 0, 700, 0), (500, 0, 0, 0), (0, 400, 0, 0)])
def test_the_man_is_found_in_wide_and_tall_frames(nanodet, man, around):
    top, bottom, left, right = around
    wide = cv2.copyMakeBorder(man, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    shifted = Boxes(MAN.xyxy + np.float32([left, top, left, top]))
    assert box_iou(nanodet(Frame(wide)), shifted).max() > 0.75


def test_the_cook_is_found_and_scores_fall(nanodet):
    found = nanodet(Frame(picture(shipped("tests/data/coco_000000397133.jpg"))))
    cook = Boxes(np.array([[388.2, 69.4, 497.6, 347]], np.float32))
    assert box_iou(found, cook)[0, 0] > 0.8
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() >= nanodet.min_score


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (17, 33), (2160, 3840)])
def test_frames_of_any_shape_without_persons_give_none(nanodet, shape):
    assert len(nanodet(Frame(np.full((*shape, 3), 90, np.uint8)))) == 0


def test_the_whole_frame_stands_in_for_nobody_only_when_asked(nanodet):
    frame = Frame(np.full((50, 80, 3), 90, np.uint8))
    before = nanodet.whole_images
    assert len(nanodet(frame)) == 0
    found = nanodet(frame, fallback=True)
    assert found.xyxy.tolist() == [[-0.5, -0.5, 79.5, 49.5]]
    assert found.scores.tolist() == [0]
    assert nanodet.whole_images == before + 1


def test_the_whole_frame_does_not_replace_a_person(nanodet, man):
    assert box_iou(nanodet(Frame(man), fallback=True), MAN)[0, 0] > 0.8


@pytest.mark.slow
def test_one_person_who_fills_the_picture_is_not_lost(nanodet):
    """Street photos of one person each: 69 of 70 give a box of 60 % of the height."""
    paths = sorted(shared("fashion_ccp/photos").glob("*.jpg"))
    tall = 0
    for path in paths:
        image = picture(path)
        xyxy = nanodet(Frame(image)).xyxy
        tall += (xyxy[:, 3] - xyxy[:, 1]).max(initial=0) >= 0.6 * len(image)
    assert len(paths) == 70
    assert tall >= 69


# --- the two looks, with a network made for it ------------------------------------------------


def probe_bundle(scores: tuple[float, float], box: list[float]) -> Bundle:
    """A detector that gives one box in shares of its input, the first score at full size only."""
    uint8, float32 = TensorProto.UINT8, TensorProto.FLOAT
    constants = {
        "box": np.array([[box]], np.float32),
        "large": np.array([[scores[0]]], np.float32),
        "small": np.array([[scores[1]]], np.float32),
        "limit": np.array(416, np.int64),
        "half": np.array(0.5, np.float32),
        "one": np.array([1], np.int64),
        "three": np.array([3], np.int64),
        "order": np.array([1, 0, 1, 0], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "three"], ["sides"]),
        helper.make_node("Gather", ["sides", "order"], ["width_height"]),
        helper.make_node("Cast", ["width_height"], ["scale"], to=float32),
        helper.make_node("Mul", ["box", "scale"], ["edges"]),
        helper.make_node("Sub", ["edges", "half"], ["boxes"]),
        helper.make_node("ReduceMax", ["sides"], ["side"], keepdims=0),
        helper.make_node("Less", ["side", "limit"], ["is_small"]),
        helper.make_node("Where", ["is_small", "small", "large"], ["scores"]),
    ]
    model = as_model(
        nodes,
        constants,
        {"image": (uint8, [1, "H", "W", 3])},
        {"boxes": (float32, [1, "A", 4]), "scores": (float32, [1, "A"])},
    )
    return Bundle("probe", DetectorSpec("probe", (416, 416)), {}, {"detect": model})


def as_model(nodes, constants, inputs, outputs) -> bytes:
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in group.items()]
        for group in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "detector", *values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("scores", "box", "looks", "found"),
    [
        ((0.9, 0.9), [0.1, 0.1, 0.9, 0.9], 0, [0.9]),  # sure at once
        ((0.2, 0.8), [0.1, 0.1, 0.9, 0.9], 1, [0.8]),  # large and doubtful
        ((0.2, 0.2), [0.1, 0.1, 0.9, 0.9], 1, []),  # the second look doubts too
        ((0.2, 0.8), [0.1, 0.1, 0.4, 0.4], 0, []),  # small: doubt is not worth a look
        ((0.05, 0.8), [0.1, 0.1, 0.9, 0.9], 0, []),  # no person worth doubting
    ],
)
def test_a_large_doubtful_box_is_looked_at_again_smaller(scores, box, looks, found):
    detector = Detector(probe_bundle(scores, box), device="cpu", threads=1)
    boxes = detector(Frame(np.zeros((416, 416, 3), np.uint8)))
    assert boxes.scores.tolist() == pytest.approx(found)
    assert detector.second_looks == looks
    if found:
        edges = [416 * share - 0.5 for share in box]
        assert boxes.xyxy[0].tolist() == pytest.approx(edges, abs=1e-3)


def test_boxes_are_clipped_to_the_frame_and_empty_ones_dropped():
    reaching = Detector(probe_bundle((0.9, 0.9), [-1, 0.5, 0.5, 3]), device="cpu", threads=1)
    frame = Frame(np.zeros((100, 300, 3), np.uint8))
    # The input is 416 x 160: 139 rows of picture, the rest is empty.
    width, bottom = 300 / 416, 100 / 139
    wanted = [-0.5, 80 * bottom - 0.5, 208 * width - 0.5, 99.5]
    assert reaching(frame).xyxy[0].tolist() == pytest.approx(wanted, abs=1e-3)
    outside = Detector(probe_bundle((0.9, 0.9), [0.1, 0.95, 0.9, 1.0]), device="cpu", threads=1)
    assert len(outside(frame)) == 0


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(bad):
    with pytest.raises(InputError, match="min_score"):
        Detector(probe_bundle((1, 1), [0, 0, 1, 1]), device="cpu", min_score=bad)


def test_suppression_keeps_the_best_of_each_person():
    """Against the definition: a box stays if no better one that stays overlaps it too much."""
    random = np.random.default_rng(3)
    corner = random.uniform(0, 60, (80, 2))
    boxes = Boxes(np.concatenate([corner, corner + random.uniform(1, 40, (80, 2))], 1))
    iou = box_iou(boxes, boxes)
    wanted: list[int] = []
    for n in range(len(boxes)):
        if all(iou[n, m] <= 0.4 for m in wanted):
            wanted.append(n)
    assert _distinct(boxes, 0.4).tolist() == wanted
    assert 10 < len(wanted) < 80


def test_a_wide_frame_costs_no_empty_rows(nanodet):
    """1280 x 720 shrinks to 416 x 234: the input is 256 rows high, not 416."""
    canvas, per_pixel = nanodet._fit(np.zeros((720, 1280, 3), np.uint8), 1.0)
    assert canvas.shape == (256, 416, 3)
    assert per_pixel.tolist() == pytest.approx([1280 / 416, 720 / 234])


def test_a_pose_bundle_is_no_detector():
    with pytest.raises(BundleError, match="wanted a person detector"):
        Detector(shipped("posekit/models/movenet-lightning.posekit"), device="cpu")


# --- other projects' exports ------------------------------------------------------------------

SIDE = 64
BOX = (16.0, 8.0, 48.0, 24.0)  # edges in the 64 x 64 input; the frame is 200 x 100
LETTERBOXED = [49.5, 24.5, 149.5, 74.5]  # times 200 / 64
STRETCHED = [49.5, 12, 149.5, 37]  # down by 100 / 64


def frame_200x100() -> Frame:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :, 0] = 255  # red: a graph that takes blue first finds it in its third plane
    return Frame(image)


def seen(plane: int, scale: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that give `seen`, (1, 1, 1): the pixel (10, 10) of a plane, 1 for red at 255."""
    constants = {
        "from": np.array([0, plane, 10, 10], np.int64),
        "to": np.array([1, plane + 1, 11, 11], np.int64),
        "flat": np.array([1, 1, 1], np.int64),
        "unit": np.array(scale, np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["images", "from", "to"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "flat"], ["value"]),
        helper.make_node("Mul", ["value", "unit"], ["seen"]),
    ]
    return nodes, constants


def yolox(classes: int, *, decoded: bool) -> bytes:
    """An export whose cell at column 3, row 1, stride 8 finds BOX, as surely as it sees red."""
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
    nodes, constants = seen(2, 1 / 255)
    nodes += [
        helper.make_node("Mul", ["mask", "seen"], ["objects"]),
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
    nodes, constants = seen(2, 1 / 255)
    constants["boxes"] = np.array([[[*BOX], [0, 0, 30, 30]]], np.float32)
    constants["share"] = np.array([[[0.9], [1.0]]], np.float32)
    constants["classes"] = np.array([[0, 7]], np.int64)
    nodes += [
        helper.make_node("Mul", ["share", "seen"], ["sure"]),
        helper.make_node("Concat", ["boxes", "sure"], ["dets"], axis=2),
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
    nodes, constants = seen(0, 1.0)
    constants["shares"] = np.array([[[v / SIDE for v in BOX], [0, 0, 1, 1]]], np.float32)
    constants["share"] = np.array([[0.9, 1.0]], np.float32)
    constants["classes"] = np.array([[0, 7]], np.int64)
    constants["shape_2"] = np.array([1, 1], np.int64)
    nodes += [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sizes"], axis=1),
        helper.make_node("Mul", ["shares", "sizes"], ["boxes"]),
        helper.make_node("Reshape", ["seen", "shape_2"], ["red"]),
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
    nodes, constants = seen(0, 1.0)
    logits = np.full((1, 2, classes), -20, np.float32)
    logits[0, 0, 0], logits[0, 1, -1] = np.log(9) - 10, 20  # with red, log(9): 0.9
    constants["logits_0"] = logits
    constants["ten"] = np.array(10, np.float32)
    x0, y0, x1, y1 = (v / SIDE for v in BOX)
    box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    constants["boxes"] = np.array([[box, [0.5, 0.5, 1, 1]]], np.float32)
    nodes += [
        helper.make_node("Mul", ["seen", "ten"], ["more"]),
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
    """Score 0.9 needs the right colour order and range, the place the right way back."""
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


# --- boxes from elsewhere -----------------------------------------------------------------------


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_full_frame_covers_every_pixel():
    boxes = full_frame(Frame(np.zeros((3, 5, 3), np.uint8)))
    assert boxes.xyxy.tolist() == [[-0.5, -0.5, 4.5, 2.5]]
    assert boxes.scores.tolist() == [1]


COCO = {
    "images": [{"id": 7, "file_name": "a/x.jpg"}, {"id": 9, "file_name": "y.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "person"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "bbox": [10, 20, 5, 6]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def test_a_coco_data_set_gives_persons_by_file_name(tmp_path):
    boxes = BoxFile(write(tmp_path / "coco.json", COCO))
    image = np.zeros((50, 50, 3), np.uint8)
    for name in ("x.jpg", "a/x.jpg"):
        assert boxes(Frame(image, 0, name=name)).xyxy.tolist() == [[10, 20, 15, 26]]
    assert len(boxes.boxes(1, "y.jpg")) == 0
    assert boxes.boxes(7).xyxy.tolist() == [[10, 20, 15, 26]]  # a video: frame = image id
    with pytest.raises(InputError, match=r"has no image 'z\.jpg'; it holds"):
        boxes.boxes(0, "z.jpg")


def test_coco_results_are_found_by_number_in_the_name_or_frame(tmp_path):
    entry = {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.75}
    boxes = BoxFile(write(tmp_path / "results.json", [entry]))
    for found in (boxes.boxes(0, "000000000139.jpg"), boxes.boxes(139)):
        assert found.xyxy.tolist() == [[1, 2, 4, 6]]
        assert found.scores.tolist() == [0.75]
    assert len(boxes.boxes(0, "other.jpg")) == 0


LINES = """{"frame": 0, "boxes": [[1, 2, 3, 4, 0.5], [5, 6, 7, 8]]}

{"frame": 2, "boxes": []}
{"frame": 3, "boxes": [[0, 0, 1, 1]]}
"""


def test_json_lines_give_boxes_by_frame(tmp_path):
    boxes = BoxFile(write(tmp_path / "boxes.jsonl", LINES))
    assert boxes.boxes(0).xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes.boxes(0).scores.tolist() == [0.5, 1]
    assert [len(boxes.boxes(n)) for n in range(5)] == [2, 0, 0, 1, 0]


def test_posekits_own_results_serve_as_boxes(tmp_path):
    lines = [
        {"posekit": "0.1.0", "model": "m", "skeleton": {}, "source": "s"},
        {"frame": 4, "file": "b.jpg", "persons": [{"box": [1, 2, 3, 4], "box_score": 0.25}]},
    ]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, lines)))
    boxes = BoxFile(path)
    assert boxes.boxes(4).xyxy.tolist() == [[1, 2, 3, 4]]
    assert boxes.boxes(0, "b.jpg").scores.tolist() == [0.25]
    assert len(boxes.boxes(4, "c.jpg")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"frame": 0, "boxes": []}\n{"frame": 1', "line 2: not JSON"),
        ('{"frame": 0, "boxes": []}\n[1, 2]', "line 2: wanted an object"),
        ('{"frame": "0", "boxes": []}', "line 1: wanted frame as a whole number, got '0'"),
        ('{"frame": 0}', "line 1: wanted boxes or persons"),
        ('{"frame": 0, "boxes": [[1, 2, 3]]}', "line 1: wanted a box or score of 4 or 5 numbers"),
        ('{"frame": 0, "boxes": [[1, 2, 3, "4"]]}', "line 1: wanted a box or score"),
        ('{"frame": 5, "boxes": [[9, 0, 1, 1]]}', "frame 5: boxes: row 0"),
        ('{"frame": 5, "boxes": [[0, 0, 1, NaN]]}', "frame 5: boxes: row 0"),
        ('{"frame": 5, "boxes": [[0, 0, 1, 1, 87]]}', r"score of frame 5 is not in \[0, 1\]"),
        ({"annotations": [], "images": 3}, "wanted images as a list"),
        ({**COCO, "annotations": [{"image_id": 7}]}, "annotation 0: wanted a box"),
        ([{"bbox": [0, 0, 1, 1]}], "annotation 0: wanted image_id as a whole number, got None"),
        ([3], "annotation 0: wanted an object"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(InputError, match=f"boxes: |{message}") as caught:
        BoxFile(write(tmp_path / "boxes.json", content))
    assert caught.match(message)


def test_a_missing_or_binary_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        BoxFile(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        BoxFile(tmp_path / "binary.json")
