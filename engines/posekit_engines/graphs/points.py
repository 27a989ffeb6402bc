"""A network and all the arithmetic around it as one ONNX graph of standard operators.

Input: `crops` uint8 (N, H, W, 3) RGB. Outputs: `points` float32 (N, K, 2) in crop px and `scores`
(N, K). Stages: normalize, mirror, network on 2N, flip merge, argmax, refinement. Each equals the
function of the same name in `posekit.codecs`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from posekit import codecs
from posekit.errors import ExportError
from posekit.types import ModelSpec
from posekit_engines.graphs.decode import decode_nodes
from posekit_engines.graphs.edit import (
    HEATMAPS,
    INNER_HEATMAPS,
    batched,
    copy_model,
    rename_tensors,
)
from posekit_engines.graphs.nodes import FLOAT, NodeBuilder


def points_graph(
    network: onnx.ModelProto, spec: ModelSpec, *, flip: bool, affine: bool = False
) -> onnx.ModelProto:
    """The points graph around a network graph (`image` -> `heatmaps`, as `network_graph` makes it).

    The network's nodes and external initializers are kept as they are; N stays dynamic. The same
    arguments give the same bytes.  affine: with a second input `warp` float32 (N, 2, 3), crop px to
    frame px, and points in frame px. Raises ExportError.
    """
    after = NodeBuilder("decode/")
    maps = _merge_flip(after, spec, HEATMAPS) if flip else HEATMAPS
    name = "crop_points" if affine else "points"
    decode_nodes(after, maps, spec, scale=0.5 if flip else 1.0, name=name)
    count = len(spec.skeleton)
    outputs = [batched("points", [count, 2], FLOAT), batched("scores", [count], FLOAT)]
    if not affine:
        return _wrap(network, spec, after, flip=flip, outputs=outputs)
    _to_frame(after)
    model = _wrap(network, spec, after, flip=flip, outputs=outputs)
    model.graph.input.append(batched("warp", [2, 3], FLOAT))
    return model


def heatmaps_graph(network: onnx.ModelProto, spec: ModelSpec, *, flip: bool) -> onnx.ModelProto:
    """The same up to the heatmaps: `crops` to `heatmaps` float32 (N, K, h, w), merged with `flip`.

    The network's own maps are `network/heatmaps` in it. Raises ExportError.
    """
    after = NodeBuilder("decode/")
    network = copy_model(network)
    rename_tensors(network.graph, HEATMAPS, INNER_HEATMAPS)
    maps = _merge_flip(after, spec, INNER_HEATMAPS) if flip else INNER_HEATMAPS
    after.add("Mul", maps, 0.5 if flip else 1.0, name=HEATMAPS)
    width, height = spec.heatmap_size
    outputs = [batched(HEATMAPS, [len(spec.skeleton), height, width], FLOAT)]
    return _wrap(network, spec, after, flip=flip, outputs=outputs)


def _wrap(
    network: onnx.ModelProto,
    spec: ModelSpec,
    after: NodeBuilder,
    *,
    flip: bool,
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """The graph from crops through the network to what `after` computes of its maps."""
    inputs = [value.name for value in network.graph.input]
    if inputs != ["image"]:
        raise ExportError(f"network graph: wanted one input 'image', got {inputs}")
    before = NodeBuilder("crop/")
    _crops_to_image(before, spec, flip=flip)
    width, height = spec.input_size
    graph = helper.make_graph(
        [*before.nodes, *network.graph.node, *after.nodes],
        f"{spec.architecture}-{'flip' if flip else 'plain'}",
        [batched("crops", [height, width, 3], onnx.TensorProto.UINT8)],
        outputs,
        [*before.constants, *network.graph.initializer, *after.constants],
    )
    model = helper.make_model(graph, opset_imports=network.opset_import)
    model.ir_version = network.ir_version
    model.producer_name = "posekit"
    return model


def _crops_to_image(g: NodeBuilder, spec: ModelSpec, *, flip: bool) -> None:
    """uint8 (N, H, W, 3) RGB to the network's `image`, float32 (N or 2N, 3, H, W).

    The Cast is first because TensorRT supports uint8 in no other operator. Normalization is one
    BatchNormalization, a single pass where Mul and Add are two. The flip gathers rows of a
    transposed image, which are contiguous.
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


def _merge_flip(g: NodeBuilder, spec: ModelSpec, maps: str) -> str:
    """The sum of both views' maps (the caller halves the values it reads).

    Mirroring back and shifting are one small matrix product, exact for shifts by whole cells.
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
