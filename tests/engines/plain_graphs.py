"""Small graphs with posekit's tensor names, and the embedded Lightning's, for tests of rewrites."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import nn

from posekit import Bundle
from posekit.bundle import find
from posekit.inference.session import open_cpu_session, session_options
from posekit.types import ModelSpec
from posekit_engines.graphs.weights import inline_weights
from tests.support.states import joints as joints_skeleton

_FLOAT = onnx.TensorProto.FLOAT


def lightning(*, flip: bool = False) -> tuple[onnx.ModelProto, np.ndarray]:
    """Lightning's stand-alone float32 points graph, and its real check crops."""
    bundle = Bundle.open(find("movenet-lightning"))
    model = onnx.load_from_string(bundle.graphs["flip" if flip else "plain"])
    return inline_weights(model, bundle.weights), bundle.reference["crops"]


def open_model(model: onnx.ModelProto, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """On the CPU with one thread; without `optimize` every operator runs as it is."""
    onnx.checker.check_model(model, full_check=True)
    return open_cpu_session(model.SerializeToString(), session_options(1, optimize=optimize))


def bumps_spec(
    *, joints: int = 3, cells: tuple[int, int] = (18, 24), cell_px: float = 4.0
) -> ModelSpec:
    """For maps of `peaked`; a crop's bytes are its bumps times 255."""
    return ModelSpec(
        "bumps",
        (18, 24),
        cells,
        joints_skeleton(joints),
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        map_scale=(cell_px, cell_px),
        flip_shift=0.0,
        sigma=1.5,
    )


def graph(
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, np.ndarray],
    *,
    joints: int,
    channels: int = 3,
) -> onnx.ModelProto:
    """`image` (N, channels, H, W) to `heatmaps` (N, joints, h, w), any sizes."""
    ends = [
        helper.make_tensor_value_info(name, _FLOAT, ["N", count, f"{name}/h", f"{name}/w"])
        for name, count in (("image", channels), ("heatmaps", joints))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    whole = helper.make_graph(list(nodes), "small", [ends[0]], [ends[1]], tensors)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(whole, opset_imports=opset, ir_version=8)


def exported(net: nn.Module, image: np.ndarray | None = None) -> onnx.ModelProto:
    """A torch network as torch's exporter writes it for posekit, nothing folded."""
    if image is None:
        image = np.zeros((1, 3, 8, 6), np.float32)
    file = io.BytesIO()
    sizes = {0: "N", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.from_numpy(image),),
            file,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=17,
            input_names=["image"],
            output_names=["heatmaps"],
            dynamic_axes={"image": sizes, "heatmaps": sizes},
        )
    return onnx.load_from_string(file.getvalue())


def statistics(net: nn.Module) -> nn.Module:
    """Batch norms far from the identity, different for each channel."""
    random = np.random.default_rng(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            for tensor, low, high in (
                (module.weight.data, -2, 2),
                (module.bias.data, -1, 1),
                (module.running_mean, -1, 1),
                (module.running_var, 0.1, 4),
            ):
                tensor.copy_(torch.from_numpy(random.uniform(low, high, count)))
    return net.eval()


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many operators of each kind."""
    return Counter(node.op_type for node in model.graph.node)


def peaked(count: int, *, joints: int = 3, seed: int = 0) -> np.ndarray:
    """Images float32 (count, joints, 24, 18): one bump of height 1 in each channel."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :18]
    centers = random.uniform(4, 13, (count, joints, 2))
    square = (columns - centers[..., 0, None, None]) ** 2 + (
        rows - centers[..., 1, None, None]
    ) ** 2
    return np.exp(-square / (2 * 1.5**2)).astype(np.float32)


def blurred(layers: int, *, coarse: Sequence[int] = ()) -> onnx.ModelProto:
    """Layers of 3 x 3 convolutions that keep the bumps of `peaked` in place.

    coarse: layers with a fourth output channel of 1000s, which the next layer does not read; with
    one scale for the tensor, int8 has no steps left for the others. Weights are layer0.weight, ...
    """
    nodes, values = [], {}
    for n in range(layers):
        inputs, outputs = (4 if n - 1 in coarse else 3), (4 if n in coarse else 3)
        weight = np.zeros((outputs, inputs, 3, 3), np.float32)
        weight[range(3), range(3)] = np.array([[0, 1, 0], [1, 12, 1], [0, 1, 0]]) / 16
        bias = np.zeros(outputs, np.float32)
        bias[3:] = 1000
        values |= {f"layer{n}.weight": weight, f"layer{n}.bias": bias}
        ends = ("image" if n == 0 else f"x{n}"), ("heatmaps" if n == layers - 1 else f"x{n + 1}")
        reads = [ends[0], f"layer{n}.weight", f"layer{n}.bias"]
        node = helper.make_node("Conv", reads, [ends[1]], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        nodes.append(node)
    return graph(nodes, values, joints=3)
