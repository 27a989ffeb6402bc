"""Argmax and the sub-pixel refinements as ONNX nodes: the same arithmetic as `posekit.codecs`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posekit import codecs
from posekit.types import ModelSpec
from posekit_engines.graphs.nodes import FLOAT, NodeBuilder


def decode_nodes(
    g: NodeBuilder, maps: str, spec: ModelSpec, *, scale: float, name: str = "points"
) -> None:
    """`codecs.decode`: argmax, refinement, cells to crop pixels."""
    width, height = spec.heatmap_size
    flat = g.add("Reshape", maps, np.array([0, 0, height * width]))
    index = g.add("ArgMax", flat, axis=2, keepdims=1)
    peak = g.add("GatherElements", flat, index, axis=2)
    if scale != 1:
        peak = g.add("Mul", peak, scale)
    row = g.add("Div", index, np.array(width))
    column = g.add("Sub", index, g.add("Mul", row, np.array(width)))
    cells = g.add("Cast", g.add("Concat", column, row, axis=2), to=FLOAT)
    if spec.decode != "argmax":
        at = _Peak(maps, row, column, peak, scale, width, height)
        positive = g.add("Greater", peak, 0.0)
        step = _STEPS[spec.decode](g, at, spec.blur)
        cells = g.add("Add", cells, g.add("Where", positive, step, 0.0))
    scaled = g.add("Mul", cells, np.array(spec.map_scale, float))
    g.add("Add", scaled, np.array(spec.map_offset, float), name=name)
    score = g.add("Where", g.add("IsNaN", peak), np.float32(0), peak)
    g.add("Squeeze", score, np.array([2]), name="scores")


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


def _quarter_step(g: NodeBuilder, at: _Peak, _: int) -> str:
    """`codecs._quarter_step`."""
    around = _patch(g, at, 1, inside_only=True)
    slope = g.add("MatMul", around, _SLOPES)
    step = g.add("Mul", g.add("Sign", slope), 0.25)
    return g.add("Where", _inside(g, at, 1), step, 0.0)


def _quarter_axis_step(g: NodeBuilder, at: _Peak, _: int) -> str:
    """`codecs._quarter_step`, each axis on its own."""
    step = g.add("Mul", g.add("Sign", g.add("MatMul", _patch(g, at, 1), _SLOPES)), 0.25)
    across, down = _inside_each(g, at, 1)
    tests = [
        g.add("And", across, g.add("Greater", at.row, np.array(0))),
        g.add("And", down, g.add("Greater", at.column, np.array(0))),
    ]
    parts = (g.add("Gather", step, np.array([k]), axis=2) for k in (0, 1))
    kept = [g.add("Where", test, part, 0.0) for test, part in zip(tests, parts, strict=True)]
    return g.add("Concat", *kept, axis=2)


def _dark_step(g: NodeBuilder, at: _Peak, blur: int) -> str:
    """`codecs._dark_step`."""
    blurred = _blurred(g, at, reach=2, blur=blur)
    logs = g.add("Log", g.add("Max", blurred, codecs.TINY))
    step = _newton(g, g.add("MatMul", logs, codecs.DARK))
    return g.add("Where", _inside(g, at, 2), step, 0.0)


def _udp_step(g: NodeBuilder, at: _Peak, blur: int) -> str:
    """`codecs._udp_step`."""
    blurred = _blurred(g, at, reach=1, blur=blur)
    middle = g.add("Max", g.add("Gather", blurred, np.array([4]), axis=2), codecs.TINY)
    rescaled = g.add("Mul", blurred, g.add("Div", at.peak, middle))
    floor, ceiling = codecs.UDP_FLOOR, codecs.UDP_CEILING
    logs = g.add("Log", g.add("Min", g.add("Max", rescaled, floor), ceiling))
    row = _existing(g, at.row, at.height)
    column = _existing(g, at.column, at.width)
    # Index of each neighbor in the 3 x 3 square; beyond a border it is the border's own cell.
    wide_row = g.add("Gather", row, np.repeat(np.arange(3), 3), axis=2)
    wide_column = g.add("Gather", column, np.tile(np.arange(3), 3), axis=2)
    index = g.add("Add", g.add("Mul", wide_row, np.array(3)), wide_column)
    return _newton(g, g.add("MatMul", g.add("GatherElements", logs, index, axis=2), codecs.UDP))


def _existing(g: NodeBuilder, index: str, size: int) -> str:
    """0, 1, 2 for the neighbors before, at and after `index`; 1 for those beyond a border."""
    near = _clipped(g, g.add("Add", index, np.array([-1, 0, 1])), size - 1)
    return g.add("Add", g.add("Sub", near, index), np.array(1))


def _inside(g: NodeBuilder, at: _Peak, margin: int) -> str:
    """Whether 1 < x < w - margin and 1 < y < h - margin, (N, K, 1)."""
    return g.add("And", *_inside_each(g, at, margin))


def _inside_each(g: NodeBuilder, at: _Peak, margin: int) -> list[str]:
    """Whether 1 < x < w - margin, and whether 1 < y < h - margin, each (N, K, 1)."""
    tests = [
        g.add("Greater", at.column, np.array(1)),
        g.add("Less", at.column, np.array(at.width - margin)),
        g.add("Greater", at.row, np.array(1)),
        g.add("Less", at.row, np.array(at.height - margin)),
    ]
    return [g.add("And", tests[0], tests[1]), g.add("And", tests[2], tests[3])]


def _patch(g: NodeBuilder, at: _Peak, radius: int, *, inside_only: bool = False) -> str:
    """The square around each peak, (N, K, P²); zero beyond the borders.

    inside_only: of squares that cross a border the values are undefined; saves a copy of the maps.
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


def _clipped(g: NodeBuilder, index: str, last: int) -> str:
    """`index` (int64) clipped to 0 and `last`."""
    return g.add("Min", g.add("Max", index, np.array(0)), np.array(last))


def _blurred(g: NodeBuilder, at: _Peak, *, reach: int, blur: int) -> str:
    """`codecs._blurred`, (N, K, (2 reach + 1)²); the views' mean where maps are a sum."""
    if blur == 1:  # DARK does not refine near a border, UDP repeats the border
        patch = _patch(g, at, reach, inside_only=reach == 2)
        return patch if at.scale == 1 else g.add("Mul", patch, at.scale)
    patch = _patch(g, at, reach + blur // 2)
    return g.add("MatMul", patch, codecs.blur_matrix(reach, blur) * np.float32(at.scale))


def _newton(g: NodeBuilder, differences: str) -> str:
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
