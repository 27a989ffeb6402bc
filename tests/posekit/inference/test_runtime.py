"""Crops and inference of the embedded models, in real ONNX Runtime."""

import dataclasses
import os
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.diagnostics.verify import verify
from posekit.errors import BundleError, DeviceError, EngineError, InputError
from posekit.geometry import Warp
from posekit.inference import providers, session
from posekit.inference.runtime import CPU, Runtime
from posekit.inference.session import open_session, usable_threads
from posekit.types import Boxes, UInt8


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.embedded()["movenet-lightning"])


@pytest.fixture(scope="module")
def image() -> UInt8:
    ramp = np.linspace(0, 255, 120)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.float64(77)), 2).astype(
        np.uint8
    )


def test_a_crop_is_opencvs_warp_and_black_beyond_the_frame(lightning: Bundle, image: UInt8) -> None:
    runtime = Runtime(lightning, threads=1, flip=False)
    boxes = Boxes([[10, 20, 50, 90], [-40, -40, 20, 20], [500, 500, 600, 600]])
    warp = Warp.from_boxes(boxes, runtime.spec)
    crops = runtime.crop(image, warp)
    assert crops.shape == (3, 192, 192, 3)
    for crop, matrix in zip(crops, warp.matrix, strict=True):
        np.testing.assert_array_equal(crop, cv2.warpAffine(image, matrix, (192, 192)))
    assert not crops[2].any()


@pytest.mark.parametrize("flip", [False, True])
def test_threads_and_batches_do_not_change_the_output(lightning: Bundle, flip: bool) -> None:
    crops = lightning.reference["crops"]
    crops = np.concatenate([crops, crops[::-1]])[:5]
    one, two = (Runtime(lightning, threads=n, flip=flip) for n in (1, 2))
    points, scores = one.infer(crops)
    singly = [one.infer(crop[None]) for crop in crops]
    shared = two.infer(crops)
    # The same float32 network in other batch sizes: rounding only.
    for other_points, other_scores in (
        shared,
        (np.concatenate([p for p, _ in singly]), np.concatenate([s for _, s in singly])),
    ):
        np.testing.assert_allclose(other_scores, scores, atol=1e-4)
        sure = scores > 0.2
        np.testing.assert_allclose(other_points[sure], points[sure], atol=0.05)


def test_no_crops_give_no_points(lightning: Bundle) -> None:
    points, scores = Runtime(lightning, threads=1).infer(np.zeros((0, 192, 192, 3), np.uint8))
    assert points.shape == (0, 17, 2)
    assert scores.shape == (0, 17)


def test_crops_of_another_size_are_refused(lightning: Bundle) -> None:
    with pytest.raises(InputError, match=r"wanted uint8 \(N, 192, 192, 3\), got uint8 \(1, 64"):
        Runtime(lightning, threads=1).infer(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", sorted(bundle.embedded()))
def test_embedded_models_give_their_stored_output(name: str) -> None:
    shifts = verify(Bundle.open(bundle.embedded()[name]))
    assert all(shift < 0.1 for shift in shifts.values()), shifts


def test_a_graph_that_deviates_is_found(lightning: Bundle) -> None:
    # The flip graph in the plain graph's place: valid, but not what was stored.
    swapped = dataclasses.replace(
        lightning, graphs={"plain": lightning.graphs["flip"], "flip": lightning.graphs["flip"]}
    )
    with pytest.raises(BundleError, match="deviates"):
        verify(swapped)


def test_a_graph_of_another_size_is_found(lightning: Bundle) -> None:
    thunder = Bundle.open(bundle.embedded()["movenet-thunder"])
    wrong = dataclasses.replace(thunder, spec=lightning.spec)
    with pytest.raises(BundleError, match="its spec wants"):
        verify(wrong)


def test_an_explicit_gpu_is_an_error_where_there_is_none(lightning: Bundle) -> None:
    started = time.perf_counter()
    with pytest.raises(DeviceError, match="has no CUDA provider"):
        Runtime(lightning, device="cuda")
    assert time.perf_counter() - started < 2
    assert Runtime(lightning, device="auto", threads=1).provider == CPU


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:x", ""])
def test_a_device_that_does_not_exist_is_refused(lightning: Bundle, device: str) -> None:
    with pytest.raises(InputError, match="wanted auto, cpu, cuda or cuda:N"):
        Runtime(lightning, device=device)


def test_weights_of_another_shape_are_refused(lightning: Bundle) -> None:
    name = max(lightning.weights, key=lambda each: lightning.weights[each].size)
    weights = {**lightning.weights, name: lightning.weights[name][:1]}
    with pytest.raises(BundleError, match="cannot load it"):
        open_session(lightning.graphs["plain"], weights, device="cpu", threads=1)


def test_threads_are_those_of_this_process() -> None:
    assert 1 <= usable_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("quota", "threads"), [("30000", 1), ("100000", 1), ("110000", 2)])
def test_threads_are_no_more_than_the_container_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n", encoding="ascii")
    limits = partial(providers.cgroup_cpus, tmp_path, tmp_path / "none")
    monkeypatch.setattr(session, "cgroup_cpus", limits)
    assert usable_threads() == min(threads, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("threads", [0, -1, 10**6, 10**400])
def test_threads_without_reason_are_refused(threads: int, lightning: Bundle) -> None:
    with pytest.raises(InputError, match="threads: wanted a whole number from 1 to 1024"):
        Runtime(lightning, threads=threads)


@pytest.mark.parametrize(("count", "threads"), [(1, 1), (3, 1), (5, 1), (5, 2)])
def test_a_graph_of_a_fixed_batch_is_filled_up(count: int, threads: int, lightning: Bundle) -> None:
    """As `export --batch 4` writes: any number of persons gets the answer of a free batch."""
    model = onnx.load_from_string(lightning.graphs["plain"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    fixed = dataclasses.replace(lightning, graphs={"plain": model.SerializeToString()})
    crops = np.concatenate([lightning.reference["crops"]] * 2)[:count]
    wanted = Runtime(lightning, device="cpu", threads=1, flip=False).infer(crops)
    found = Runtime(fixed, device="cpu", threads=threads, flip=False).infer(crops)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_graph_that_fails_while_it_runs_is_one_sentence(lightning: Bundle) -> None:
    """A Reshape that fits no crop: ONNX Runtime finds out only when it runs."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["s"], value_ints=[7, 11]),
        onnx.helper.make_node("Cast", ["crops"], ["f"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Reshape", ["f", "s"], ["points"]),
        onnx.helper.make_node("Identity", ["points"], ["scores"]),
    ]
    value = onnx.helper.make_tensor_value_info
    side = lightning.spec.input_size[0]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("crops", onnx.TensorProto.UINT8, ["N", side, side, 3])],
        [value(name, onnx.TensorProto.FLOAT, None) for name in ("points", "scores")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    data = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    broken = dataclasses.replace(lightning, graphs={"plain": data})
    runtime = Runtime(broken, device="cpu", threads=1, flip=False)
    with pytest.raises(EngineError, match="could not run it") as caught:
        runtime.infer(lightning.reference["crops"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names", [["points"], ["points", "scores", "scores"], ["scores", "points"]]
)
def test_a_graph_with_other_outputs_is_one_sentence(names: list[str], lightning: Bundle) -> None:
    model = onnx.load_model_from_string(lightning.graphs["plain"])
    first, second = ("points", "scores")
    given = {each.name: each for each in model.graph.output}
    chosen = dict(zip((first, second), given.values(), strict=True))
    again = onnx.helper.make_node("Identity", [chosen[second].name], ["again"])
    model.graph.node.append(again)
    third = onnx.helper.make_tensor_value_info("again", onnx.TensorProto.FLOAT, None)
    outputs = [chosen[name] for name in names[:2]] + [third] * (len(names) > 2)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    changed = dataclasses.replace(lightning, graphs={"plain": model.SerializeToString()})
    with pytest.raises(EngineError, match=r"its graph gives .* wanted points and scores of 17"):
        Runtime(changed, device="cpu", threads=1, flip=False).infer(lightning.reference["crops"])


def test_views_of_a_file_without_its_graph_are_refused_by_that_name() -> None:
    whole = Bundle.open(bundle.find("movenet-lightning"))
    exported = dataclasses.replace(whole, graphs={"flip": whole.graphs["flip"]})
    with pytest.raises(BundleError, match="no graph maps, as an exported file: --views"):
        Runtime(exported, graph="maps", device="cpu")
    with pytest.raises(BundleError, match="leave out --no-flip"):
        Runtime(exported, flip=False, device="cpu")
