"""posekit.detect.detector: persons in frames of any shape, and the second pass."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from posekit.bundle import Bundle
from posekit.detect import Detector, full_frame
from posekit.detect.detector import _suppress
from posekit.errors import BundleError, EngineError, InputError
from posekit.geometry import box_iou
from posekit.types import Boxes, DetectorSpec, Frame
from tests.support.assets import shared, shipped
from tests.support.graphs import as_model

NANODET = "posekit/models/nanodet-person.posekit"


def read_rgb(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


@pytest.fixture(scope="module")
def nanodet() -> Detector:
    return Detector(shipped(NANODET), device="cpu", threads=1)


@pytest.fixture(scope="module")
def man() -> np.ndarray:
    """One man beside a car; COCO has him at x 273..417, y 130..384."""
    return read_rgb(shipped("tests/data/coco_000000234748.jpg"))


MAN = Boxes(np.array([[273, 130, 417, 384]], np.float32) - 0.5)


# --- NanoDet on real images ---------------------------------------------------------------


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
    found = nanodet(Frame(read_rgb(shipped("tests/data/coco_000000397133.jpg"))))
    cook = Boxes(np.array([[388.2, 69.4, 497.6, 347]], np.float32))
    assert box_iou(found, cook)[0, 0] > 0.8
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() >= nanodet.min_score


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (17, 33), (2160, 3840)])
def test_frames_of_any_shape_without_persons_give_none(nanodet, shape):
    assert len(nanodet(Frame(np.full((*shape, 3), 90, np.uint8)))) == 0


def test_the_whole_frame_is_the_fallback_only_on_request(nanodet):
    frame = Frame(np.full((50, 80, 3), 90, np.uint8))
    before = nanodet.whole_images
    assert len(nanodet(frame)) == 0
    found = nanodet(frame, fallback=True)
    assert found.xyxy.tolist() == [[-0.5, -0.5, 79.5, 49.5]]
    assert found.scores.tolist() == [0]
    assert nanodet.whole_images == before + 1


def test_the_whole_frame_does_not_replace_a_person(nanodet, man):
    assert box_iou(nanodet(Frame(man), fallback=True), MAN)[0, 0] > 0.8


@pytest.mark.assets
@pytest.mark.slow
def test_one_person_who_fills_the_image_is_not_lost(nanodet):
    """Street photos of one person each: 69 of 70 give a box of 60 % of the height."""
    paths = sorted(shared("fashion_ccp/photos").glob("*.jpg"))
    tall = 0
    for path in paths:
        image = read_rgb(path)
        xyxy = nanodet(Frame(image)).xyxy
        tall += (xyxy[:, 3] - xyxy[:, 1]).max(initial=0) >= 0.6 * len(image)
    assert len(paths) == 70
    assert tall >= 69


# --- the two passes, with a network made for it ------------------------------------------------


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


@pytest.mark.parametrize(
    ("scores", "box", "passes", "found"),
    [
        ((0.9, 0.9), [0.1, 0.1, 0.9, 0.9], 0, [0.9]),  # confident at once
        ((0.2, 0.8), [0.1, 0.1, 0.9, 0.9], 1, [0.8]),  # large, low score
        ((0.2, 0.2), [0.1, 0.1, 0.9, 0.9], 1, []),  # low in the second pass too
        ((0.2, 0.8), [0.1, 0.1, 0.4, 0.4], 0, []),  # small: no second pass
        ((0.05, 0.8), [0.1, 0.1, 0.9, 0.9], 0, []),  # below the second pass's limit
    ],
)
def test_a_large_box_of_low_score_gets_a_second_smaller_pass(scores, box, passes, found):
    detector = Detector(probe_bundle(scores, box), device="cpu", threads=1)
    boxes = detector(Frame(np.zeros((416, 416, 3), np.uint8)))
    assert boxes.scores.tolist() == pytest.approx(found)
    assert detector.second_passes == passes
    if found:
        edges = [416 * share - 0.5 for share in box]
        assert boxes.xyxy[0].tolist() == pytest.approx(edges, abs=1e-3)


def test_boxes_are_clipped_to_the_frame_and_empty_ones_dropped():
    reaching = Detector(probe_bundle((0.9, 0.9), [-1, 0.5, 0.5, 3]), device="cpu", threads=1)
    frame = Frame(np.zeros((100, 300, 3), np.uint8))
    # The input is 416 x 160: 139 rows of image, the rest is empty.
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
    assert _suppress(boxes, 0.4).tolist() == wanted
    assert 10 < len(wanted) < 80


def test_a_wide_frame_costs_no_empty_rows(nanodet):
    """1280 x 720 shrinks to 416 x 234: the input is 256 rows high, not 416."""
    canvas, per_pixel = nanodet._fit(np.zeros((720, 1280, 3), np.uint8), 1.0)
    assert canvas.shape == (256, 416, 3)
    assert per_pixel.tolist() == pytest.approx([1280 / 416, 720 / 234])


def test_a_pose_bundle_is_no_detector():
    with pytest.raises(BundleError, match="wanted a person detector"):
        Detector(shipped("posekit/models/movenet-lightning.posekit"), device="cpu")


def test_the_full_frame_covers_every_pixel():
    boxes = full_frame(Frame(np.zeros((3, 5, 3), np.uint8)))
    assert boxes.xyxy.tolist() == [[-0.5, -0.5, 4.5, 2.5]]
    assert boxes.scores.tolist() == [1]


def giving(boxes, scores, name="boxes", nodes=()) -> Detector:
    """A detector whose graph gives these tables, whatever the image."""
    constants = {"one": np.array(boxes, np.float32), "sure": np.array(scores, np.float32)}
    identities = [
        helper.make_node("Identity", ["one"], [name]),
        helper.make_node("Identity", ["sure"], ["scores"]),
    ]
    shapes = {name: np.shape(boxes), "scores": np.shape(scores)}
    model = as_model(
        nodes or identities,
        constants,
        {"image": (TensorProto.UINT8, [1, 64, 64, 3])},
        {key: (TensorProto.FLOAT, shape) for key, shape in shapes.items()},
    )
    return Detector(Bundle("odd", DetectorSpec("odd", (64, 64)), {}, {"detect": model}))


@pytest.mark.parametrize(
    ("boxes", "scores", "name"),
    [
        ([[[4, 4, 40]]], [[0.9]], "boxes"),
        ([[[4, 4, 40, 40]]], [[0.9, 0.8]], "boxes"),
        ([[[4, 4, 40, 40]]], [[[0.9]]], "boxes"),
        ([[[4, 4, 40, 40]]], [[0.9]], "others"),
    ],
)
def test_a_graph_that_gives_no_boxes_is_one_sentence(boxes, scores, name):
    with pytest.raises(EngineError, match=r"gives '\w+' \(1, .*, which are no boxes and scores"):
        giving(boxes, scores, name)(Frame(np.zeros((64, 64, 3), np.uint8)))


def test_a_graph_that_stops_while_it_runs_is_one_sentence():
    """It makes as many boxes of one score as the image's brightest value says."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["most"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["most"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Identity", ["one"], ["boxes"]),
        helper.make_node("Expand", ["sure", "shape"], ["scores"]),
    ]
    detector = giving([[[4, 4, 40, 40]]], [[0.9, 0.8]], nodes=nodes)
    with pytest.raises(
        EngineError, match=r"^detector: ONNX Runtime could not run it: \S"
    ) as caught:
        detector(Frame(np.full((64, 64, 3), 7, np.uint8)))
    assert str(caught.value).isprintable()


def test_a_graph_that_takes_nothing_is_refused():
    table = {"one": np.array([[[4, 4, 40, 40]]], np.float32), "sure": np.ones((1, 1), np.float32)}
    nodes = [
        helper.make_node("Identity", ["one"], ["boxes"]),
        helper.make_node("Identity", ["sure"], ["scores"]),
    ]
    outputs = {"boxes": (TensorProto.FLOAT, [1, 1, 4]), "scores": (TensorProto.FLOAT, [1, 1])}
    graph = as_model(nodes, table, {}, outputs)
    with pytest.raises(BundleError, match="takes no images"):
        Detector(Bundle("none", DetectorSpec("none", (64, 64)), {}, {"detect": graph}))
