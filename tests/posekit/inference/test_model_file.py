"""What `infer -m` opens, and what it says of files that it cannot."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from typer.testing import CliRunner

from posekit import api, bundle
from posekit.bundle import Bundle
from posekit.cli import app
from posekit.errors import BundleError, PosekitError
from posekit.inference.model_file import open_model
from posekit.inference.runtime import Runtime
from posekit.inputs.onnx_scan import external_initializers
from posekit.nets import build
from posekit_engines import onnx_file
from posekit_engines.graphs.weights import load_weights
from posekit_engines.options import ExportOptions
from tests.support.states import saved

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.fixture(scope="module")
def apart(lightning: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lightning as an .onnx whose weights stand beside it, as those above 1.9 GB do."""
    path = tmp_path_factory.mktemp("apart") / "net.onnx"
    spec = lightning.pose_spec
    net = load_weights(build(spec), lightning.weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "MAX_INLINE_BYTES", 1000)
        options = ExportOptions(flip=False)
        onnx_file.write(lightning, net, spec, options=options, path=path)
    return path


def test_weights_beside_the_file_are_read_without_onnx(apart: Path, lightning: Bundle) -> None:
    opened = open_model(apart)
    outside = external_initializers(opened.graphs["plain"], "plain")
    assert outside == set(lightning.weights)
    assert set(opened.weights) == set(lightning.weights)
    assert opened.spec == lightning.spec
    points, scores = Runtime(opened, device="cpu", threads=1, flip=False).infer(
        lightning.reference["crops"]
    )
    confident = lightning.reference["plain_scores"] > 0.3
    far = abs(points - lightning.reference["plain_points"])[confident]
    assert far.max() < 0.1
    assert scores.shape == confident.shape


def test_both_files_count_in_the_hash_and_move_together(apart: Path, tmp_path: Path) -> None:
    for end in ("", ".data"):
        data = apart.with_name(apart.name + end).read_bytes()
        tmp_path.joinpath(f"other.onnx{end}").write_bytes(data)
    moved = tmp_path / "other.onnx"
    assert open_model(moved).sha256 == open_model(apart).sha256
    data = moved.with_name("other.onnx.data")
    whole = data.read_bytes()
    data.write_bytes(whole[:-2] + b"\0\1")
    assert open_model(moved).sha256 != open_model(apart).sha256
    data.write_bytes(whole[:-2])
    with pytest.raises(BundleError, match=r"other\.onnx\.data: damaged"):
        open_model(moved)
    data.unlink()
    with pytest.raises(BundleError, match=r"other\.onnx\.data cannot be read there .*copy both"):
        open_model(moved)


def detector_file() -> bytes:
    """A valid ONNX file that is not posekit's."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["output0"])],
        "detector",
        [value("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("output0", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.onnx", b"", r"is empty \(0 bytes\)"),
        ("a.posekit", b"", r"is empty \(0 bytes\)"),
        ("b.onnx", LFS, "Git LFS pointer"),
        ("b.posekit", LFS, "Git LFS pointer"),
        ("c.onnx", b"<!DOCTYPE html><html></html>", r"c\.onnx: not a whole ONNX file"),
        ("c.posekit", b"<!DOCTYPE html><html></html>", "not a posekit bundle"),
        ("d.onnx", detector_file(), "no posekit metadata"),
        ("e.onnx", detector_file()[:20], r"e\.onnx: not a whole ONNX file"),
        ("f.txt", b"hello", "not a posekit bundle"),
    ],
)
def test_other_files_are_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BundleError, match=message) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "model", ["https://example.org/x.posekit", "http://example.org/x.onnx", "hf://some/model"]
)
@pytest.mark.parametrize("command", ["infer", "export", "inspect", "verify"])
def test_an_address_is_never_fetched(command: str, model: str, tmp_path: Path) -> None:
    rest = {"infer": ["in.png", "-m", model], "export": [model, "-o", "x.onnx"]}
    done = CliRunner().invoke(app, [command, *rest.get(command, [model])])
    assert isinstance(done.exception, PosekitError)
    assert "downloads nothing by itself" in str(done.exception)
    assert done.exception.exit_code == 1


class _Poison:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("open('ran', 'w').close()",)


# What people have in their folders, by the names of its tensors; each is a single number.
CLASSIFIER = {name: torch.ones(1) for name in ("conv1.weight", "layer4.0.conv1.weight", "fc.bias")}
YOLO = {
    f"model.{name}": torch.ones(1)
    for name in ("0.conv.weight", "22.cv2.0.0.conv.weight", "22.dfl.conv.weight")
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CLASSIFIER, "an image classifier"),
        (YOLO, "a detection model"),
        ({"model": YOLO}, "a detection model"),
        ({"state_dict": CLASSIFIER, "hook": _Poison()}, "runs no code from a file"),
    ],
    ids=["classifier", "yolo", "wrapped", "code"],
)
@pytest.mark.parametrize("command", ["convert", "export", "infer"])
def test_other_checkpoints_are_named_and_nothing_is_written(
    command: str, content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = str(saved(content, tmp_path / "net.pth"))
    rest = ["in.png", "-m", source] if command == "infer" else [source, "-o", "out.posekit"]
    done = CliRunner().invoke(app, [command, *rest])
    assert isinstance(done.exception, PosekitError), done.output
    assert message in str(done.exception)
    assert done.exception.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_a_checkpoint_is_opened_only_by_what_can_read_it(tmp_path: Path) -> None:
    (tmp_path / "x.plan").write_bytes(b"ptrt")
    with pytest.raises(BundleError, match="not a posekit bundle"):
        api.load(tmp_path / "x.plan")
