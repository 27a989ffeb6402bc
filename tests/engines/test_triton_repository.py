"""A Triton model repository: its config parses, and names what the file really takes."""

import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import InputError, SourceError
from posekit.types import ModelSpec
from posekit_engines.export import export
from posekit_engines.options import ExportOptions
from posekit_engines.triton_repository import config, model_name

AFFINE = ExportOptions(to="triton", flip=False, affine=True)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return Bundle.open(bundle.find("movenet-lightning")).pose_spec


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "poses"
    export(Bundle.open(bundle.find("movenet-lightning")), path, AFFINE)
    return path


def test_the_folder_is_laid_out_as_triton_reads_it(repository: Path) -> None:
    files = sorted(p.relative_to(repository).as_posix() for p in repository.rglob("*.*"))
    wanted = ["1/model.onnx", "config.pbtxt", "labels.txt"]
    assert files == ["README.md", *(f"poses/{each}" for each in wanted)]
    labels = (repository / "poses" / "labels.txt").read_text().split()
    assert labels[0] == "nose"
    assert len(labels) == 17
    assert "--model-repository=/models" in (repository / "README.md").read_text()
    assert repository.with_name("poses.parity.json").is_file()
    with pytest.raises(SourceError, match="--overwrite"):
        export(Bundle.open(bundle.find("movenet-lightning")), repository, AFFINE)


def test_the_config_says_what_the_file_takes_and_gives(repository: Path) -> None:
    text = (repository / "poses" / "config.pbtxt").read_text()
    said = {
        name: [int(n) for n in dims.split(",")]
        for name, dims in re.findall(r'name: "(\w+)" data_type: \w+ dims: \[ ([\d, ]+) \]', text)
    }
    session = onnxruntime.InferenceSession(
        str(repository / "poses" / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    values = [*session.get_inputs(), *session.get_outputs()]
    assert said == {value.name: value.shape[1:] for value in values}
    assert text.count("{") == text.count("}")
    assert "dynamic_batching" in text


@pytest.mark.parametrize(
    "options",
    [
        AFFINE,
        ExportOptions(outputs="heatmaps"),
        ExportOptions(outputs="raw", batch=4),
    ],
    ids=lambda options: options.outputs,
)
def test_triton_s_own_protobuf_parses_the_config(options: Any, spec: ModelSpec) -> None:
    reason = "tritonclient is not installed"
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    from google.protobuf import text_format

    text = config("poses", "model.onnx", spec, options=options)
    parsed = text_format.Parse(text, messages.ModelConfig())
    assert parsed.max_batch_size == (0 if options.batch else 32)
    assert parsed.HasField("dynamic_batching") == (options.batch is None)
    sizes = [list(each.dims) for each in parsed.input]
    assert all(dims[0] == 4 for dims in sizes) == (options.batch == 4)


def test_a_name_without_letters_is_refused() -> None:
    assert model_name("my poses.v2") == "my_poses.v2"
    with pytest.raises(InputError, match="letter or digit"):
        model_name("..")
