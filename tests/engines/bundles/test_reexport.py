"""A bundle in another precision: its parts, its parents, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from posekit import Bundle, api
from posekit.bundle import find
from posekit.diagnostics.verify import verify
from posekit.errors import BundleError, InputError
from posekit.inference.runtime import Runtime
from posekit_engines.export import export
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.options import ExportOptions


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Lightning without the flip test, in fp16."""
    path = tmp_path_factory.mktemp("half") / "half.posekit"
    source = Bundle.open(find("movenet-lightning"))
    return path, export(source, path, ExportOptions(flip=False, precision="fp16"))


def test_it_has_one_points_graph_in_its_precision_and_the_maps_in_fp32(
    half: tuple[Path, dict[str, Any]],
) -> None:
    bundle = Bundle.open(half[0])
    assert set(bundle.graphs) == {"plain", "maps"}
    graphs = {name: onnx.load_from_string(data) for name, data in bundle.graphs.items()}
    assert dtype_summary(graphs["plain"])["operators"]["float16"] > 60
    assert set(dtype_summary(graphs["maps"])["operators"]) == {"float"}
    inside = {each.data_location for each in graphs["plain"].graph.initializer}
    assert onnx.TensorProto.EXTERNAL not in inside
    assert len(bundle.weights) > 100  # adaptation starts from these


def test_its_parity_and_its_parent_are_in_it(half: tuple[Path, dict[str, Any]]) -> None:
    bundle = Bundle.open(half[0])
    parity = json.loads(bundle.extras["parity.json"])
    assert set(parity) == {"plain"}
    assert parity["plain"]["crop_px"] == half[1]["crop_px"]
    assert parity["plain"]["crop_px"]["mean"] <= 0.1
    assert bundle.provenance["parents"] == [Bundle.open(find("movenet-lightning")).sha256]
    exported = bundle.provenance["export"]
    assert (exported["precision"], exported["graph"]) == ("fp16", "plain")


def test_it_is_verified_and_runs_as_exported(half: tuple[Path, dict[str, Any]]) -> None:
    bundle = Bundle.open(half[0])
    assert set(verify(bundle)) == {"plain", "maps"}
    points, _ = Runtime(bundle, device="cpu", threads=1, flip=False).infer(
        bundle.reference["crops"][:1]
    )
    assert points.shape == (1, 17, 2)
    with pytest.raises(BundleError, match="pass --no-flip"):
        api.load(half[0], "cpu", 1)


def test_exported_again_it_starts_from_its_weights(
    half: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Back to fp32: three graphs with external weights, and one parent more."""
    output = tmp_path / "again.posekit"
    export(Bundle.open(half[0]), output, ExportOptions())
    bundle = Bundle.open(output)
    assert set(bundle.graphs) == {"flip", "maps", "plain"}
    assert len(bundle.provenance["parents"]) == 2
    assert bundle.provenance["export"]["precision"] == "fp32"
    assert set(json.loads(bundle.extras["parity.json"])) == {"flip", "plain"}
    with pytest.raises(InputError, match="--calibrate"):
        export(bundle, tmp_path / "x.posekit", ExportOptions(precision="int8"))
