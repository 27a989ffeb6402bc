"""An exported file stands alone, describes itself, and comes with its measured deviation."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import posekit
from posekit import api, bundle
from posekit.bundle import Bundle
from posekit.errors import (
    BundleError,
    CheckpointError,
    ExportError,
    InputError,
    ParityError,
    SourceError,
)
from posekit.geometry import Warp
from posekit.inference.runtime import Runtime
from posekit.inference.session import open_cpu_session
from posekit.stats.parity import HIGH_CONFIDENCE
from posekit_engines import onnx_file
from posekit_engines.export import export
from posekit_engines.options import BUDGETS, ExportOptions
from posekit_engines.parity.crops import embedded_crops
from tests.support import needs
from tests.support.full_disk import full_disk

PLAIN = ExportOptions(flip=False)


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.fixture(scope="module")
def written(lightning: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("export") / "lightning.onnx"
    return path, export(lightning, path, ExportOptions())


def file_metadata(path: Path) -> dict[str, str]:
    model = onnx.load(str(path), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_file_stands_alone_and_gives_the_bundle_s_points(
    written: tuple[Path, Any], lightning: Bundle
) -> None:
    onnx.checker.check_model(str(written[0]), full_check=True)
    reference = lightning.reference
    for count in (1, 3):
        points, scores = open_cpu_session(written[0]).run(
            None, {"crops": reference["crops"][:count]}
        )
        # The stored reference is rounded: scores to 0.01, points to 1/8 px.
        np.testing.assert_allclose(scores, reference["flip_scores"][:count], atol=0.006)
        high = reference["flip_scores"][:count] > 0.2
        np.testing.assert_allclose(points[high], reference["flip_points"][:count][high], atol=0.1)


def test_its_metadata_has_the_whole_spec_and_infer_runs_it(
    written: tuple[Path, Any], lightning: Bundle
) -> None:
    metadata = file_metadata(written[0])
    assert posekit.ModelSpec.from_dict(json.loads(metadata["spec"])) == lightning.spec
    assert metadata["source_sha256"] == lightning.sha256
    estimator = posekit.load(written[0], "cpu", 1, boxes="full")
    assert estimator.runtime.spec == lightning.spec


def test_the_report_is_beside_the_file_and_within_its_bounds(written: tuple[Path, Any]) -> None:
    path, report = written
    assert json.loads(path.with_name("lightning.onnx.parity.json").read_text()) == json.loads(
        json.dumps(report)
    )
    assert 8 <= report["crops"] <= 16
    assert report["points"] > 50
    assert report["crop_px"]["p99"] <= 0.01
    assert report["frame_px"]["max"] >= report["crop_px"]["max"] > 0  # 256 px shown in 192
    assert report["oks"]["min"] > 0.999
    assert report["flips"]["gap"] < 1e-5
    assert report["maps"] < 1e-4
    assert report["not_finite"] == 0
    assert report["within_budget"]
    assert report["contained"]["weights"]["float16"] > 2_000_000
    assert report["bytes"] == path.stat().st_size


def test_the_page_is_self_contained(written: tuple[Path, Any]) -> None:
    text = written[0].with_name("lightning.onnx.parity.html").read_text()
    assert text.count("<figure>") == 8
    assert "data:image/jpeg;base64" in text
    assert 'src="http' not in text
    assert "href" not in text


def test_the_page_begins_with_the_verdict_and_its_budget(written: tuple[Path, Any]) -> None:
    path, report = written
    text = path.with_name("lightning.onnx.parity.html").read_text()
    box = text.split('<div class="verdict good">')[1].split("</div>")[0]
    assert f"{report['crop_px']['mean']:.3g} px on average: within its budget of" in box
    assert f"{report['points']:,} keypoints of {report['crops']} crops" in box
    chart = text.split('aria-label="Deviation from the source"')[1].split("</svg>")[0]
    assert chart.count("<circle") == 3  # mean, p99, largest
    assert chart.count('class="limit"') == 1 + bool(report["budget_p99_px"])
    assert "✗" not in chart
    assert "<summary>All figures</summary>" in text


def test_points_in_frame_pixels_are_the_crop_points_moved(
    lightning: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "affine.onnx"
    options = dataclasses.replace(PLAIN, affine=True, batch=2)
    report = export(lightning, path, options)
    assert report["crop_px"]["max"] < 0.01
    checks = embedded_crops(lightning.pose_spec)
    warp = Warp(checks.warp.matrix[:2]).inverse()
    given = {"crops": checks.crops[:2], "warp": warp.matrix.astype(np.float32)}
    points, _ = open_cpu_session(path).run(None, given)
    plain = Runtime(lightning, device="cpu", threads=1, flip=False)
    wanted, scores = plain.infer(checks.crops[:2])
    high = scores > HIGH_CONFIDENCE
    np.testing.assert_allclose(points[high], warp.to_crop(wanted)[high], atol=2e-3)
    again = posekit.load(path, "cpu", 1, flip=False).runtime  # which moves the points itself
    np.testing.assert_allclose(again.infer(checks.crops[:3])[0][:2][high], wanted[high], atol=2e-3)


@pytest.mark.parametrize("outputs", ["heatmaps", "raw"])
def test_exported_maps_decode_to_the_source_s_points(
    outputs: Any, lightning: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "maps.onnx"
    report = export(lightning, path, ExportOptions(outputs=outputs, batch=3))
    assert report["crop_px"]["max"] < 0.05
    assert open_cpu_session(path).get_inputs()[0].shape[0] == 3
    assert open_cpu_session(path).get_outputs()[0].shape == [3, 17, 48, 48]


def test_over_its_budget_nothing_is_written_unless_forced(
    lightning: Bundle, tmp_path: Path
) -> None:
    options = dataclasses.replace(PLAIN, budget_px=1e-9)
    with pytest.raises(ParityError, match="wanted at most 1e-09") as caught:
        export(lightning, tmp_path / "x.onnx", options)
    assert caught.value.exit_code == 4
    assert not list(tmp_path.iterdir())
    report = export(lightning, tmp_path / "x.onnx", dataclasses.replace(options, force=True))
    assert report["forced"]
    assert not report["within_budget"]
    text = (tmp_path / "x.onnx.parity.html").read_text()
    assert '<div class="verdict bad">' in text
    assert "over its budget of 1e-09 px" in text
    assert "--force" in text


def test_a_disk_that_fills_leaves_the_old_output(lightning: Bundle, tmp_path: Path) -> None:
    old = tmp_path / "x.onnx"
    old.write_bytes(b"old")
    with full_disk(100_000), pytest.raises(SourceError, match="no room left"):
        export(lightning, old, dataclasses.replace(PLAIN, overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    assert old.read_bytes() == b"old"


def test_an_unwritable_target_is_one_sentence(lightning: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="a file stands where its folder should be"):
        export(lightning, tmp_path / "file" / "x.onnx", PLAIN)


def test_large_weights_are_written_beside_the_graph(
    lightning: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MAX_INLINE_BYTES", 1000)
    path = tmp_path / "big.onnx"
    report = export(lightning, path, PLAIN)
    data = path.with_name("big.onnx.data")
    assert path.stat().st_size < data.stat().st_size
    assert report["bytes"] == path.stat().st_size + data.stat().st_size
    onnx.checker.check_model(str(path), full_check=True)
    crops = lightning.reference["crops"]
    wanted = open_cpu_session(path).run(None, {"crops": crops})
    # posekit reads the weights by name, not by their offsets in the graph
    opened = posekit.load(path, "cpu", 1, flip=False, boxes="full").runtime
    assert len(opened.bundle.weights) > 100
    np.testing.assert_array_equal(opened.infer(crops)[0], wanted[0])
    with pytest.raises(ExportError, match="needs a single file"):
        export(lightning, tmp_path / "y.onnx", dataclasses.replace(PLAIN, precision="fp16"))


def test_a_bundle_s_graphs_never_hold_its_weights(
    lightning: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a graph that is needed to make one: protobuf's limit is 2 GiB."""
    monkeypatch.setattr(onnx_file, "MAX_INLINE_BYTES", 1000)
    export(lightning, tmp_path / "x.posekit", PLAIN)
    opened = Bundle.open(tmp_path / "x.posekit")
    weights = sum(value.nbytes for value in opened.weights.values())
    assert all(len(graph) < 100_000 < weights / 10 for graph in opened.graphs.values())


def test_check_crops_are_people_in_the_user_s_images(lightning: Bundle, tmp_path: Path) -> None:
    image = np.full((300, 400, 3), 90, np.uint8)
    image[22:278, 72:328] = Bundle.open(bundle.find("movenet-thunder")).reference["crops"][1]
    cv2.imwrite(str(tmp_path / "one.png"), image[..., ::-1])
    report = export(lightning, tmp_path / "x.onnx", dataclasses.replace(PLAIN, check=tmp_path))
    assert report["crops_from"] == str(tmp_path)
    assert report["worst"][0]["name"].startswith("one.png, person")
    assert report["points"] >= 10


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"batch": 0}, "wanted 1 or more"),
        ({"precision": "bf16"}, "no bf16 convolution"),
        ({"affine": True, "outputs": "raw"}, "--outputs raw has none"),
        ({"calibrate": "x"}, "is for --precision int8"),
        ({"precision": "int8"}, "give your own images"),
        ({"to": "bundle", "batch": 2}, "a bundle holds its own graphs"),
    ],
)
def test_options_that_contradict_one_another(
    changes: dict[str, Any], wanted: str, lightning: Bundle, tmp_path: Path
) -> None:
    name = "x.posekit" if changes.get("to") == "bundle" else "x.onnx"
    with pytest.raises(InputError, match=wanted):
        export(lightning, tmp_path / name, dataclasses.replace(PLAIN, **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "name", "wanted"),
    [
        ("onnx", "x.plan", "--to onnx writes a file named .onnx"),
        ("tensorrt", "x.onnx", "--to tensorrt writes a file named .plan"),
        ("bundle", "x", "--to bundle writes a file named .posekit"),
        (None, "x.engine", r"x.engine: wanted a name in .onnx, .plan, .posekit, or --to triton"),
    ],
)
def test_a_suffix_that_contradicts_the_target_is_rejected(
    to: Any, name: str, wanted: str, lightning: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=wanted):
        export(lightning, tmp_path / name, dataclasses.replace(PLAIN, to=to))
    assert not list(tmp_path.iterdir())


def test_sources_that_cannot_be_exported_are_rejected_with_the_reason(
    tmp_path: Path, written: tuple[Path, Any]
) -> None:
    out = tmp_path / "x.onnx"
    with pytest.raises(BundleError, match="is an export already"):
        api.export(written[0], out)
    with pytest.raises(SourceError, match="--overwrite"):
        api.export("movenet-lightning", written[0])
    with pytest.raises(BundleError, match="person detector"):
        api.export("nanodet-person", out)
    with pytest.raises(BundleError, match="downloads nothing by itself"):
        api.export("https://example.org/x.pth", out)
    empty = tmp_path / "empty.pth"
    empty.write_bytes(b"")
    with pytest.raises(CheckpointError, match="0 bytes"):
        api.export(empty, out)
    assert not out.exists()


def test_budgets_are_the_published_bars() -> None:
    assert (BUDGETS["fp32"].mean_px, BUDGETS["fp32"].maps) == (0.05, 1e-4)
    assert (BUDGETS["fp16"].mean_px, BUDGETS["fp16"].p99_px, BUDGETS["fp16"].maps) == (
        0.1,
        0.3,
        5e-3,
    )
    assert BUDGETS["int8"].mean_px == 0.5


def test_openvino_reads_the_file_and_agrees(written: tuple[Path, Any], lightning: Bundle) -> None:
    openvino = needs.package("openvino")
    model = openvino.Core().compile_model(
        str(written[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    crops = lightning.reference["crops"][:2]
    points, scores = list(model({"crops": crops}).values())
    wanted = open_cpu_session(written[0]).run(None, {"crops": crops})
    np.testing.assert_allclose(scores, wanted[1], atol=1e-3)
    high = wanted[1] > HIGH_CONFIDENCE
    np.testing.assert_allclose(points[high], wanted[0][high], atol=0.05)


@pytest.mark.slow
def test_half_precision_is_in_the_file_and_within_its_bars(
    lightning: Bundle, tmp_path: Path
) -> None:
    report = export(lightning, tmp_path / "x.onnx", dataclasses.replace(PLAIN, precision="fp16"))
    assert report["contained"]["values"]["float16"] > 100
    assert report["crop_px"]["mean"] <= 0.1
    assert report["crop_px"]["p99"] <= 0.3
    assert file_metadata(tmp_path / "x.onnx")["precision"] == "fp16"


@pytest.mark.parametrize("name", ["x.onnx", "x.posekit"])
def test_an_export_on_a_cpu_imports_no_cuda_and_no_tensorrt(name: str, tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing before."""
    code = (
        "import sys\n"
        "from posekit import api\n"
        "api.export('movenet-lightning', sys.argv[1], flip=False, precision='fp16')\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    packages = ("cuda", "ops", "kernels", "trt", "runtime", "gpu_check", "triton")
    parts = {f"posekit_engines.{package}" for package in packages}
    assert not modules & {*parts, "cuda", "pycuda", "tensorrt", "tensorrt_rtx"}
    assert "posekit_engines.precision.fp16" in modules
