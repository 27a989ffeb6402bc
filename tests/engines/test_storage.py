"""`convert` keeps the weights given to it; another storage is measured from the original ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from posekit import checkpoints
from posekit.bundle import Bundle
from posekit.checkpoints import Overrides
from posekit.cli import app
from posekit.errors import CheckpointError
from posekit.inference.session import open_session
from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.bundles.assemble import assemble_bundle, pack
from posekit_engines.convert import convert, read_checkpoint
from posekit_engines.export import export
from posekit_engines.options import ExportOptions
from posekit_engines.parity.source import normalize, source_maps
from tests.support.states import FLAT, MMPOSE_0, State, renamed, saved

SIZE = (64, 96)


def peaked(architecture: str) -> nn.Module:
    """A network of random weights whose maps have peaks: what is scored is compared."""
    torch.manual_seed(7)
    spec = ModelSpec(architecture, SIZE, (SIZE[0] // 4, SIZE[1] // 4), COCO_17)
    net = build(spec)
    with torch.no_grad():
        for module in net.modules():  # as after training: unequal, far from one and zero
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.momentum = 1.0
        coarse = torch.randn(8, 3, SIZE[1] // 8, SIZE[0] // 8)
        images = nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
        net.train()(images)  # the running figures are those of its activations
        maps = net.eval()(images)
        final = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
        final.weight /= maps.std()
        final.bias.fill_(0.0)
    return net.eval()


def clear_peaks(maps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, K): where the highest cell is higher than every other by more than rounding."""
    first, second = np.sort(maps.reshape(*maps.shape[:2], -1), axis=2)[..., -1:-3:-1].transpose(
        2, 0, 1
    )
    clear: NDArray[np.bool_] = (first > 0.3) & (first - second > 1e-4 * first)
    return clear


def official(architecture: str, folder: Path) -> tuple[nn.Module, Path]:
    """The network, and its checkpoint with the names that its own program writes."""
    net = peaked(architecture)
    rules = MMPOSE_0 if architecture.startswith("vitpose") else FLAT
    state = renamed(dict(net.state_dict()), rules)
    return net, saved(state, folder / f"net_{SIZE[1]}x{SIZE[0]}.pth")


@pytest.mark.parametrize(
    "architecture",
    [
        "simple-baseline-r18",
        "vitpose-s-simple",
        pytest.param("hrnet-w18", marks=pytest.mark.slow),
    ],
)
def test_graphs_of_an_official_checkpoint_equal_torch(architecture: str, tmp_path: Path) -> None:
    """Raw maps within 1e-5 of the largest in float64; float32 rounds a value by 6e-8."""
    net, path = official(architecture, tmp_path)
    packed = assemble_bundle(read_checkpoint(path))
    spec, crops = packed.pose_spec, packed.reference["crops"]
    with torch.no_grad():
        exact = net.double()(torch.from_numpy(normalize(crops, spec)).double()).numpy()
    session = open_session(packed.graphs["maps"], packed.weights, device="cpu", threads=1)
    (maps,) = session.run(None, {"crops": crops})
    assert np.abs(maps - exact).max() / np.abs(exact).max() <= 1e-5
    assert {value.dtype for value in packed.weights.values()} == {np.dtype(np.float32)}
    net.float()
    for view in ("flip", "plain"):
        session = open_session(packed.graphs[view], packed.weights, device="cpu", threads=1)
        points, _ = session.run(None, {"crops": crops})
        peaks = clear_peaks(source_maps(net, crops, spec, flip=view == "flip"))
        far = np.linalg.norm(points - packed.reference[f"{view}_points"], axis=2)
        assert peaks.sum() >= 15
        assert far[peaks].max() <= 1e-4
    # The only Casts are those of the crops and of the peak's cells.
    nodes = onnx.load_from_string(packed.graphs["maps"]).graph.node
    assert [node.input[0] for node in nodes if node.op_type == "Cast"] == ["crops"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    return official("simple-baseline-r18", tmp_path_factory.mktemp("small"))


def retyped(state: State, dtype: torch.dtype) -> State:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize(
    ("dtype", "stored", "reported"),
    [
        (torch.float32, np.float32, "float32"),
        (torch.float16, np.float16, "float16"),
        (torch.bfloat16, np.float32, "float32"),
        (torch.float64, np.float32, "float32, rounded from float64"),
    ],
)
def test_the_checkpoint_s_own_type_is_kept(
    dtype: torch.dtype, stored: Any, reported: str, small: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    state = retyped(torch.load(small[1]), dtype)
    converted = checkpoints.load(saved(state, tmp_path / "net_96x64.pth"))
    found = {name.split(".", 1)[1]: value for name, value in converted.weights.items()}
    for name, value in found.items():
        assert value.dtype == stored
        np.testing.assert_array_equal(value, state[name].to(torch.float64).float().numpy())
    (item,) = (each for each in converted.items if each.name == "storage")
    assert (item.value, item.source, item.assumed) == (reported, "weights", False)


def test_types_may_be_mixed(small: tuple[nn.Module, Path], tmp_path: Path) -> None:
    """As autocast leaves them: convolutions in float16, batch norm in float32."""
    state = torch.load(small[1])
    state = {k: v.half() if v.ndim == 4 else v for k, v in state.items()}
    path = tmp_path / "net_96x64.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    converted = checkpoints.load(path)
    packed = pack(converted, "net", path)
    kinds = {name: str(value.dtype) for name, value in packed.weights.items()}
    assert kinds["backbone.conv1.weight"] == "float16"
    assert kinds["backbone.bn1.weight"] == "float32"
    assert packed.provenance["storage"] == "float16 and float32 (weights)"
    assert json.loads(packed.extras["parity.json"])["plain"]["max_px"] <= 1e-4


def test_halving_is_measured_from_the_original_weights(
    small: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    whole, half = tmp_path / "whole.posekit", tmp_path / "half.posekit"
    convert(small[1], whole, Overrides())
    arguments = ["convert", str(small[1]), "-o", str(half), "--storage", "fp16"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "storage: float16 (flag)" in done.output
    bundle, original = Bundle.open(half), Bundle.open(whole)
    assert {value.dtype for value in bundle.weights.values()} == {np.dtype(np.float16)}
    sizes = [sum(v.nbytes for v in each.weights.values()) for each in (bundle, original)]
    assert sizes[0] * 2 == sizes[1]
    np.testing.assert_array_equal(
        bundle.reference["plain_points"], original.reference["plain_points"]
    )
    cost = json.loads(bundle.extras["parity.json"])["plain"]
    own = json.loads(original.extras["parity.json"])["plain"]
    assert cost["max_score"] > 10 * own["max_score"]  # float16 rounds by 5e-4, float32 by 6e-8
    line = next(line for line in done.output.splitlines() if line.startswith("plain: "))
    assert f"max {cost['max_px']:g} px" in line
    as_json = CliRunner().invoke(app, [*arguments, "--overwrite", "--json"])
    assert json.loads(as_json.output)["parity"]["plain"] == cost


def test_an_fp32_export_of_a_checkpoint_has_no_casts(
    small: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    net, path = small
    file = tmp_path / "net.onnx"
    export(read_checkpoint(path), file, ExportOptions(outputs="raw"))
    model = onnx.load(file)
    assert "Cast" not in {node.op_type for node in model.graph.node}
    image = np.random.default_rng(0).normal(size=(1, 3, SIZE[1], SIZE[0])).astype(np.float32)
    session = open_session(file.read_bytes(), {}, device="cpu", threads=1)
    found: NDArray[Any] = session.run(None, {"image": image})[0]
    with torch.no_grad():
        exact = net.double()(torch.from_numpy(image).double()).numpy()
    net.float()
    assert np.abs(found - exact).max() / np.abs(exact).max() <= 1e-5


def test_integers_where_floats_belong_are_named(
    small: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    state = torch.load(small[1])
    state["conv1.weight"] = state["conv1.weight"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"conv1\.weight: holds int8; wanted floats"):
        checkpoints.load(saved(state, tmp_path / "net_96x64.pth"))
