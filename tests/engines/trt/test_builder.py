"""One function for three TensorRTs: what it refuses, its messages, the names it calls.

TensorRT for RTX builds ahead of time; nothing is executed. TensorRT 10 and 11 are available as
bindings without libraries, so only the names are checked.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import DeviceError, ExportError, InputError
from posekit_engines.graphs.points import points_graph
from posekit_engines.trt import builder, inspect, library
from posekit_engines.trt.builder import BuilderSettings, build_engine
from posekit_engines.trt.graph import for_tensorrt, network_of
from tests.engines import tensorrt_tools
from tests.engines.tensorrt_tools import TURING, rtx, saved
from tests.support import needs

# each of these must be refused when it is read or built, else the other tests prove nothing
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def small_graph(*nodes: onnx.NodeProto, out: Any = HALF, **constants: Any) -> onnx.ModelProto:
    """A graph of the nodes, with input `hm` float16 (N, 17, 64, 48) and output `y`."""
    source = helper.make_tensor_value_info("hm", HALF, ["N", 17, 64, 48])
    target = helper.make_tensor_value_info("y", out, None)
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "small_graph", [source], [target], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MIXED = small_graph(helper.make_node("Add", ["hm", "c"], ["y"]), c=np.float32(0.5))


CHANNELS = small_graph(
    helper.make_node("Conv", ["hm", "w"], ["y"]), w=np.zeros((8, 5, 3, 3), np.float16)
)


UNKNOWN = small_graph(helper.make_node("Foo", ["hm"], ["y"]))


STRINGS = small_graph(helper.make_node("StringNormalizer", ["hm"], ["y"]), out=TensorProto.STRING)


GOOD = small_graph(helper.make_node("Relu", ["hm"], ["y"]))


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MIXED, "must have same input types"),
        (CHANNELS, ""),
        (UNKNOWN, ""),
        (STRINGS, ""),
    ],
    ids=["fp16 and fp32", "channels", "unknown operator", "strings"],
)
def test_a_bad_graph_is_refused_with_tensorrt_s_messages(
    model: onnx.ModelProto, message: str, tmp_path: Path
) -> None:
    file = saved(model, tmp_path)
    with pytest.raises(
        ExportError, match=f"TensorRT for RTX .* cannot read this graph: .*{message}"
    ):
        build_engine(rtx(), file, BuilderSettings((1, 8, 64)))


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_a_good_graph_is_not_refused_and_a_bad_profile_is(tmp_path: Path) -> None:
    file = saved(GOOD, tmp_path)
    assert build_engine(rtx(), file, BuilderSettings((1, 8, 64))).inputs["hm"]["dtype"] == "float16"
    for profile in ((8, 4, 64), (1, 64, 8), (0, 1, 2)):
        with pytest.raises(InputError, match="1 <= minimum <= usual <= maximum"):
            BuilderSettings(profile)
    with pytest.raises(InputError, match=r"RTX .* has no version-compatible engines"):
        build_engine(rtx(), file, BuilderSettings((1, 8, 64), version_compatible=True))


@pytest.mark.tools
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not ONNX")
    with pytest.raises(ExportError, match="cannot read this graph"):
        build_engine(rtx(), tmp_path / "graph.onnx", BuilderSettings((1, 8, 64)))


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_the_same_graph_gives_the_same_plan_and_options_change_it(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(17, 17, 3, 3)).astype(np.float16)
    conv = helper.make_node("Conv", ["hm", "w"], ["y"], pads=[1, 1, 1, 1])
    file = saved(small_graph(conv, w=weights), tmp_path)
    plain = BuilderSettings((1, 2, 4))
    other = replace(plain, capabilities=TURING)
    made = [build_engine(rtx(), file, each).data for each in (plain, plain, other)]
    assert made[0] == made[1]
    assert made[2] != made[0]


@pytest.mark.tools
@pytest.mark.verifies("TensorRT engines", "built ahead of time")
def test_a_fixed_batch_is_in_the_plan(tmp_path: Path) -> None:
    lightning = Bundle.open(bundle.find("movenet-lightning"))
    graph = points_graph(network_of(lightning), lightning.pose_spec, flip=False)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    found = build_engine(
        rtx(), saved(for_tensorrt(graph, half=False), tmp_path), BuilderSettings((3, 3, 3))
    )
    assert found.inputs["crops"]["shape"] == [3, 192, 192, 3]
    assert found.profile["crops"] == [[3, 192, 192, 3]] * 3
    assert found.layers == {"float32": 68}


INSPECTED = {
    "Layers": [
        {"Name": "a", "Outputs": [{"Format/Datatype": "Row major linear FP16 format"}]},
        {"Name": "b", "Outputs": [{"Format/Datatype": "Half(64,1:8,2)"}]},
        {"Name": "c", "Outputs": [{"Format/Datatype": "Float"}, {"Format/Datatype": "BF16"}]},
        {"Name": "d", "Outputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]},
        {"Name": "e", "Outputs": [{"Format/Datatype": "Int32"}]},
        "only a name",
    ]
}


def test_types_are_read_from_what_the_inspector_says() -> None:
    dtypes = inspect.inspected_dtypes(json.dumps(INSPECTED))
    assert dtypes == {"float16": 2, "float32": 1, "bfloat16": 1}
    assert inspect.inspected_dtypes('{"Layers": ["a", "b"]}') == {}
    assert inspect.inspected_dtypes("no JSON") == {}
    with pytest.raises(
        ExportError, match=r"the plan multiplies in other types .*1 in float16, 3 in float32"
    ):
        inspect.check_precision({"float16": 1, "float32": 3}, "fp16", "the plan")
    inspect.check_engine_precision(dtypes, "fp16")
    with pytest.raises(ExportError, match=r"output \{'float32': 9\}; wanted float16"):
        inspect.check_engine_precision({"float32": 9}, "fp16")


@pytest.mark.tools
@pytest.mark.parametrize("version", ["10", "11"])
def test_the_names_that_build_engine_calls_are_in_tensorrt(version: str, tmp_path: Path) -> None:
    """TensorRT's bindings, loaded with empty libraries in place of its own.

    Only names are compared; nothing of TensorRT 10 or 11 runs.
    """
    folder = tensorrt_tools.installed(version)
    libraries = empty_libraries(version, tmp_path)
    code = (
        "import functools, sys, tensorrt_bindings as trt\n"
        "for name in sys.argv[1:]:\n"
        "    functools.reduce(getattr, name.split('.'), trt)\n"
        "print(trt.__version__)"
    )
    names = called()
    assert {"BuilderFlag.TF32", "IBuilderConfig.set_timing_cache", "Runtime"} <= set(names)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{version}.")


# variables of builder.py and inspect.py, and TensorRT's classes of them
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
}


ONLY_RTX = {
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}


def called() -> list[str]:
    """Dotted names of TensorRT's attributes that building and inspecting an engine read."""
    trees = [
        ast.parse(Path(str(each.__file__)).read_text(encoding="utf-8"))
        for each in (builder, inspect, library)
    ]
    found = set()
    for node in (each for tree in trees for each in ast.walk(tree)):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in ("trt", *OBJECTS):
            found.add(".".join([*([OBJECTS[node.id]] if node.id in OBJECTS else []), *parts]))
    excluded = {name for name in found if name.startswith("__")} | ONLY_RTX
    return sorted(name for name in found - excluded if not name.endswith(".name"))


def empty_libraries(version: str, into: Path) -> Path:
    """Libraries with the functions that the bindings import; each returns 0."""
    (binary,) = tensorrt_tools.bindings(version)
    listed = subprocess.run(
        [needs.program("nm"), "-D", "--undefined-only", str(binary)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = ("create", "get", "init")
    names = [each for each in listed if each.startswith(wanted) and "@" not in each]
    text = "".join(f"void *{each}(void) {{ return 0; }}\n" for each in names)
    (into / "empty.c").write_text(text)
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        soname = f"lib{name}.so.{version}"
        flags = ("-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(into / soname))
        subprocess.run([needs.program("gcc"), *flags, str(into / "empty.c")], check=True)
    return into


@pytest.mark.tools
def test_a_tensorrt_that_finds_no_gpu_says_where_to_build(tmp_path: Path) -> None:
    """Without a GPU TensorRT's Builder is null, which its bindings raise as a TypeError."""

    class Without:
        __name__, __version__ = "tensorrt", "11.4.0.106"
        ILogger = rtx().ILogger

        @staticmethod
        def Builder(_: Any) -> Any:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(
        DeviceError, match=r"TensorRT 11\.4.*needs an NVIDIA GPU.*Build on the machine"
    ):
        build_engine(Without(), tmp_path / "graph.onnx", BuilderSettings((1, 1, 1)))
