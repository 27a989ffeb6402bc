"""A Triton model repository: its config parses and names the file's own inputs and outputs."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import InputError, SourceError
from posekit.inference.session import open_cpu_session
from posekit.types import ModelSpec
from posekit_engines.export import export
from posekit_engines.options import ExportOptions
from posekit_engines.triton import config, describe, matching_plans, model_name
from posekit_engines.trt import cache
from posekit_engines.trt.cache import with_plans
from posekit_engines.trt.plan import PlanFile, graph_hash
from tests.support import needs

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


def test_the_config_has_the_file_s_inputs_and_outputs(repository: Path) -> None:
    text = (repository / "poses" / "config.pbtxt").read_text()
    shapes = {
        name: [int(n) for n in dims.split(",")]
        for name, dims in re.findall(r'name: "(\w+)" data_type: \w+ dims: \[ ([\d, ]+) \]', text)
    }
    session = open_cpu_session(repository / "poses" / "1" / "model.onnx")
    values = [*session.get_inputs(), *session.get_outputs()]
    assert shapes == {value.name: value.shape[1:] for value in values}
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
    messages = needs.package("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    text = config("poses", "model.onnx", spec, options=options)
    parsed = text_format.Parse(text, messages.ModelConfig())
    assert parsed.max_batch_size == (0 if options.batch else 32)
    assert parsed.HasField("dynamic_batching") == (options.batch is None)
    sizes = [list(each.dims) for each in parsed.input]
    assert all(dims[0] == 4 for dims in sizes) == (options.batch == 4)


def test_a_name_without_letters_is_rejected() -> None:
    assert model_name("my poses.v2") == "my_poses.v2"
    with pytest.raises(InputError, match="letter or digit"):
        model_name("..")


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with plans built for it; their bytes are placeholders, since nothing runs them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = Bundle.open(bundle.find("movenet-lightning"))
    return with_plans(source, [plan(source, "first"), plan(source, "second", kind="raw")])


def plan(source: Bundle, key: str, **changed: Any) -> PlanFile:
    data = key.encode()
    metadata = {
        "kind": "points",
        "library": "tensorrt",
        "version": "10.13.3.9",
        "flip": True,
        "precision": "fp16",
        "graph": graph_hash(source),
        "gpu": {"name": "NVIDIA L4", "capability": [8, 9]},
        "profile": [1, 8, 24],
        "sha256": hashlib.sha256(data).hexdigest(),
        **changed,
    }
    return PlanFile(key, data, metadata, "built")


def write_repository(source: Bundle, folder: Path, options: ExportOptions) -> list[str]:
    """The repository around an empty file in place of the ONNX."""
    version = folder / "poses" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"")
    return describe(folder, "poses", source, spec=source.pose_spec, options=options)


def test_a_built_plan_becomes_a_model_of_its_own(planned: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    assert write_repository(planned, folder, ExportOptions(to="triton")) == ["poses_fp16_nvidia_l4"]
    model = folder / "poses_fp16_nvidia_l4"
    files = sorted(each.relative_to(model).as_posix() for each in model.rglob("*.*"))
    assert files == ["1/model.plan", "config.pbtxt", "labels.txt"]
    assert (model / "1" / "model.plan").read_bytes() == b"first"  # unprefixed, as Triton reads it
    text = (model / "config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in text
    assert "max_batch_size: 24" in text  # the plan's largest batch
    onnx = (folder / "poses" / "config.pbtxt").read_text()
    tensors = [line for line in text.splitlines() if "put [" in line]
    assert tensors == [line for line in onnx.splitlines() if "put [" in line]
    assert "max_batch_size: 32" in onnx
    readme = (folder / "README.md").read_text()
    assert "| poses_fp16_nvidia_l4 | fp16 | TensorRT 10.13.3.9 | NVIDIA L4 |" in readme


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(to="triton", flip=False),
        ExportOptions(to="triton", outputs="heatmaps"),
        ExportOptions(to="triton", affine=True),
        ExportOptions(to="triton", batch=8),
    ],
    ids=["no flip", "heatmaps", "affine", "batch"],
)
def test_a_plan_of_another_computation_is_left_out(planned: Bundle, options: Any) -> None:
    assert matching_plans(planned, ExportOptions(to="triton"))
    assert not matching_plans(planned, options)


def test_a_plan_of_other_weights_or_another_library_is_left_out(planned: Bundle) -> None:
    options = ExportOptions(to="triton")
    weights = {name: value * 2 for name, value in planned.weights.items()}
    assert not matching_plans(dataclasses.replace(planned, weights=weights), options)
    for changed in ({"library": "tensorrt_rtx"}, {"sha256": "0" * 64}):
        source = Bundle.open(bundle.find("movenet-lightning"))
        assert not matching_plans(with_plans(source, [plan(source, "other", **changed)]), options)


def test_plans_of_the_cache_are_found_and_two_of_one_gpu_have_two_names(
    planned: Bundle, tmp_path: Path
) -> None:
    kept = plan(planned, "points-fp16-a1b2c3d4", version="10.1.0")
    cache.cache_dir().mkdir(parents=True)
    path = cache.cache_dir() / f"{kept.key}.plan"
    path.write_bytes(kept.data)
    path.with_suffix(".json").write_text(json.dumps(kept.metadata))
    (cache.cache_dir() / "broken.json").write_text("{")
    models = write_repository(planned, tmp_path / "repository", ExportOptions(to="triton"))
    assert models == ["poses_fp16_nvidia_l4", "poses_fp16_nvidia_l4_a1b2c3d4"]
