"""posekit.nets.nanodet: boxes from maps, and the published network's outputs."""

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from posekit.bundle import Bundle
from posekit.errors import CheckpointError
from posekit.nets.nanodet import NanoDet, weights_from_tfjs
from tests.support.assets import shared, shipped

BINS = 11


@pytest.fixture(scope="module")
def shipped_net() -> NanoDet:
    weights = Bundle.open(shipped("posekit/models/nanodet-person.posekit")).weights
    net = NanoDet().eval()
    net.load_state_dict(
        {name: torch.from_numpy(v.astype(np.float32)) for name, v in weights.items()}
    )
    return net


def tfjs_tensors() -> dict[str, np.ndarray]:
    """Tensors as the npm package names and shapes them, filled with noise."""
    random = np.random.default_rng(0)
    net = NanoDet()
    biases = [*range(0, 56, 2), 60, 62, 66, 68, 70, 72]
    tensors = {}
    modules = [name.removesuffix(".weight") for name in net.state_dict() if name.endswith("weight")]
    for n, module in enumerate(modules):
        outputs, inputs, height, width = net.state_dict()[f"{module}.weight"].shape
        outputs = 124 if module.endswith("out") else outputs
        kernel = random.normal(size=(height, width, inputs, outputs)).astype(np.float16)
        tensors[f"PartitionedCall/split{f'_{n}' if n else ''}"] = kernel
        tensors[f"unknown_{biases[n]}"] = random.normal(size=outputs).astype(np.float16)
    return tensors


def test_a_certain_bin_gives_its_distance_in_strides():
    """All weight on bin l, t, r, b: the sides lie l, t, r, b strides from the cell's center."""
    sides = (1, 2, 3, 10)
    maps = torch.full((1, 1 + 4 * BINS, 2, 3), -50.0)
    for n, side in enumerate(sides):
        maps[:, 1 + n * BINS + side] = 50.0
    maps[0, 0, 1, 2] = 0.0  # the cell in row 1, column 2
    boxes, scores = NanoDet()._boxes(maps, 16)
    assert scores[0].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5], abs=1e-6)
    # Its center covers pixels 32..47 and 16..31, so it lies at 39.5 and 23.5.
    assert boxes[0, 5].tolist() == pytest.approx([39.5 - 16, 23.5 - 32, 39.5 + 48, 23.5 + 160])


def test_two_even_bins_give_the_place_between():
    maps = torch.full((1, 1 + 4 * BINS, 1, 1), -50.0)
    for n in range(4):
        maps[:, [1 + n * BINS + 2, 1 + n * BINS + 3]] = 5.0
    boxes, _ = NanoDet()._boxes(maps, 8)
    assert boxes[0, 0].tolist() == pytest.approx([3.5 - 20, 3.5 - 20, 3.5 + 20, 3.5 + 20])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 32)])
def test_every_cell_of_three_levels_has_a_box_at_any_size(height: int, width: int):
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores = NanoDet().eval()(image)
    cells = sum((height // s) * (width // s) for s in (8, 16, 32))
    assert boxes.shape == (1, cells, 4)
    assert scores.shape == (1, cells)


def test_weights_keep_every_bit_and_only_the_person():
    tensors = tfjs_tensors()
    state = weights_from_tfjs(tensors)
    assert {name: v.shape for name, v in state.items()} == {
        name: tuple(v.shape) for name, v in NanoDet().state_dict().items()
    }
    assert {v.dtype for v in state.values()} == {np.dtype(np.float16)}
    # Kernels are turned from (H, W, in, out) and the stem's blue and red change places.
    assert (
        state["stem.weight"] == tensors["PartitionedCall/split"][:, :, ::-1].transpose(3, 2, 0, 1)
    ).all()
    out = tensors["PartitionedCall/split_33"][0, 0].T
    assert (state["head.2.out.weight"][0, :, 0, 0] == out[0]).all()
    assert (state["head.2.out.weight"][1:, :, 0, 0] == out[80:]).all()
    assert (state["head.2.out.bias"] == tensors["unknown_72"][[0, *range(80, 124)]]).all()


def test_a_missing_or_widened_tensor_is_named():
    tensors = tfjs_tensors()
    with pytest.raises(CheckpointError, match=r"float16 'unknown_62'.*got nothing"):
        weights_from_tfjs({k: v for k, v in tensors.items() if k != "unknown_62"})
    tensors["unknown_0"] = tensors["unknown_0"].astype(np.float32)
    with pytest.raises(CheckpointError, match=r"float16 'unknown_0'.*got float32"):
        weights_from_tfjs(tensors)


@pytest.mark.parametrize(("height", "width"), [(416, 416), (288, 416), (256, 160)])
def test_the_shipped_graph_equals_the_network(shipped_net: NanoDet, height: int, width: int):
    """Boxes of likely persons within 0.01 px: float32 sums in another order."""
    from posekit.inference.session import open_session

    bundle = Bundle.open(shipped("posekit/models/nanodet-person.posekit"))
    image = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))
    image = cv2.resize(image, (width, height))[None, :, :, ::-1].copy()
    session = open_session(bundle.graphs["detect"], bundle.weights, device="cpu", threads=1)
    boxes, scores = session.run(["boxes", "scores"], {session.get_inputs()[0].name: image})
    with torch.no_grad():
        want_boxes, want_scores = shipped_net(torch.from_numpy(image))
    assert np.abs(scores - want_scores.numpy()).max() < 1e-4
    likely = scores[0] > 0.05
    assert likely.sum() > 3
    assert np.abs(boxes - want_boxes.numpy())[0, likely].max() < 0.01


@pytest.mark.assets
def test_heads_equal_the_published_network(shipped_net: NanoDet):
    """Scores within 1e-3 and bins within 1e-3 of the graph that was converted from tfjs."""
    image = cv2.imread(str(shipped("tests/data/coco_000000234748.jpg")))
    planes = cv2.resize(image, (416, 416)).transpose(2, 0, 1)[None].astype(np.float32)
    path = shared("weights/nanodet_g_416.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [f"{kind}_s{s}" for s in (8, 16, 32) for kind in ("cls", "reg")]
    wanted = dict(zip(names, session.run(names, {"image_bgr": planes}), strict=True))
    with torch.no_grad():
        found = shipped_net.heads(torch.from_numpy(planes[:, ::-1].copy()))
    for stride, maps in zip((8, 16, 32), found, strict=True):
        flat = maps.flatten(2)[0].numpy()
        score = 1 / (1 + np.exp(-flat[0]))
        assert np.abs(score - wanted[f"cls_s{stride}"][0, :, 0]).max() < 1e-3
        assert np.abs(flat[1:].T - wanted[f"reg_s{stride}"][0]).max() < 1e-3
