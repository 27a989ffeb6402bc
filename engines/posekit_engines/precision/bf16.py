"""A network in bfloat16, and its emulation in PyTorch."""

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
    """A stand-alone graph of posekit's with a bfloat16 network for TensorRT, and a report.

    bfloat16 has float32's range, so no crops are needed: operators that sum stay float32, as in
    torch's autocast. The opset is the first whose convolutions take bfloat16. Raises ExportError.
    """
    folded = fold_network(model)
    replace_deconvolutions(folded)  # TensorRT for RTX has none in bfloat16
    nodes = network_nodes(folded.graph)
    kept = [node for node in nodes if node.op_type in ACCUMULATING]
    half = {node.output[0] for node in nodes} - {node.output[0] for node in kept}
    rewrite_types(folded.graph, half, float_tensors(folded), to=_BFLOAT)
    try:
        converted = onnx.version_converter.convert_version(folded, _BFLOAT_OPSET)
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
    return converted, report


class _Bfloat16(nn.Module):
    """A network whose convolutions and matrix products run in bfloat16 on the CPU."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            maps: Tensor = self.net(image)
        return maps.float()


def emulate_bf16(net: nn.Module) -> nn.Module:
    """A copy of `net` that computes in bfloat16, float32 in and out: an emulation in torch.

    Weights are rounded once; torch's autocast decides what stays float32 (softmax, layer norm).
    ONNX Runtime has no bfloat16 convolution on a CPU, so the exported file itself is not run.
    """
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16().to(weight.dtype))
    return _Bfloat16(rounded).eval()
