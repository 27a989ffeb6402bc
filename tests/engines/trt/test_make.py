"""TensorRT for RTX builds every network ahead of time; nothing is executed."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from posekit import bundle, nets
from posekit.bundle import Bundle
from posekit.errors import BundleError, ExportError, InputError
from posekit_engines.build import BuildOptions
from posekit_engines.export import export
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import heatmaps_graph
from posekit_engines.options import ExportOptions
from posekit_engines.trt import cache, inspect, make
from posekit_engines.trt.build import plan_for
from posekit_engines.trt.builder import BuilderSettings, build_engine
from tests.engines.tensorrt_tools import TURING, as_bundle, random_network, rtx, small_spec

QUICK = {("movenet-lightning", "raw"), ("simple-baseline-r18", "points")}
# a float32 graph of ViTPose-H exceeds the limit of one file: see below
NETWORKS = [name for name in nets.ARCHITECTURES if not name.startswith("vitpose-h")]
SLOW = sorted({(name, kind) for name in NETWORKS for kind in ("raw", "points")} - QUICK)


@functools.lru_cache(1)
def source(architecture: str) -> Bundle:
    spec = small_spec(architecture)
    net = random_network(spec)
    graph = heatmaps_graph(network_graph(net, spec), spec, flip=False)
    return as_bundle(spec, net, graph)


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("movenet-lightning", "raw"),
        ("simple-baseline-r18", "points"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_every_network_builds_in_fp16(architecture: str, kind: Any, tmp_path: Path) -> None:
    """With its decode or alone, for the default capabilities and for Turing."""
    trt, built = rtx(), source(architecture)
    file = tmp_path / "graph.onnx"
    make.write_graph(built, ExportOptions(outputs=kind, precision="fp16"), file)
    for capabilities in ((), TURING):
        found = build_engine(trt, file, BuilderSettings((1, 4, 16), capabilities=capabilities))
        inspect.check_precision(found.layers, "fp16", architecture)
        width, height = built.pose_spec.input_size
        count = len(built.pose_spec.skeleton)
        if kind == "raw":
            columns, rows = built.pose_spec.heatmap_size
            assert found.inputs == {"image": tensor("float16", 3, height, width)}
            assert found.outputs == {"heatmaps": tensor("float16", count, rows, columns)}
        else:
            assert found.inputs == {"crops": tensor("uint8", height, width, 3)}
            assert found.outputs == {
                "points": tensor("float32", count, 2),
                "scores": tensor("float32", count),
            }
        (shapes,) = found.profile.values()
        assert [shape[0] for shape in shapes] == [1, 4, 16]
        weights = sum(value.size for value in built.weights.values())
        assert len(found.data) > 1.5 * weights  # most of them are in it with two bytes each


def tensor(dtype: str, *sizes: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [-1, *sizes]}


def test_a_network_too_large_for_a_graph_in_one_piece_is_refused(
    lightning: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "MAX_INLINE_BYTES", 1_000_000)
    options = ExportOptions(outputs="raw", precision="fp16")
    with pytest.raises(ExportError, match=r"movenet-lightning: 0\.0 GB of weights in float32"):
        make.write_graph(lightning, options, tmp_path / "graph.onnx")


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_fp16_that_turns_out_fp32_is_refused(
    lightning: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(make, "apply_precision", lambda model, *_: (model, {}))  # no conversion
    with pytest.raises(ExportError, match=r"--precision fp16: .*68 in float32"):
        plan_for(lightning, None, trt=rtx())
    assert not list(tmp_path.rglob("*.plan"))


@pytest.fixture
def only_rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on a machine with only TensorRT for RTX, and an empty cache."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_an_export_is_a_plan_its_metadata_and_a_report(lightning: Bundle, only_rtx: Path) -> None:
    path = only_rtx / "poses.plan"
    options = ExportOptions(precision="fp16", flip=False, profile=(1, 2, 4))
    report = export(lightning, path, options)
    names = ["poses.plan", *(f"poses.plan.{end}" for end in ("json", "parity.html", "parity.json"))]
    assert sorted(each.name for each in only_rtx.iterdir()) == names
    metadata = json.loads((only_rtx / "poses.plan.json").read_text())
    data = path.read_bytes()
    assert metadata["sha256"] == hashlib.sha256(data).hexdigest()
    assert (metadata["kind"], metadata["precision"], metadata["flip"]) == ("points", "fp16", False)
    assert (metadata["profile"], metadata["library"], metadata["gpu"]) == (
        [1, 2, 4],
        "tensorrt_rtx",
        None,
    )
    assert metadata["multiplies"] == {"float16": 68}
    assert report["to"] == "tensorrt"
    assert report["bytes"] == len(data)
    assert "the engine itself was not executed" in report["runtime"]
    assert "the engine itself was not executed" in (only_rtx / "poses.plan.parity.html").read_text()
    assert report["within_budget"]
    assert report["points"] >= 100  # real peaks were compared


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_bf16_is_emulated_and_reported_so(lightning: Bundle, only_rtx: Path) -> None:
    path = only_rtx / "poses.plan"
    options = ExportOptions(outputs="raw", precision="bf16", profile=(1, 2, 4))
    report = export(lightning, path, options)
    assert report["plan"]["multiplies"] == {"bfloat16": 68}
    assert report["plan"]["inputs"]["image"]["dtype"] == "float32"
    assert "emulated" in report["runtime"]
    assert 0.0 < report["mean_px"] <= 0.5  # rounded, and within its budget
    assert report["contained"]["operators"] == {"bfloat16": 68}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8", "calibrate": "."}, "zero points, which TensorRT does not support"),
        ({"precision": "bf16", "affine": True}, "not emulated"),
        ({"profile": (4, 2, 8)}, "wanted 1 <= minimum <= usual <= maximum"),
        ({"profile": (1, 2, 4), "batch": 2}, "give one"),
        ({"to": "onnx", "refit": True}, "--refit is for --to tensorrt"),
        ({"to": "onnx", "precision": "bf16"}, "or --to tensorrt"),
        ({"to": "bundle", "profile": (1, 2, 4)}, "--profile is for --to tensorrt"),
    ],
    ids=str,
)
def test_impossible_options_are_refused_before_any_work(
    options: dict[str, Any], message: str, lightning: Bundle, tmp_path: Path
) -> None:
    name = {"onnx": "poses.onnx", "bundle": "poses.posekit"}.get(
        options.get("to", ""), "poses.plan"
    )
    with pytest.raises(InputError, match=message):
        export(lightning, tmp_path / name, ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_persons_become_the_profiles(lightning: Bundle) -> None:
    profiles = [
        [each.profile for each in BuildOptions(persons=persons, flip=flip).plans(lightning)]
        for persons, flip in ((2, True), (2, False), (40, True), (None, True))
    ]
    assert profiles == [
        [(1, 4, 4), (1, 2, 2)],  # two images per person for raw
        [(1, 2, 2), (1, 2, 2)],
        [(1, 16, 80), (1, 8, 40)],
        [None, None],
    ]


@pytest.mark.tools
def test_build_writes_a_bundle_with_its_plans(only_rtx: Path) -> None:
    from posekit import api

    path = only_rtx / "built.posekit"
    entries = api.build("movenet-lightning", path, persons=2, kind="raw")
    assert [(each["kind"], each["profile"]) for each in entries] == [("raw", [1, 4, 4])]
    opened = Bundle.open(path)
    assert sorted(each.key for each in cache.plans_in(opened)) == sorted(
        each["key"] for each in entries
    )
    shutil.rmtree(only_rtx / "cache")
    again = api.build(path, persons=2, kind="raw")
    assert again[0]["origin"] == "bundle"
    with pytest.raises(InputError, match="wanted cuda or cuda:N"):
        api.build(path, device="cpu")
    with pytest.raises(BundleError, match="no such file"):
        api.build("no-such-model")
