"""An exported file stands alone, says what it is, and equals its source."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

import posekit
from posekit import bundle
from posekit.bundle import Bundle
from posekit.cli import app
from posekit.errors import BundleError, InputError, ParityError, SourceError
from posekit_engines.export import ExportOptions, export_onnx
from posekit_engines.parity import compare


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.fixture(scope="module")
def exported(lightning: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "lightning.onnx"
    export_onnx(lightning, path, ExportOptions())
    return path


def test_the_file_stands_alone_and_answers_as_the_bundle(exported: Path, lightning: Bundle) -> None:
    onnx.checker.check_model(str(exported), full_check=True)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    reference = lightning.reference
    for count in (1, 3):
        points, scores = session.run(None, {"crops": reference["crops"][:count]})
        # The stored answer is rounded: scores to 0.01, points to 1/8 px.
        np.testing.assert_allclose(scores, reference["flip_scores"][:count], atol=0.006)
        sure = reference["flip_scores"][:count] > 0.2
        np.testing.assert_allclose(points[sure], reference["flip_points"][:count][sure], atol=0.1)


def test_its_metadata_holds_the_whole_spec(exported: Path, lightning: Bundle) -> None:
    said = {entry.key: entry.value for entry in onnx.load(str(exported)).metadata_props}
    assert posekit.ModelSpec.from_dict(json.loads(said["spec"])) == lightning.spec
    assert said["source_sha256"] == lightning.sha256


def test_the_report_stands_beside_it(exported: Path) -> None:
    report = json.loads(exported.with_name("lightning.onnx.parity.json").read_text())
    assert report["mean_px"] <= report["p99_px"] <= report["max_px"] <= report["budget_px"]
    assert report["points"] > 20


def test_infer_runs_it_like_the_bundle(exported: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (200, 150, 3), np.uint8)
    boxes = np.array([[0, 0, 149, 199]])
    one, two = (
        posekit.load(model, "cpu", 1)(picture, boxes) for model in (exported, "movenet-lightning")
    )
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


def test_heatmaps_are_the_merge_that_codecs_decode(lightning: Bundle, tmp_path: Path) -> None:
    for outputs in ("heatmaps", "raw"):
        path = tmp_path / f"{outputs}.onnx"
        parity = export_onnx(lightning, path, ExportOptions(outputs=outputs, batch=2))
        assert parity.max_px < 0.05
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape[0] == 2
        assert session.get_outputs()[0].shape == [2, 17, 48, 48]


def test_without_flip_and_with_another_decode(lightning: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    export_onnx(lightning, path, ExportOptions(flip=False, decode="quarter"))
    said = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert json.loads(said["spec"])["decode"] == "quarter"
    assert len(posekit.load(path, "cpu", 1, flip=False).runtime.spec.skeleton) == 17
    with pytest.raises(BundleError, match="--no-flip"):
        posekit.load(path, "cpu", 1)


def test_an_export_over_its_budget_is_not_written(lightning: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="wanted at most -1") as caught:
        export_onnx(lightning, tmp_path / "x.onnx", ExportOptions(flip=False, budget_px=-1))
    assert caught.value.exit_code == 4
    assert not list(tmp_path.iterdir())


def test_parity_counts_what_the_source_is_sure_of() -> None:
    points, scores = np.zeros((1, 2, 2), np.float32), np.array([[0.9, 0.1]], np.float32)
    moved = points + np.float32([[[3, 4], [300, 0]]])
    parity = compare(moved, scores, (points, scores), crops=1)
    assert (parity.mean_px, parity.max_px, parity.points) == (5.0, 5.0, 1)


def test_existing_files_and_wrong_numbers_are_refused(lightning: Bundle, exported: Path) -> None:
    with pytest.raises(SourceError, match="--overwrite"):
        export_onnx(lightning, exported, ExportOptions())
    with pytest.raises(InputError, match="wanted 1 or more"):
        export_onnx(lightning, exported.with_name("y.onnx"), ExportOptions(batch=0))


def test_a_foreign_onnx_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [output])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(BundleError, match="no posekit metadata"):
        posekit.load(tmp_path / "foreign.onnx")


def test_the_command_writes_and_reports(tmp_path: Path) -> None:
    path = tmp_path / "l.onnx"
    said = CliRunner().invoke(
        app, ["export", "movenet-lightning", "-o", str(path), "--no-flip", "--json"]
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["mean_px"] < 0.05
    assert path.exists()
