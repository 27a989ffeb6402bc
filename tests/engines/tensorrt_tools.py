"""TensorRT for RTX and the bindings of TensorRT 10 and 11, as scripts/toolchain installs them.

No GPU is used: TensorRT for RTX parses and builds, and executes nothing.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from posekit import bundle, nets
from posekit.bundle import Bundle
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.graphs.weights import bundle_weights, load_weights
from tests.support import needs

TURING = ("SM75",)  # not among the default capabilities


@functools.cache
def rtx() -> Any:
    """The module `tensorrt_rtx`, imported once and then removed from `sys.modules`."""
    folder = installed("rtx")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("tensorrt_rtx")
    finally:
        sys.path.remove(str(folder))
        for name in [each for each in sys.modules if each.startswith("tensorrt_rtx")]:
            del sys.modules[name]


def installed(name: str) -> Path:
    """The folder of rtx, 10 or 11."""
    return needs.in_toolchain(f"tensorrt/{name}/installed.txt", f"TensorRT ({name})").parent


def bindings(name: str) -> list[Path]:
    """The compiled modules of rtx, 10 or 11: one for each of TensorRT's Python packages."""
    first = needs.in_toolchain(
        f"tensorrt/{name}/tensorrt*_bindings/tensorrt*.so", f"TensorRT's bindings ({name})"
    )
    return sorted(first.parent.glob("tensorrt*.so"))


def small_spec(architecture: str) -> ModelSpec:
    """The network's own spec for MoveNet; the others take a 64 px square here."""
    if architecture in bundle.embedded():
        return Bundle.open(bundle.find(architecture)).pose_spec
    return ModelSpec(architecture, (64, 64), (16, 16), COCO_17)


def random_network(spec: ModelSpec) -> nn.Module:
    """A network with new weights whose values are neither tiny nor huge in any layer."""
    if spec.architecture in bundle.embedded():
        return load_weights(nets.build(spec), Bundle.open(bundle.find(spec.architecture)).weights)
    torch.manual_seed(0)
    net = nets.build(spec)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(4, 3, spec.input_size[1], spec.input_size[0]))
    return net.eval()


def as_bundle(spec: ModelSpec, net: nn.Module, graph: onnx.ModelProto) -> Bundle:
    """A bundle with the graph `maps` alone, from which plans are built."""
    return Bundle(spec.architecture, spec, bundle_weights(net), {"maps": graph.SerializeToString()})


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file in the folder."""
    file = folder / "graph.onnx"
    onnx.save(model, str(file))
    return file
