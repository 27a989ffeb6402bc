"""MoveNet as npm packages carry it: a tfjs graph model becomes what the embedded models are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posekit import bundle, checkpoints
from posekit.bundle import Bundle
from posekit.errors import CheckpointError
from posekit.nets import movenet
from tests.support.states import item


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


def tfjs(model: Bundle, folder: Path) -> Path:
    """The embedded weights in the package's form; heads that posekit leaves out are noise."""
    random = np.random.default_rng(0)
    net = movenet.MoveNet("movenet-lightning", 192, gate=1, complete=True)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    listed: list[dict[str, Any]] = []
    data = b""

    def put(name: str, value: Any) -> None:
        nonlocal data
        kind = {"dtype": "float32", "quantization": {"dtype": "float16"}}
        listed.append({"name": name, "shape": list(value.shape), **kind})
        data += np.ascontiguousarray(value, np.float16).tobytes()

    for module, weight, bias in movenet._sources():
        for name, tfjs_name in ((f"{module}.weight", weight), (f"{module}.bias", bias)):
            if tfjs_name is None:
                continue
            value = model.weights.get(name)
            value = random.normal(size=shapes[name]) if value is None else value
            if name.endswith("weight"):  # (out, in, H, W) to (H, W, in, out), or (H, W, C, 1)
                axes = (2, 3, 0, 1) if module.endswith("depthwise") else (2, 3, 1, 0)
                value = value.transpose(axes)
            put(tfjs_name, value)
    (folder / "movenet-lightning.bin").write_bytes(data)
    manifest = [{"paths": ["movenet-lightning.bin"], "weights": listed}]
    path = folder / "movenet-lightning.json"
    path.write_text(json.dumps({"format": "graph-model", "weightsManifest": manifest}))
    return path


def test_the_npm_file_gives_the_embedded_model(lightning: Bundle, tmp_path: Path) -> None:
    converted = checkpoints.load(tfjs(lightning, tmp_path))
    assert converted.spec == lightning.spec
    assert set(converted.weights) == set(lightning.weights)
    for name, value in lightning.weights.items():
        np.testing.assert_array_equal(converted.weights[name], value.astype(np.float32))
    assert item(converted, "architecture") == ("movenet-lightning", "weights", False)
    assert item(converted, "convention") == ("half-pixel", "family default", False)


def test_a_flag_comes_before_what_is_known_of_movenet(lightning: Bundle, tmp_path: Path) -> None:
    path = tfjs(lightning, tmp_path)
    spec = checkpoints.load(path, checkpoints.Overrides(padding=1.25, decode="quarter")).spec
    assert (spec.padding, spec.decode) == (1.25, "quarter")


def test_without_its_weights_or_of_another_network_it_is_refused(
    lightning: Bundle, tmp_path: Path
) -> None:
    path = tfjs(lightning, tmp_path)
    data = tmp_path / "movenet-lightning.bin"
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="damaged, or not a tfjs model"):
        checkpoints.load(path)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"movenet-lightning\.bin that it names cannot be"):
        checkpoints.load(path)
    (tmp_path / "w.bin").write_bytes(bytes(4))
    weights = [{"name": "StatefulPartitionedCall/x", "shape": [1], "dtype": "float32"}]
    manifest = [{"paths": ["w.bin"], "weights": weights}]
    path.write_text(json.dumps({"weightsManifest": manifest}))
    with pytest.raises(CheckpointError, match="not MoveNet SinglePose"):
        checkpoints.load(path)
    manifest[0]["paths"] = ["../w.bin"]
    path.write_text(json.dumps({"weightsManifest": manifest}))
    with pytest.raises(CheckpointError, match="which is not beside it"):
        checkpoints.load(path)
