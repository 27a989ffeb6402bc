"""A network and all the arithmetic around it as one ONNX graph of standard operators.

`crops` uint8 (N, H, W, 3) RGB in, `points` float32 (N, K, 2) in crop pixels and `scores` (N, K)
out: normalise, mirror, network on 2N, flip merge, argmax, refinement. `posekit.codecs` is the
truth that each stage equals; the stages here carry its names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from posekit import codecs
from posekit.errors import ExportError
from posekit.types import ModelSpec
from posekit_engines.graphs.decode import decode_nodes
from posekit_engines.graphs.nodes import FLOAT, NodeBuilder


def points_graph(
    network: onnx.ModelProto, spec: ModelSpec, *, flip: bool, affine: bool = False
) -> onnx.ModelProto:
    """The points graph around a network graph (`image` -> `heatmaps`, as `network_graph` makes it).

    The network's nodes and external initialisers are kept as they are; N stays dynamic. The same
    input gives the same bytes.  affine: a second input `warp` float32 (N, 2, 3), crop px to frame
    px, and points in frame px. Raises ExportError.
    """
    after = NodeBuilder("decode/")
    maps = _merge_flip(after, spec) if flip else "heatmaps"
    name = "crop_points" if affine else "points"
    decode_nodes(after, maps, spec, scale=0.5 if flip else 1.0, name=name)
    count = len(spec.skeleton)
    outputs = [_value("points", [count, 2]), _value("scores", [count])]
    if not affine:
        return _wrapped(network, spec, after, flip=flip, outputs=outputs)
    _to_frame(after)
    model = _wrapped(network, spec, after, flip=flip, outputs=outputs)
    model.graph.input.append(_value("warp", [2, 3]))
    return model


def heatmaps_graph(network: onnx.ModelProto, spec: ModelSpec, *, flip: bool) -> onnx.ModelProto:
    """The same up to the heatmaps: `crops` to `heatmaps` float32 (N, K, h, w), merged with `flip`.

    The network's own output is renamed where the merge takes its name. Raises ExportError.
    """
    after = NodeBuilder("decode/")
    network = _renamed(network, "heatmaps", "network/heatmaps")
    maps = _merge_flip(after, spec, "network/heatmaps") if flip else "network/heatmaps"
    after.add("Mul", maps, 0.5 if flip else 1.0, name="heatmaps")
    width, height = spec.heatmap_size
    outputs = [_value("heatmaps", [len(spec.skeleton), height, width])]
    return _wrapped(network, spec, after, flip=flip, outputs=outputs)


def _renamed(network: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    for node in copy.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return copy


def _wrapped(
    network: onnx.ModelProto,
    spec: ModelSpec,
    after: NodeBuilder,
    *,
    flip: bool,
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Crops in front of the network, `after` behind it."""
    if [v.name for v in network.graph.input] != ["image"]:
        found = [v.name for v in network.graph.input]
        raise ExportError(f"network graph: wanted one input 'image', got {found}")
    before = NodeBuilder("crop/")
    _crops_to_image(before, spec, flip=flip)
    width, height = spec.input_size
    graph = helper.make_graph(
        [*before.nodes, *network.graph.node, *after.nodes],
        f"{spec.architecture}-{'flip' if flip else 'plain'}",
        [_value("crops", [height, width, 3], onnx.TensorProto.UINT8)],
        outputs,
        [*before.constants, *network.graph.initializer, *after.constants],
    )
    model = helper.make_model(graph, opset_imports=network.opset_import)
    model.ir_version = network.ir_version
    model.producer_name = "posekit"
    return model


def _value(name: str, sizes: Sequence[int], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["N", *sizes])


def _crops_to_image(g: NodeBuilder, spec: ModelSpec, *, flip: bool) -> None:
    """uint8 (N, H, W, 3) RGB to the network's `image`, float32 (N or 2N, 3, H, W).

    The Cast comes first because TensorRT takes uint8 nowhere else; the normalisation is a batch
    normalisation, one pass where Mul and Add are two; columns are reversed while each is one run.
    """
    width = spec.input_size[0]
    pixels = g.add("Cast", "crops", to=FLOAT)
    image = g.add("Transpose", pixels, perm=[0, 3, 1, 2])
    if flip:
        columns = g.add("Transpose", pixels, perm=[0, 2, 3, 1])
        reverse = g.add("Gather", columns, np.arange(width)[::-1], axis=1)
        mirrored = g.add("Transpose", reverse, perm=[0, 2, 3, 1])
        image = g.add("Concat", image, mirrored, axis=0)
    if spec.color == "bgr":
        image = g.add("Gather", image, np.array([2, 1, 0]), axis=1)
    scale, bias = 1 / np.array(spec.std), -np.array(spec.mean) / np.array(spec.std)
    statistics = np.zeros(3, np.float32), np.ones(3, np.float32)
    g.add("BatchNormalization", image, scale, bias, *statistics, name="image", epsilon=0.0)


def _merge_flip(g: NodeBuilder, spec: ModelSpec, maps: str = "heatmaps") -> str:
    """The sum (not the mean: the caller halves what it reads) of both views' maps.

    Mirroring back and shifting are one small matrix product; exact for whole cells.
    """
    width, height = spec.heatmap_size
    count = len(spec.skeleton)
    pair = g.add("Reshape", maps, np.array([2, -1, count, height, width]))
    upright, mirrored = (g.add("Gather", pair, np.array(k), axis=0) for k in (0, 1))
    swapped = g.add("Gather", mirrored, np.array(spec.skeleton.mirror), axis=1)
    back = g.add("MatMul", swapped, codecs.mirror_matrix(spec.heatmap_size[0], spec.flip_shift))
    return g.add("Add", upright, back)


def _to_frame(g: NodeBuilder) -> None:
    """`Warp.to_frame`: crop_points (N, K, 2) by `warp` (N, 2, 3) to points."""
    linear = g.add("Transpose", g.add("Gather", "warp", np.array([0, 1]), axis=2), perm=[0, 2, 1])
    offset = g.add("Transpose", g.add("Gather", "warp", np.array([2]), axis=2), perm=[0, 2, 1])
    g.add("Add", g.add("MatMul", "crop_points", linear), offset, name="points")
