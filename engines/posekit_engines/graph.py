"""A network and all the arithmetic around it as one ONNX graph of standard operators.

`crops` uint8 (N, H, W, 3) RGB in, `points` float32 (N, K, 2) in crop pixels and `scores` (N, K)
out: normalise, mirror, network on 2N, flip merge, argmax, refinement. `posekit.codecs` is the
truth that each stage equals; the stages here carry its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from posekit import codecs
from posekit.errors import ExportError
from posekit.types import ModelSpec

_FLOAT = onnx.TensorProto.FLOAT


class _Nodes:
    """Nodes and constants in order; a method call adds a node and returns its output's name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, operator: str, *inputs: str | ArrayLike, name: str = "", **attributes: Any
    ) -> str:
        """One output; inputs that are not names become constants."""
        output = name or f"{self._prefix}{len(self.nodes)}_{operator}"
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], output, **attributes))
        return output

    def _constant(self, value: ArrayLike) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"{self._prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def points_graph(
    network: onnx.ModelProto, spec: ModelSpec, *, flip: bool, affine: bool = False
) -> onnx.ModelProto:
    """The points graph around a network graph (`image` -> `heatmaps`, as `network_graph` makes it).

    The network's nodes and external initialisers are kept as they are; N stays dynamic. The same
    input gives the same bytes.  affine: a second input `warp` float32 (N, 2, 3), crop px to frame
    px, and points in frame px. Raises ExportError.
    """
    after = _Nodes("decode/")
    maps = _merge_flip(after, spec) if flip else "heatmaps"
    name = "crop_points" if affine else "points"
    _decode(after, maps, spec, scale=0.5 if flip else 1.0, name=name)
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
    after = _Nodes("decode/")
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
    after: _Nodes,
    *,
    flip: bool,
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Crops in front of the network, `after` behind it."""
    if [v.name for v in network.graph.input] != ["image"]:
        found = [v.name for v in network.graph.input]
        raise ExportError(f"network graph: wanted one input 'image', got {found}")
    before = _Nodes("crop/")
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


def _value(name: str, sizes: Sequence[int], kind: int = _FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["N", *sizes])


def _crops_to_image(g: _Nodes, spec: ModelSpec, *, flip: bool) -> None:
    """uint8 (N, H, W, 3) RGB to the network's `image`, float32 (N or 2N, 3, H, W).

    The Cast comes first because TensorRT takes uint8 nowhere else; the normalisation is a batch
    normalisation, one pass where Mul and Add are two; columns are reversed while each is one run.
    """
    width = spec.input_size[0]
    pixels = g.add("Cast", "crops", to=_FLOAT)
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


def _merge_flip(g: _Nodes, spec: ModelSpec, maps: str = "heatmaps") -> str:
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


def _to_frame(g: _Nodes) -> None:
    """`Warp.to_frame`: crop_points (N, K, 2) by `warp` (N, 2, 3) to points."""
    linear = g.add("Transpose", g.add("Gather", "warp", np.array([0, 1]), axis=2), perm=[0, 2, 1])
    offset = g.add("Transpose", g.add("Gather", "warp", np.array([2]), axis=2), perm=[0, 2, 1])
    g.add("Add", g.add("MatMul", "crop_points", linear), offset, name="points")


def _decode(g: _Nodes, maps: str, spec: ModelSpec, *, scale: float, name: str = "points") -> None:
    """`codecs.decode`: argmax, refinement, cells to crop pixels."""
    width, height = spec.heatmap_size
    flat = g.add("Reshape", maps, np.array([0, 0, height * width]))
    index = g.add("ArgMax", flat, axis=2, keepdims=1)
    peak = g.add("GatherElements", flat, index, axis=2)
    if scale != 1:
        peak = g.add("Mul", peak, scale)
    row = g.add("Div", index, np.array(width))
    column = g.add("Sub", index, g.add("Mul", row, np.array(width)))
    cells = g.add("Cast", g.add("Concat", column, row, axis=2), to=_FLOAT)
    if spec.decode != "argmax":
        where = _Peak(maps, row, column, peak, scale, width, height)
        positive = g.add("Greater", peak, 0.0)
        step = _STEPS[spec.decode](g, where, spec.blur)
        cells = g.add("Add", cells, g.add("Where", positive, step, 0.0))
    scaled = g.add("Mul", cells, np.array(spec.map_scale))
    g.add("Add", scaled, np.array(spec.map_offset), name=name)
    number = g.add("Where", g.add("IsNaN", peak), np.float32(0), peak)
    g.add("Squeeze", number, np.array([2]), name="scores")


@dataclass(frozen=True)
class _Peak:
    """Names of maps (N, K, h, w) and of the peaks: int64 row and column, float height (N, K, 1)."""

    maps: str
    row: str
    column: str
    peak: str
    scale: float
    width: int
    height: int


def _quarter_step(g: _Nodes, at: _Peak, _: int) -> str:
    """`codecs._quarter_step`."""
    around = _patch(g, at, 1, inside_only=True)
    slope = g.add("MatMul", around, _SLOPES)
    step = g.add("Mul", g.add("Sign", slope), 0.25)
    return g.add("Where", _inside(g, at, 1), step, 0.0)


def _quarter_axis_step(g: _Nodes, at: _Peak, _: int) -> str:
    """`codecs._quarter_step`, each axis for itself."""
    step = g.add("Mul", g.add("Sign", g.add("MatMul", _patch(g, at, 1), _SLOPES)), 0.25)
    across, down = _inside_each(g, at, 1)
    tests = [
        g.add("And", across, g.add("Greater", at.row, np.array(0))),
        g.add("And", down, g.add("Greater", at.column, np.array(0))),
    ]
    parts = (g.add("Gather", step, np.array([k]), axis=2) for k in (0, 1))
    kept = [g.add("Where", test, part, 0.0) for test, part in zip(tests, parts, strict=True)]
    return g.add("Concat", *kept, axis=2)


def _dark_step(g: _Nodes, at: _Peak, blur: int) -> str:
    """`codecs._dark_step`."""
    blurred = _blurred(g, at, reach=2, blur=blur)
    logs = g.add("Log", g.add("Max", blurred, codecs.TINY))
    step = _newton(g, g.add("MatMul", logs, codecs.DARK))
    return g.add("Where", _inside(g, at, 2), step, 0.0)


def _udp_step(g: _Nodes, at: _Peak, blur: int) -> str:
    """`codecs._udp_step`."""
    blurred = _blurred(g, at, reach=1, blur=blur)
    middle = g.add("Max", g.add("Gather", blurred, np.array([4]), axis=2), codecs.TINY)
    rescaled = g.add("Mul", blurred, g.add("Div", at.peak, middle))
    floor, ceiling = codecs.UDP_FLOOR, codecs.UDP_CEILING
    logs = g.add("Log", g.add("Min", g.add("Max", rescaled, floor), ceiling))
    row = _existing(g, at.row, at.height)
    column = _existing(g, at.column, at.width)
    # Index of each neighbour in the 3 x 3 square; those beyond a border are the border's own.
    wide_row = g.add("Gather", row, np.repeat(np.arange(3), 3), axis=2)
    wide_column = g.add("Gather", column, np.tile(np.arange(3), 3), axis=2)
    index = g.add("Add", g.add("Mul", wide_row, np.array(3)), wide_column)
    return _newton(g, g.add("MatMul", g.add("GatherElements", logs, index, axis=2), codecs.UDP))


def _existing(g: _Nodes, place: str, size: int) -> str:
    """0, 1, 2 for the neighbours before, at and after; 1 for those that do not exist."""
    near = _clipped(g, g.add("Add", place, np.array([-1, 0, 1])), size - 1)
    return g.add("Add", g.add("Sub", near, place), np.array(1))


def _inside(g: _Nodes, at: _Peak, margin: int) -> str:
    """Whether 1 < x < w - margin and 1 < y < h - margin, (N, K, 1)."""
    return g.add("And", *_inside_each(g, at, margin))


def _inside_each(g: _Nodes, at: _Peak, margin: int) -> list[str]:
    """Whether 1 < x < w - margin, and whether 1 < y < h - margin, each (N, K, 1)."""
    tests = [
        g.add("Greater", at.column, np.array(1)),
        g.add("Less", at.column, np.array(at.width - margin)),
        g.add("Greater", at.row, np.array(1)),
        g.add("Less", at.row, np.array(at.height - margin)),
    ]
    return [g.add("And", tests[0], tests[1]), g.add("And", tests[2], tests[3])]


def _patch(g: _Nodes, at: _Peak, radius: int, *, inside_only: bool = False) -> str:
    """The square around each peak, (N, K, P²); zero beyond the borders.

    inside_only: squares that cross a border may hold anything, which saves a copy of the maps.
    """
    side = 2 * radius + 1
    maps, row, column, width, height = at.maps, at.row, at.column, at.width, at.height
    if inside_only and side <= min(width, height):
        row = _clipped(g, g.add("Sub", row, np.array(radius)), height - side)
        column = _clipped(g, g.add("Sub", column, np.array(radius)), width - side)
    else:
        maps = g.add("Pad", maps, np.array([0, 0, radius, radius] * 2))
        width, height = width + 2 * radius, height + 2 * radius
    flat = g.add("Reshape", maps, np.array([0, 0, width * height]))
    corner = g.add("Add", g.add("Mul", row, np.array(width)), column)
    offsets = (np.arange(side)[:, None] * width + np.arange(side)).reshape(-1)
    return g.add("GatherElements", flat, g.add("Add", corner, offsets), axis=2)


def _clipped(g: _Nodes, place: str, last: int) -> str:
    """`place` (int64) within 0 and `last`."""
    return g.add("Min", g.add("Max", place, np.array(0)), np.array(last))


def _blurred(g: _Nodes, at: _Peak, *, reach: int, blur: int) -> str:
    """`codecs._blurred`, (N, K, (2 reach + 1)²); the views' mean where maps are a sum."""
    if blur == 1:  # DARK does not refine near a border, and UDP repeats it
        patch = _patch(g, at, reach, inside_only=reach == 2)
        return patch if at.scale == 1 else g.add("Mul", patch, at.scale)
    patch = _patch(g, at, reach + blur // 2)
    return g.add("MatMul", patch, codecs.blur_matrix(reach, blur) * np.float32(at.scale))


def _newton(g: _Nodes, differences: str) -> str:
    """`codecs._newton` of (N, K, 5): slopes x and y, second differences xx, yy and xy."""
    x, y, xx, yy, xy = (g.add("Gather", differences, np.array([k]), axis=2) for k in range(5))
    determinant = g.add("Sub", g.add("Mul", xx, yy), g.add("Mul", xy, xy))
    trace = g.add("Add", xx, yy)
    least = g.add("Add", g.add("Mul", g.add("Mul", trace, trace), codecs.THIN), codecs.FLAT)
    peaked = g.add("And", g.add("Greater", determinant, least), g.add("Less", trace, 0.0))
    along_x = g.add("Sub", g.add("Mul", xy, y), g.add("Mul", yy, x))
    along_y = g.add("Sub", g.add("Mul", xy, x), g.add("Mul", xx, y))
    step = g.add(
        "Div",
        g.add("Concat", along_x, along_y, axis=2),
        g.add("Where", peaked, determinant, 1.0),
    )
    limit = codecs.MAX_STEP
    return g.add("Where", peaked, g.add("Min", g.add("Max", step, -limit), limit), 0.0)


_STEPS = {
    "quarter": _quarter_step,
    "quarter-axis": _quarter_axis_step,
    "dark": _dark_step,
    "udp": _udp_step,
}
# Slopes along x and y of a flat 3 x 3 square.
_SLOPES = np.zeros((9, 2), np.float32)
_SLOPES[[5, 7], [0, 1]], _SLOPES[[3, 1], [0, 1]] = 1, -1
