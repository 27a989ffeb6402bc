"""The network in bfloat16, and its emulation in PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import onnx
import onnx.version_converter
import torch
from torch import Tensor, nn

from posekit.errors import ExportError
from posekit_engines.graphs.edit import network_nodes
from posekit_engines.graphs.fold import fold_network, replace_deconvolutions
from posekit_engines.precision.cast import ACCUMULATING, float_tensors, rewrite_types

_BFLOAT, _BFLOAT_OPSET = onnx.TensorProto.BFLOAT16, 22


def to_bf16(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A stand-alone graph of posekit's with a bfloat16 network, for TensorRT.

    bfloat16 reaches as far as float32, so no picture decides: what sums stays float32, as torch's
    autocast keeps it. The opset is the first whose convolutions take bfloat16. Raises ExportError.
    """
    plain = fold_network(model)
    replace_deconvolutions(plain)  # TensorRT for RTX has none in bfloat16
    nodes = network_nodes(plain.graph)
    kept = [node for node in nodes if node.op_type in ACCUMULATING]
    half = {node.output[0] for node in nodes} - {node.output[0] for node in kept}
    rewrite_types(plain.graph, half, float_tensors(plain), to=_BFLOAT)
    try:
        done = onnx.version_converter.convert_version(plain, _BFLOAT_OPSET)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ExportError(
            f"bf16: the graph has no form in opset {_BFLOAT_OPSET}: {error}"
        ) from error
    report = {
        "precision": "bf16",
        "half": len(half),
        "kept": [
            {"operator": n.output[0], "kind": n.op_type, "reason": ACCUMULATING[n.op_type]}
            for n in kept
        ],
    }
    return done, report


class _Bfloat16(nn.Module):
    """A network whose convolutions and matrix products run in bfloat16, on this CPU."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            maps: Tensor = self.net(image)
        return maps.float()


def emulate_bf16(net: nn.Module) -> nn.Module:
    """A copy of `net` that answers as in bfloat16, float32 in and out: an emulation in torch.

    Weights are rounded once; torch's autocast decides what stays float32 (softmax, layer norm).
    ONNX Runtime has no bfloat16 convolution on a CPU, so this is no measurement of an export.
    """
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16().to(weight.dtype))
    return _Bfloat16(rounded).eval()
