"""A checkpoint becomes a bundle that runs, and that names its assumptions."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from posekit import api
from posekit.bundle import Bundle
from posekit.checkpoints import Overrides
from posekit.cli import app
from posekit.diagnostics.verify import verify
from posekit.errors import ExportError, InputError, SourceError
from posekit.inference.runtime import Runtime
from posekit.inference.session import open_session
from posekit.nets import build
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.bundles.assemble import assemble_bundle
from posekit_engines.convert import convert, read_checkpoint
from posekit_engines.export import export
from posekit_engines.graphs.weights import load_weights
from posekit_engines.options import ExportOptions
from posekit_engines.parity.source import source_maps, source_points
from tests.support.full_disk import full_disk
from tests.support.states import FLAT, blank, renamed, saved


@pytest.mark.parametrize("color", ["bgr", pytest.param("rgb", marks=pytest.mark.slow)])
def test_a_converted_checkpoint_becomes_a_bundle_that_runs(color: Any, tmp_path: Path) -> None:
    """The graph equals the network in torch, with the spec's own color order."""
    torch.manual_seed(3)
    spec = ModelSpec("simple-baseline-r18", (64, 96), (16, 24), COCO_17)
    net = build(spec)
    for name, value in net.state_dict().items():
        if name.startswith("head.") and name.endswith("weight") and value.ndim == 4:
            value.mul_(30)  # so that peaks are high
    source = saved(renamed(dict(net.state_dict()), FLAT), tmp_path / "net_96x64.pth")
    output = tmp_path / "net.posekit"
    converted = convert(source, output, Overrides(color=color))
    bundle = Bundle.open(output)
    assert bundle.spec == converted.spec
    assert bundle.provenance["color"] == f"{color} (flag)"
    assert bundle.provenance["convention"] == "msra (family default, assumed)"
    assert set(verify(bundle)) == {"flip", "maps", "plain"}
    assert set(json.loads(bundle.extras["parity.json"])) == {"flip", "plain"}
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
    with pytest.raises(InputError, match=r"wanted a name in \.posekit"):
        convert(source, output.with_suffix(".onnx"), Overrides())


def test_weights_beyond_float16_are_kept_but_not_halved(small: Path, tmp_path: Path) -> None:
    state = torch.load(small)
    state["bn1.running_var"] = torch.full((64,), 1e5)
    path, output = saved(state, tmp_path / "net_64x64.pth"), tmp_path / "net.posekit"
    with pytest.raises(ExportError, match=r"backbone\.bn1\.running_var: holds 100000"):
        convert(path, output, Overrides(), storage="fp16")
    assert not output.exists()
    convert(path, output, Overrides())
    assert (Bundle.open(output).weights["backbone.bn1.running_var"] == 1e5).all()


def test_a_network_without_finite_heatmaps_is_no_bundle(tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "net_64x64.pth")
    with pytest.raises(ExportError, match="not finite"), np.errstate(all="ignore"):
        convert(path, tmp_path / "net.posekit", Overrides())


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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights: many of its tensors are equal (biases, norms)."""
    torch.manual_seed(5)
    net = build(ModelSpec("simple-baseline-r18", (64, 64), (16, 16), COCO_17))
    path = tmp_path_factory.mktemp("small") / "net_64x64.pth"
    return saved(renamed(dict(net.state_dict()), FLAT), path)


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_new_weights_are_used_in_every_layer_without_a_new_graph(step: int, small: Path) -> None:
    """Each tensor is changed alone; the old graph must compute what the network in torch does.

    A graph with one tensor for two equal ones would change two layers, or none.
    """
    bundle = assemble_bundle(read_checkpoint(small))
    spec = bundle.pose_spec
    crops = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    before = _maps(bundle, crops)
    for name in sorted(bundle.weights)[::step]:
        old = bundle.weights[name]
        change = np.linspace(0.5, 1.5, old.size).reshape(old.shape)
        weights = {**bundle.weights, name: (old * change + 0.25).astype(old.dtype)}
        after = _maps(dataclasses.replace(bundle, weights=weights), crops)
        wanted = source_maps(load_weights(build(spec), weights), crops, spec, flip=False)
        peak = float(np.abs(wanted).max())
        np.testing.assert_allclose(after, wanted, atol=1e-4 * peak, err_msg=name)
        assert float(np.abs(after - before).max()) > 1e-3 * peak, name


def _maps(bundle: Bundle, crops: Any) -> Any:
    session = open_session(bundle.graphs["maps"], bundle.weights, device="cpu", threads=1)
    return session.run(None, {"crops": crops})[0]


def test_a_bundle_exported_again_keeps_its_parents(small: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{n}.posekit" for n in (1, 2, 3))
    export(read_checkpoint(small), first, ExportOptions())
    export(Bundle.open(first), second, ExportOptions(decode="quarter"))
    export(Bundle.open(second), third, ExportOptions())
    opened = [Bundle.open(path) for path in (first, second, third)]
    assert [each.provenance["parents"] for each in opened] == [
        [],
        [opened[0].sha256],
        [opened[0].sha256, opened[1].sha256],
    ]
    assert opened[2].pose_spec.decode == "quarter"
    assert opened[2].provenance["sha256"] == read_checkpoint(small).sha256  # the checkpoint's
    assert opened[1].provenance["export"]["decode"] == "quarter"
    assert third.with_name("3.posekit.parity.json").is_file()
    printed = CliRunner().invoke(app, ["inspect", str(third)]).stdout
    assert f"{opened[0].sha256[:12]} -> {opened[1].sha256[:12]} -> this" in printed


def test_a_checkpoint_is_loaded_as_a_model(small: Path) -> None:
    estimator = api.load(small, "cpu", 1, boxes="full")
    assert estimator.runtime.spec.architecture == "simple-baseline-r18"


def test_parity_is_measured_again_without_torch_or_onnx(small: Path, tmp_path: Path) -> None:
    """For an embedded bundle, and for a new one, with the stored outputs of its source."""
    new = tmp_path / "new.posekit"
    assemble_bundle(read_checkpoint(small)).save(new)
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from posekit.cli import main\n"
        "main()"
    )
    for model, points in (("movenet-lightning", 20), (str(new), 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, "verify", model, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        parity = json.loads(done.stdout)["parity"]
        assert set(parity) == {"flip", "maps", "plain"}
        for figures in parity.values():
            assert figures["points"] >= points
            assert figures["mean_px"] <= 0.1
            assert figures["max_score"] <= 0.02


def test_the_stored_reference_is_that_of_the_source_s_own_weights(small: Path) -> None:
    """In float32, also where the bundle's weights are float16: parity measures what those cost."""
    source = read_checkpoint(small)
    bundle = assemble_bundle(source, storage="fp16")
    exact = load_weights(build(source.pose_spec), source.weights)
    _, scores = source_points(exact, bundle.reference["crops"], source.pose_spec, flip=False)
    np.testing.assert_array_equal(bundle.reference["plain_scores"], scores)
    rounded = load_weights(build(source.pose_spec), bundle.weights)
    other = source_points(rounded, bundle.reference["crops"], source.pose_spec, flip=False)
    assert not np.array_equal(other[1], scores)


def test_a_target_that_cannot_be_written_is_an_error_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    started = time.process_time()
    with pytest.raises(SourceError, match="a file stands where its folder should be"):
        convert(tmp_path / "none.pth", tmp_path / "file" / "x.posekit", Overrides())
    assert time.process_time() - started < 1


def test_a_disk_that_fills_while_converting_leaves_nothing_and_the_old_output(
    small: Path, tmp_path: Path
) -> None:
    old = tmp_path / "x.posekit"
    old.write_bytes(b"old")
    with full_disk(100_000), pytest.raises(SourceError, match="no room left"):
        convert(small, old, Overrides(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.posekit"]
    assert old.read_bytes() == b"old"
