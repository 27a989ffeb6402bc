"""MoveNet is the published network, is drawn to the person in the middle, and trains."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import CheckpointError, InputError
from posekit.nets import build, movenet
from posekit.nets.movenet import MoveNet, weights_from_tfjs
from tests.support.assets import shared, shipped

SIDES = {"movenet-thunder": 256, "movenet-lightning": 192}


def bundle(name: str) -> Bundle:
    return Bundle.open(shipped(f"posekit/models/{name}.posekit"))


def network(opened: Bundle, **changes: Any) -> MoveNet:
    net = build(replace(opened.pose_spec, **changes))
    assert isinstance(net, MoveNet)
    state = {key: torch.from_numpy(v.astype(np.float32)) for key, v in opened.weights.items()}
    # Without a gate there is no regress head to load.
    net.load_state_dict({key: state[key] for key in net.state_dict()})
    return net


def image(opened: Bundle) -> Tensor:
    """The bundle's check crops, normalized, (N, 3, S, S)."""
    crops = torch.from_numpy(opened.reference["crops"]).permute(0, 3, 1, 2)
    return crops.float() / 127.5 - 1


@pytest.mark.assets
@pytest.mark.parametrize("name", SIDES)
def test_heads_equal_the_original_graph(name: str) -> None:
    file = shared(f"weights/{name.replace('-', '_')}_{SIDES[name]}.onnx")
    original = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    opened = bundle(name)
    crops = opened.reference["crops"].transpose(0, 3, 1, 2).astype(np.float32)
    heatmap, regress = original.run(["heatmap", "regress"], {"image": crops})
    with torch.no_grad():
        heads = network(opened).heads(image(opened))
    assert np.abs(heads["heatmap"].sigmoid().numpy() - heatmap).max() < 1e-4
    # Cells, up to 40 of them: float32 rounds at 4e-6.
    # Cells, not shares: 48 times as large, and so is the rounding of sixty layers.
    np.testing.assert_allclose(heads["regress"].numpy(), regress, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("gate", [0.5, 2.0])
def test_gate_weighs_by_the_distance_to_the_regressed_joint(gate: float) -> None:
    opened = bundle("movenet-lightning")
    net = network(opened, gate=gate)
    with torch.no_grad():
        heads, maps = net.heads(image(opened)), net(image(opened))
    row, column = np.mgrid[:48, :48]
    regress = heads["regress"].numpy()[:, :, 24, 24] + 24  # cells of the joints, y then x
    y, x = (regress[:, axis::2, None, None] for axis in (0, 1))
    squared = (row - y) ** 2 + (column - x) ** 2
    wanted = heads["heatmap"].sigmoid().numpy() / (1 + gate * squared / 64)
    np.testing.assert_allclose(maps.numpy(), wanted, rtol=1e-4, atol=1e-7)


def test_no_gate_gives_the_plain_heatmaps() -> None:
    opened = bundle("movenet-lightning")
    net = network(opened, gate=0.0)
    with torch.no_grad():
        assert torch.equal(net(image(opened)), net.heads(image(opened))["heatmap"].sigmoid())
    assert set(net.head) == {"heatmap"}


def test_gate_prefers_the_person_in_the_middle() -> None:
    """Two persons side by side: with the gate each crop's output is its own person."""
    opened = bundle("movenet-lightning")
    crop = opened.reference["crops"][1]
    pair = np.concatenate([crop[:, 48:144], crop[:, 48:144]], 1)  # the same woman twice
    own = np.roll(pair, 48, axis=1)  # one in the middle, half of the other at each edge
    view = torch.from_numpy(np.ascontiguousarray(own)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        columns = {
            gate: network(opened, gate=gate)(view)[0].flatten(1).argmax(1).numpy() % 48
            for gate in (0.0, 1.0)
        }
    far = {gate: int((np.abs(column - 23.5) > 14).sum()) for gate, column in columns.items()}
    assert far[1.0] == 0, far


@pytest.mark.parametrize("name", SIDES)
def test_mirrored_person_gets_the_mirrored_output(name: str) -> None:
    """So the flip merge needs nothing special: each view's gate comes from its own regress."""
    opened = bundle(name)
    spec, net = opened.pose_spec, network(opened)
    with torch.no_grad():
        maps, mirrored = (net(view).numpy() for view in (image(opened), image(opened).flip(3)))
    points, scores = codecs.decode(maps, spec)
    back, _ = codecs.decode(mirrored, spec)
    back = back[:, list(spec.skeleton.mirror)]
    back[..., 0] = spec.input_size[0] - 1 - back[..., 0]
    shift = np.abs(back - points)[scores > 0.4]
    # Half a cell in the middle: were the flip shift MSRA's 0.75 cells, x would be 3 px off.
    assert np.median(shift) < 2.0
    assert shift[:, 0].mean() < 4.0


def test_learns() -> None:
    """Every weight gets a gradient, also where the joint lies exactly in a cell's center."""
    torch.manual_seed(0)
    net = MoveNet("movenet-lightning", 64, gate=1.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    image, wanted = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 17, 16, 16)
    losses = []
    for _ in range(3):
        loss = ((net(image) - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert losses[-1] < losses[0]


def tfjs_tensors(net: MoveNet) -> dict[str, NDArray[np.float16]]:
    """Random tensors with the names and shapes of the published tfjs model."""
    rng = np.random.default_rng(0)
    state = net.state_dict()
    tensors = {}
    for module, weight, bias in movenet._sources():
        outputs, inputs, rows, columns = state[f"{module}.weight"].shape
        shape = (rows, columns, inputs, outputs)
        if module.endswith("depthwise"):
            shape = (rows, columns, outputs, inputs)
        tensors[weight] = rng.standard_normal(shape).astype(np.float16)
        if bias is not None:
            tensors[bias] = rng.standard_normal(outputs).astype(np.float16)
    return tensors


@pytest.mark.parametrize("name", SIDES)
def test_weights_from_tfjs_fill_the_complete_network(name: str) -> None:
    net = MoveNet(name, SIDES[name], gate=1.0, complete=True)
    tensors = tfjs_tensors(net)
    state = weights_from_tfjs(tensors)
    assert {value.dtype for value in state.values()} == {np.dtype(np.float16)}
    net.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    kernel = tensors[f"{movenet._MODEL}model/Conv1/Conv2D_weights"]
    assert state["backbone.stem.weight"][5, 1, 0, 2] == kernel[0, 2, 1, 5]
    kernel = tensors[f"{movenet._MODEL}model/block_3_depthwise/depthwise_weights"]
    assert state["backbone.blocks.3.depthwise.weight"][5, 0, 1, 2] == kernel[1, 2, 5, 0]
    assert set(net.head) == {"heatmap", "regress", "center", "offset"}


def test_tfjs_model_that_lacks_a_tensor_is_refused() -> None:
    tensors = tfjs_tensors(MoveNet("movenet-lightning", 192, gate=1.0, complete=True))
    name = next(iter(tensors))
    with pytest.raises(CheckpointError, match="got float32"):
        weights_from_tfjs({**tensors, name: tensors[name].astype(np.float32)})
    del tensors[name]
    with pytest.raises(CheckpointError, match=r"Conv1/Conv2D_weights.*got nothing"):
        weights_from_tfjs(tensors)


def test_unknown_size_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        MoveNet("movenet-thunder", 200)
