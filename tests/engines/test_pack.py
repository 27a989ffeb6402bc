"""A checkpoint becomes a bundle that runs and says what was assumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from posekit.bundle import Bundle
from posekit.checkpoints import Overrides
from posekit.cli import app
from posekit.errors import ExportError, SourceError
from posekit.nets import build
from posekit.runtime import Runtime, verify
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.pack import convert
from tests.states import FLAT, blank, renamed, saved


@pytest.mark.parametrize("color", ["bgr", pytest.param("rgb", marks=pytest.mark.slow)])
def test_a_converted_checkpoint_becomes_a_bundle_that_runs(color: Any, tmp_path: Path) -> None:
    """The graph equals the network in torch on the spec's own colour order."""
    torch.manual_seed(3)
    spec = ModelSpec("simple-baseline-r18", (64, 96), (16, 24), COCO_17)
    net = build(spec)
    for name, value in net.state_dict().items():
        if name.startswith("head.") and name.endswith("weight") and value.ndim == 4:
            value.mul_(30)  # peaks that count
    source = saved(renamed(dict(net.state_dict()), FLAT), tmp_path / "net_96x64.pth")
    output = tmp_path / "net.posekit"
    converted = convert(source, output, Overrides(color=color))
    bundle = Bundle.open(output)
    assert bundle.spec == converted.spec
    assert bundle.provenance["color"] == f"{color} (flag)"
    assert bundle.provenance["convention"] == "msra (family default, assumed)"
    assert set(verify(bundle)) == {"flip", "plain"}
    crops = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    image = crops if color == "rgb" else crops[..., ::-1]
    scaled = (image - np.array(bundle.pose_spec.mean)) / np.array(bundle.pose_spec.std)
    with torch.no_grad():
        maps = net(torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy()).float())
    _, scores = Runtime(bundle, device="cpu", threads=1, flip=False).infer(crops)
    peaks = maps.flatten(2).amax(2).numpy()
    np.testing.assert_allclose(scores, peaks, rtol=5e-3, atol=5e-3 * float(peaks.max()))
    with pytest.raises(SourceError, match="--overwrite"):
        convert(source, output, Overrides())


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    state = renamed(blank("simple-baseline-r18"), FLAT)
    state["bn1.running_var"] = torch.full((64,), 1e5)
    path = saved(state, tmp_path / "net.pth")
    with pytest.raises(ExportError, match=r"backbone\.bn1\.running_var: holds 100000"):
        convert(path, tmp_path / "net.posekit", Overrides())
    assert not (tmp_path / "net.posekit").exists()


def test_the_command_prints_what_it_assumed(tmp_path: Path) -> None:
    net = build(ModelSpec("simple-baseline-r18", (64, 64), (16, 16), COCO_17))
    source = saved(renamed(dict(net.state_dict()), FLAT), tmp_path / "net.pth")
    output = tmp_path / "net.posekit"
    arguments = [
        "convert",
        str(source),
        "-o",
        str(output),
        "--input-size",
        "64x64",
        "--color",
        "rgb",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "color: rgb (flag)" in result.output
    assert "convention: msra (family default, assumed)" in result.output
    assert output.exists()
