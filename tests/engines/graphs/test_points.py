"""The points graph, in real ONNX Runtime, equals the numpy codecs.

The network here returns its normalized image as heatmaps, so that crops determine the maps:
256 levels make ties common, the mean makes some values negative.
"""

import dataclasses
import itertools
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from posekit import codecs
from posekit.errors import ExportError
from posekit.inference.session import open_cpu_session
from posekit.types import Decode, ModelSpec, Skeleton
from posekit_engines.graphs.points import points_graph

THREE = Skeleton("three", ("nose", "left", "right"), ((0, 1),), (0, 2, 1), (0.1, 0.1, 0.1))
WIDTH, HEIGHT = 13, 11
BASE = ModelSpec(
    "identity",
    (WIDTH, HEIGHT),
    (WIDTH, HEIGHT),
    THREE,
    mean=(128.0, 128.0, 128.0),
    std=(64.0, 64.0, 64.0),
    map_scale=(4.0, 3.0),
    map_offset=(1.5, 0.25),
    blur=5,
)
UInt8 = NDArray[np.uint8]


def identity(input_name: str = "image", size: tuple[int, int] = (HEIGHT, WIDTH)) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    kind, shape = onnx.TensorProto.FLOAT, ["N", 3, *size]
    graph = helper.make_graph(
        [helper.make_node("Identity", [input_name], ["heatmaps"])],
        "identity",
        [value(input_name, kind, shape)],
        [value("heatmaps", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session(
    spec: ModelSpec, *, flip: bool, network: onnx.ModelProto | None = None
) -> onnxruntime.InferenceSession:
    width, height = spec.input_size
    model = points_graph(network or identity(size=(height, width)), spec, flip=flip)
    onnx.checker.check_model(model, full_check=True)
    return open_cpu_session(model.SerializeToString())


def decoded(crops: UInt8, spec: ModelSpec, *, flip: bool) -> tuple[codecs.Float32, codecs.Float32]:
    def image(views: UInt8) -> codecs.Float32:
        channels = views[..., ::-1] if spec.color == "bgr" else views
        planes = channels.astype(np.float32).transpose(0, 3, 1, 2)
        scale, bias = 1 / np.array(spec.std), -np.array(spec.mean) / np.array(spec.std)
        return (
            planes * scale.astype(np.float32)[:, None, None]
            + bias.astype(np.float32)[:, None, None]
        )

    mirrored = image(crops[:, :, ::-1]) if flip else None
    return codecs.decode(image(crops), spec, mirrored)


SPECS = {
    f"{decode}-{flip}-{shift}": (
        dataclasses.replace(BASE, decode=decode, flip_shift=shift),
        flip,
    )
    for decode, (flip, shift) in itertools.product(
        get_args(Decode), ((False, 0.0), (True, 0.0), (True, 1.0), (True, 2.0))
    )
}
# No blur; and one whose patch is larger than the map.
SPECS |= {
    f"{decode}-blur-{blur}": (dataclasses.replace(BASE, decode=decode, blur=blur), flip)
    for decode, (blur, flip) in itertools.product(("dark", "udp"), ((1, True), (11, False)))
}
SESSIONS = {name: session(spec, flip=flip) for name, (spec, flip) in SPECS.items()}


def compare(name: str, crops: UInt8) -> None:
    spec, flip = SPECS[name]
    points, scores = SESSIONS[name].run(["points", "scores"], {"crops": crops})
    wanted, heights = decoded(crops, spec, flip=flip)
    # Both read the same float32 cells: heights are equal to the bit.
    np.testing.assert_array_equal(scores, heights)
    # A step is a quotient of differences of logs: 1e-7 relative error each, and a determinant
    # of at least 1e-7 under it is only near that on plateaus; on these maps 1e-3 cells hold.
    np.testing.assert_allclose(points, wanted, atol=4e-3)


@pytest.mark.parametrize("name", SPECS)
def test_random_maps(name: str) -> None:
    for count in (1, 2, 5):
        crops = np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
        compare(name, crops)


@pytest.mark.parametrize("name", SPECS)
def test_ties_go_to_the_smaller_index(name: str) -> None:
    crops = np.random.default_rng(7).integers(0, 2, (6, HEIGHT, WIDTH, 3), np.uint8) * 127 + 100
    compare(name, crops.astype(np.uint8))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("level", [0, 90, 128, 255])
def test_flat_maps_are_not_refined(name: str, level: int) -> None:
    crops = np.full((1, HEIGHT, WIDTH, 3), level, np.uint8)
    compare(name, crops)
    points, _ = SESSIONS[name].run(None, {"crops": crops})
    np.testing.assert_array_equal(points, np.broadcast_to(np.float32([1.5, 0.25]), (1, 3, 2)))


@pytest.mark.parametrize("name", SPECS)
def test_peaks_on_every_cell_borders_and_corners_too(name: str) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    crops = np.empty((HEIGHT * WIDTH, HEIGHT, WIDTH, 3), np.uint8)
    for n, (row, column) in enumerate(itertools.product(range(HEIGHT), range(WIDTH))):
        bump = 250 * np.exp(-((x - column - 0.3) ** 2 + (y - row + 0.2) ** 2) / 6)
        crops[n] = bump[..., None] + np.arange(3)
    compare(name, crops)


@pytest.mark.parametrize("name", SPECS)
def test_maps_all_negative_or_zero(name: str) -> None:
    crops = np.random.default_rng(3).integers(0, 128, (4, HEIGHT, WIDTH, 3), np.uint8)
    compare(name, crops)
    crops[:, 4, 6] = 128  # normalized: exactly 0, the largest
    compare(name, crops)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 17, 256]))
def test_any_crops(name: str, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (2, HEIGHT, WIDTH, 3))
    compare(name, (values * (255 // (levels - 1))).astype(np.uint8))


@pytest.mark.parametrize("size", [(2, 3), (5, 4), (4, 9)])
@pytest.mark.parametrize("decode", get_args(Decode))
@pytest.mark.parametrize("blur", [1, 3])
def test_maps_smaller_than_a_patch(size: tuple[int, int], decode: Any, blur: int) -> None:
    spec = dataclasses.replace(BASE, input_size=size, heatmap_size=size, decode=decode, blur=blur)
    crops = np.random.default_rng(1).integers(0, 256, (40, size[1], size[0], 3), np.uint8)
    points, scores = session(spec, flip=True).run(None, {"crops": crops})
    wanted, heights = decoded(crops, spec, flip=True)
    # Not a bit pattern: a shift of 0.75 is blended in another order.
    np.testing.assert_allclose(scores, heights, atol=5e-7)
    np.testing.assert_allclose(points, wanted, atol=4e-3)


@pytest.mark.parametrize("decode", get_args(Decode)[1:])
def test_no_crops_give_no_points(decode: Any) -> None:
    spec = dataclasses.replace(BASE, decode=decode)
    crops = np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)
    points, scores = session(spec, flip=False).run(None, {"crops": crops})
    assert points.shape == (0, 3, 2)
    assert scores.shape == (0, 3)


@pytest.mark.parametrize("decode", get_args(Decode)[1:])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_give_finite_points(decode: Any, value: float) -> None:
    # The factor makes every map NaN or infinite.
    spec = dataclasses.replace(BASE, decode=decode)
    network = identity()
    node = helper.make_node("Mul", ["image", "value"], ["heatmaps"])
    network.graph.node[0].CopyFrom(node)
    network.graph.initializer.append(numpy_helper.from_array(np.float32(value), "value"))
    crops = np.random.default_rng(2).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)
    points, scores = session(spec, flip=True, network=network).run(None, {"crops": crops})
    assert np.isfinite(points).all()
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("shift", [-0.15, 0.75, 1.4, -2.25])
def test_shifts_by_parts_of_a_cell(shift: float) -> None:
    spec = dataclasses.replace(BASE, decode="dark", flip_shift=shift)
    crops = np.random.default_rng(5).integers(0, 256, (8, HEIGHT, WIDTH, 3), np.uint8)
    points, scores = session(spec, flip=True).run(None, {"crops": crops})
    wanted, heights = decoded(crops, spec, flip=True)
    # A blend of two cells may be rounded once or twice: 2 ulp of values up to 2.
    np.testing.assert_allclose(scores, heights, atol=5e-7)
    np.testing.assert_allclose(points, wanted, atol=4e-3)


def test_bgr_and_a_mean_and_deviation_a_channel() -> None:
    spec = dataclasses.replace(
        BASE, color="bgr", mean=(10.0, 60.0, 200.0), std=(20.0, 50.0, 90.0), decode="quarter"
    )
    crops = np.random.default_rng(9).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    for flip in (False, True):
        points, scores = session(spec, flip=flip).run(None, {"crops": crops})
        wanted, heights = decoded(crops, spec, flip=flip)
        # x / std - mean / std in float32: 2 ulp of values up to 12.
        np.testing.assert_allclose(scores, heights, rtol=0, atol=4e-6)
        np.testing.assert_allclose(points, wanted, atol=1e-5)


def test_the_same_network_gives_the_same_bytes() -> None:
    one, two = (points_graph(identity(), BASE, flip=True).SerializeToString() for _ in range(2))
    assert one == two
    assert not any(node.doc_string for node in onnx.load_from_string(one).graph.node)


def test_a_network_with_another_input_is_rejected() -> None:
    with pytest.raises(ExportError, match="wanted one input 'image', got"):
        points_graph(identity("pixels"), BASE, flip=False)
