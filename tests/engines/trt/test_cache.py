"""Metadata alone decides which plan matches this machine; no other plan is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import BundleError, DeviceError, MissingExtraError
from posekit_engines.trt import make
from posekit_engines.trt.build import plan_for
from posekit_engines.trt.cache import find, find_matching, with_plans
from posekit_engines.trt.library import RTX_CAPABILITIES, library
from posekit_engines.trt.plan import PlanFile, PlanOptions, key_of, mismatch, requirements
from tests.engines import tensorrt_tools
from tests.support.assets import ROOT


@dataclasses.dataclass(frozen=True)
class FakeGpu:
    name: str = "NVIDIA RTX A4000"
    capability: tuple[int, int] = (8, 6)


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "posekit" / "engines"


def named(name: str = "tensorrt", version: str = "11.4.0.106") -> Any:
    """A module with a name and a version: nothing here calls TensorRT."""
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    return module


def metadata(wanted: dict[str, Any], data: bytes, **changed: Any) -> dict[str, Any]:
    """Metadata of a matching plan, but for `changed`."""
    rest = {"profile": [1, 16, 128], "sha256": hashlib.sha256(data).hexdigest()}
    rtx = wanted["library"].endswith("_rtx")
    built_for = [list(each) for each in RTX_CAPABILITIES] if rtx else None
    return {**wanted, **rest, "capabilities": built_for, **changed}


def test_every_requirement_is_in_the_key(lightning: Bundle) -> None:
    other = {name: value + np.float16(1) for name, value in lightning.weights.items()}
    trained = dataclasses.replace(lightning, weights=other)
    refined = dataclasses.replace(
        lightning, spec=dataclasses.replace(lightning.pose_spec, decode="argmax")
    )
    keys = [
        key_of(requirements(source, gpu, trt, options=options))
        for source, gpu, trt, options in (
            (lightning, FakeGpu(), named(), PlanOptions()),
            (trained, FakeGpu(), named(), PlanOptions()),
            (refined, FakeGpu(), named(), PlanOptions()),
            (lightning, FakeGpu("NVIDIA H100"), named(), PlanOptions()),
            (lightning, FakeGpu(capability=(8, 9)), named(), PlanOptions()),
            (lightning, FakeGpu(), named("tensorrt_rtx"), PlanOptions()),
            (lightning, FakeGpu(), named(version="11.4.0.107"), PlanOptions()),
            (lightning, FakeGpu(), named(), PlanOptions(kind="points")),
            (lightning, FakeGpu(), named(), PlanOptions(kind="points", flip=False)),
            (lightning, FakeGpu(), named(), PlanOptions(precision="fp32")),
            (lightning, FakeGpu(), named(), PlanOptions(profile=(1, 4, 8))),
            (lightning, FakeGpu(), named(), PlanOptions(refit=True)),
            (lightning, FakeGpu(), named(), PlanOptions(version_compatible=True)),
        )
    ]
    assert len(set(keys)) == len(keys)
    usual = requirements(lightning, FakeGpu(), named(), options=PlanOptions(profile=(1, 16, 128)))
    assert key_of(usual) == keys[0]
    assert keys[0].startswith("raw-fp16-tensorrt11.4.0.106-nvidia_rtx_a4000-sm86-")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, ""),
        ({"graph": "0" * 64}, "graph is 0000000000000000…, wanted"),
        ({"library": "tensorrt_rtx"}, "library is tensorrt_rtx, wanted tensorrt"),
        ({"version": "10.13.3.9"}, "version is 10.13.3.9, wanted 11.4.0.106"),
        ({"gpu": {"name": "NVIDIA L4", "capability": [8, 6]}}, "gpu is .*L4.*, wanted .*A4000"),
        ({"gpu": {"name": "NVIDIA RTX A4000", "capability": [8, 9]}}, "gpu is"),
        ({"gpu": None}, "gpu is None"),
        ({"precision": "fp32"}, "precision is fp32, wanted fp16"),
        ({"profile": [1, 8, 32]}, ""),  # any profile is wanted
        ({"refit": True}, "refit is True, wanted False"),
        ({"sha256": "0" * 64}, "damaged"),
    ],
    ids=str,
)
def test_a_mismatch_is_found_in_the_metadata(
    lightning: Bundle, changed: dict[str, Any], message: str
) -> None:
    wanted = requirements(lightning, FakeGpu(), named(), options=PlanOptions())
    reason = mismatch(metadata(wanted, b"plan", **changed), b"plan", wanted)
    assert re.match(message, reason) if message else not reason, reason


def test_a_wanted_profile_is_compared(lightning: Bundle) -> None:
    wanted = requirements(lightning, FakeGpu(), named(), options=PlanOptions(profile=(1, 4, 8)))
    described = metadata(wanted, b"plan")
    assert mismatch(described, b"plan", wanted).startswith(
        "profile is [1, 16, 128], wanted [1, 4, 8]"
    )


@pytest.mark.parametrize(
    ("built_with", "installed", "matches"),
    [
        ("11.1.0.5", "11.4.0.106", True),
        ("11.4.0.106", "11.4.0.106", True),
        ("11.5.0", "11.4.0.106", False),  # forward only
        ("10.13.3.9", "11.4.0.106", False),
        ("odd", "11.4.0.106", False),
    ],
)
def test_a_version_compatible_plan_serves_later_versions(
    lightning: Bundle, built_with: str, installed: str, matches: bool
) -> None:
    options = PlanOptions(version_compatible=True)
    wanted = requirements(lightning, FakeGpu(), named(version=installed), options=options)
    reason = mismatch(metadata(wanted, b"plan", version=built_with), b"plan", wanted)
    assert (reason == "") == matches


@pytest.mark.parametrize(
    ("capability", "matches"),
    [((8, 6), True), ((8, 9), True), ((12, 0), True), ((12, 1), True), ((7, 5), False)],
)
def test_a_plan_of_tensorrt_for_rtx_serves_its_capabilities(
    lightning: Bundle, capability: tuple[int, int], matches: bool
) -> None:
    here = FakeGpu("another GPU", capability)
    wanted = requirements(lightning, here, named("tensorrt_rtx"), options=PlanOptions())
    assert (mismatch(metadata(wanted, b"x", gpu=None), b"x", wanted) == "") == matches


@pytest.mark.parametrize("capability", [(9, 0), (10, 0)])
def test_tensorrt_for_rtx_is_refused_where_it_has_no_code(
    lightning: Bundle, capability: tuple[int, int]
) -> None:
    with pytest.raises(DeviceError, match=r"H100.*does not support.*posekit\[tensorrt\]"):
        find(lightning, FakeGpu("H100", capability), trt=named("tensorrt_rtx"))


def test_a_plan_inside_the_bundle_is_found_and_one_of_another_gpu_is_named(
    lightning: Bundle, cache: Path
) -> None:
    here, trt = FakeGpu(), named()
    assert find(lightning, here, trt=trt) is None
    plans = []
    for gpu, data in ((FakeGpu("NVIDIA L4", (8, 9)), b"one"), (here, b"two")):
        wanted = requirements(lightning, gpu, trt, options=PlanOptions())
        plans.append(PlanFile(key_of(wanted), data, metadata(wanted, data), "built"))
    packed = with_plans(lightning, plans)
    packed.save(cache / "packed.posekit")
    opened = Bundle.open(cache / "packed.posekit")
    found = find(opened, here, trt=trt)
    assert found is not None
    assert (found.data, found.origin) == (b"two", "bundle")
    assert len(found.notes) == 1
    assert "gpu is" in found.notes[0]
    assert find(opened, here, trt=named(version="11.5")) is None
    weights = {name: value * 2 for name, value in opened.weights.items()}
    adapted = dataclasses.replace(opened, weights=weights)
    assert find(adapted, here, trt=trt) is None  # of the old weights


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_built_once_then_found_and_built_again_where_it_is_damaged(
    lightning: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = tensorrt_tools.rtx()
    built = []
    real = make.build_plan_of_bundle
    monkeypatch.setattr(
        make, "build_plan_of_bundle", lambda *a, **k: built.append(1) or real(*a, **k)
    )
    first = plan_for(lightning, None, trt=trt)
    assert first.origin == "built"
    assert first.path is not None
    assert first.path.read_bytes() == first.data  # as trtexec reads it, without a prefix
    assert first.metadata["read_back"].startswith("not read: no GPU here")
    assert first.metadata["parity"]["mean_px"] <= 0.1
    second = plan_for(lightning, None, trt=trt)
    assert (second.origin, second.data) == ("cache", first.data)
    assert second.metadata == json.loads(json.dumps(first.metadata))
    first.path.write_bytes(first.data[:-1])
    third = plan_for(lightning, None, trt=trt)
    assert third.origin == "built"
    assert "damaged" in third.notes[0]
    assert len(built) == 2
    assert not [each for each in cache.iterdir() if each.name.startswith(".")]


def test_with_an_unwritable_cache_the_plan_is_built(
    lightning: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    built = (b"plan", {"sha256": "0"})
    monkeypatch.setattr(make, "build_plan_of_bundle", lambda *a, **k: built)
    found = plan_for(lightning, FakeGpu(), trt=named())
    assert (found.data, found.path) == (b"plan", None)


@pytest.mark.tools
def test_a_bundle_without_its_maps_is_refused(cache: Path, lightning: Bundle) -> None:
    without_maps = dataclasses.replace(lightning, graphs={"flip": lightning.graphs["flip"]})
    with pytest.raises(BundleError, match="has no graph 'maps'"):
        plan_for(without_maps, None, trt=tensorrt_tools.rtx())


def test_without_tensorrt_the_extra_is_named() -> None:
    with pytest.raises(
        MissingExtraError, match=r"not installed: pip install 'posekit\[tensorrt\]'"
    ):
        library()
    with pytest.raises(MissingExtraError, match=r"tensorrt_rtx not .*posekit\[rtx\]"):
        library("rtx")


def test_a_tensorrt_whose_libraries_are_missing_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"tensorrt cannot be loaded \(libnvinfer"):
        library()


@pytest.mark.parametrize(
    "arguments",
    [["build", "movenet-lightning"], ["export", "movenet-lightning", "-o", "x.plan"]],
    ids=lambda arguments: arguments[0],
)
def test_the_command_exits_with_3_before_any_work(arguments: list[str], tmp_path: Path) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'engines'}", "HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "posekit", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3, run.stderr
    assert "pip install 'posekit[tensorrt]'" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not list(tmp_path.glob("x.plan*"))


def test_finding_a_plan_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; import posekit_engines.build, posekit_engines.trt.cache;"
        "sys.exit(bool({'torch', 'onnx', 'tensorrt', 'onnxruntime'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'engines'}"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "3", "null", '{"a": NaN}', "\xff"])
def test_cached_metadata_that_is_no_table_is_no_plan(
    text: str, lightning: Bundle, cache: Path
) -> None:
    wanted = requirements(lightning, FakeGpu(), named(), options=PlanOptions())
    cache.mkdir(parents=True)
    (cache / f"{key_of(wanted)}.json").write_bytes(text.encode("latin-1"))
    (cache / f"{key_of(wanted)}.plan").write_bytes(b"plan")
    assert find(lightning, FakeGpu(), trt=named()) is None
    assert find_matching(lightning, dict(wanted)) == []
