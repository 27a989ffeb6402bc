"""Poses on an image: left blue, right orange, the rest white; a color a track for its box."""

from __future__ import annotations

import colorsys
import functools
import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit.drawing.style import DrawStyle as DrawStyle
from posekit.errors import InputError
from posekit.inputs.pixels import check_image
from posekit.spec import Color as ChannelOrder
from posekit.spec import Skeleton

Color = tuple[int, int, int]
UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Blue and orange stay apart for every kind of color blindness (Okabe and Ito).
LEFT: Color = (30, 165, 255)
RIGHT: Color = (255, 138, 20)
MIDDLE: Color = (240, 240, 240)
_EDGE: Color = (22, 22, 26)  # the dark rim that keeps a skeleton legible on anything
_UNTRACKED: Color = (205, 205, 205)
_SHIFT = 4  # OpenCV's fixed point: 1/16 px, so that a skeleton in a video does not tremble
_FAR = 30_000  # px; a point beyond it is not drawn, since fixed-point numbers end
_WIDTH = 0.011  # of a bone, as a share of the person's larger extent
_THINNEST = 1.0  # px; thinner lines break up
_WIDEST = 0.0045  # of a bone, as a share of the image's diagonal
_RIM = 0.22  # width of the rim, as a share of the bone's; 1 px at least where it is whole
_BARE = 1.2  # px; thinner bones have no rim, which would hide a small person
_FADE = 1.25  # px of rim that a bone may have for each px of width above that
_DELICATE = 0.75  # bones of less than this share of the full width have no rim
_AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))
_TAG = 1 / 300  # size of letters, in OpenCV's units, by the person's extent, px
_ANGLES = np.arange(12) * np.pi / 6
_ROUND = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class _Boxes(Protocol):
    @property
    def xyxy(self) -> Float32: ...


class Drawable(Protocol):
    """What is drawn of `posekit.types.Poses`, which stands above: it has a method that draws."""

    def __len__(self) -> int: ...
    @property
    def points(self) -> Float32:
        """(N, K, 2), image px."""
        ...

    @property
    def scores(self) -> Float32:
        """(N, K)."""
        ...

    @property
    def boxes(self) -> _Boxes:
        """(N, 4) in its `xyxy`."""
        ...

    @property
    def ids(self) -> NDArray[np.int64] | None:
        """(N,) of tracks."""
        ...

    @property
    def skeleton(self) -> Skeleton:
        """Its bones, sides and sigmas."""
        ...


def draw(
    image: UInt8,
    poses: Drawable,
    *,
    style: DrawStyle = DrawStyle(),
    color: ChannelOrder = "rgb",
    out: UInt8 | None = None,
) -> UInt8:
    """`image` uint8 (H, W, 3) with boxes, bones and points on it; a copy unless `out` is given.

    color: the order of its channels.  out: C-contiguous, of the same shape, maybe `image` itself.
    Points that are not finite or under `style.min_score` are left out, those outside the image
    are cut. Raises InputError.
    """
    if color not in ("rgb", "bgr"):
        raise InputError(f"color: wanted rgb or bgr, got {color!r}")
    canvas = _canvas(image, out)
    if not len(poses):
        return canvas
    if color == "bgr":
        cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB, dst=canvas)
    if style.boxes:
        _draw_boxes(canvas, poses)
    _draw_skeletons(canvas, poses, style)
    _draw_texts(canvas, poses, style)
    if color == "bgr":
        cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR, dst=canvas)
    return canvas


@functools.lru_cache(4096)
def color_of(identity: int) -> Color:
    """RGB color of a track id: the same one each time, and far from its neighbors' hues."""
    hue = 0.12 + 0.618034 * identity  # the golden ratio spreads any run of numbers evenly
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, 0.62, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True, eq=False)
class _Shapes:
    """What is drawn for a skeleton, by its names and sigmas.

    bones: (B, 2) indices.  weights, sizes: share of the full width, per bone and per keypoint.
    rimmed: (B,) which bones have a dark rim.  bone_colors, point_colors: of their sides.
    """

    bones: NDArray[np.int64]
    weights: Float64
    sizes: Float64
    rimmed: NDArray[np.bool_]
    bone_colors: tuple[Color, ...]
    point_colors: tuple[Color, ...]


@functools.lru_cache(16)
def _shapes(skeleton: Skeleton) -> _Shapes:
    bones = np.array(skeleton.bones, np.int64).reshape(-1, 2)
    # small sigmas belong to small parts: eyes, fingers; they get thin lines
    sizes = np.clip(np.array(skeleton.sigmas) / 0.06, 0.4, 1.0)
    colors = tuple(_color(skeleton, k) for k in range(len(skeleton)))
    bone_colors = tuple(colors[a] if colors[a] == colors[b] else MIDDLE for a, b in skeleton.bones)
    weights = sizes[bones].min(1, initial=1.0)
    return _Shapes(bones, weights, sizes, weights >= _DELICATE, bone_colors, colors)


def _color(skeleton: Skeleton, k: int) -> Color:
    """By name; else the earlier one of a mirror pair is left, as in COCO."""
    name, pair = skeleton.keypoints[k].lower(), skeleton.mirror[k] if skeleton.mirror else k
    if pair == k:
        return MIDDLE
    if name.startswith(("left", "l_")) or name.endswith(("left", "_l")):
        return LEFT
    if name.startswith(("right", "r_")) or name.endswith(("right", "_r")):
        return RIGHT
    return LEFT if k < pair else RIGHT


def _canvas(image: UInt8, out: UInt8 | None) -> UInt8:
    check_image(image)
    if out is None:
        return np.array(image, order="C")
    if out.dtype != np.uint8 or out.shape != image.shape or not out.flags.c_contiguous:
        raise InputError(f"out: wanted C-contiguous uint8 {image.shape}, got {out.shape}")
    if out is not image:
        np.copyto(out, image)
    return out


def _draw_skeletons(canvas: UInt8, poses: Drawable, style: DrawStyle) -> None:
    """Person by person: rims of the bones, so that none cuts another bone, bones, points."""
    shapes = _shapes(poses.skeleton)
    near: NDArray[np.bool_] = np.abs(poses.points).max(2) < _FAR  # false for NaN
    shown = near & (poses.scores >= style.min_score)
    points = np.where(shown[:, :, None], poses.points, 0).astype(np.float64)
    width = _widths(canvas, poses, shown, line_width=style.line_width)
    rim = np.clip(_FADE * (width - _BARE), 0.0, np.maximum(1.0, width * _RIM))
    halves = width[:, None] * shapes.weights / 2
    start, end = points[:, shapes.bones[:, 0]], points[:, shapes.bones[:, 1]]
    drawn = shown[:, shapes.bones[:, 0]] & shown[:, shapes.bones[:, 1]]
    bones = _quads(start, end, halves)
    rims = _quads(start, end, halves + rim[:, None])
    radii = 0.85 * width[:, None] * shapes.sizes
    dots, dot_rims = _dots(points, radii), _dots(points, radii + rim[:, None])
    rimmed = (rim > 0)[:, None] & shapes.rimmed
    for n in range(len(poses)):
        for b in np.flatnonzero(drawn[n] & rimmed[n]).tolist():
            cv2.fillConvexPoly(canvas, rims[n, b], _EDGE, cv2.LINE_AA, _SHIFT)
        for b in np.flatnonzero(drawn[n]).tolist():
            cv2.fillConvexPoly(canvas, bones[n, b], shapes.bone_colors[b], cv2.LINE_AA, _SHIFT)
        for k in np.flatnonzero(shown[n]).tolist():
            if rim[n]:
                cv2.fillConvexPoly(canvas, dot_rims[n, k], _EDGE, cv2.LINE_AA, _SHIFT)
            cv2.fillConvexPoly(canvas, dots[n, k], shapes.point_colors[k], cv2.LINE_AA, _SHIFT)


def _widths(
    canvas: UInt8, poses: Drawable, shown: NDArray[np.bool_], *, line_width: float | None
) -> Float64:
    """Width (N,) of each person's bones, px: by the extent of the drawn points, else of the box."""
    if line_width is not None:
        return np.full(len(poses), line_width, np.float64)
    widest = max(2 * _THINNEST, _WIDEST * math.hypot(*canvas.shape[:2]))
    width: Float64 = np.clip(_extents(poses, shown) * _WIDTH, _THINNEST, widest)
    return width


def _extents(poses: Drawable, shown: NDArray[np.bool_]) -> Float64:
    """The larger side (N,) of the drawn points, px; of the box where there are fewer than two."""
    drawn = shown[:, :, None]
    low = np.where(drawn, poses.points, np.inf).min(1)
    high = np.where(drawn, poses.points, -np.inf).max(1)
    boxes = poses.boxes.xyxy
    extent = np.where(shown.sum(1)[:, None] > 1, high - low, boxes[:, 2:] - boxes[:, :2])
    larger: Float64 = extent.max(1).astype(np.float64)
    return larger


def _quads(start: Float64, end: Float64, halves: Float64) -> NDArray[np.int32]:
    """Rectangles (N, B, 4, 2) around lines (N, B, 2), in OpenCV's fixed point."""
    along = end - start
    length = np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-6)
    side = np.stack([-along[..., 1], along[..., 0]], -1) * (halves / length)[..., None]
    return _fixed(np.stack([start + side, end + side, end - side, start - side], -2))


def _dots(centers: Float64, radii: Float64) -> NDArray[np.int32]:
    """Twelve-sided polygons (N, K, 12, 2); OpenCV's own small circles are diamonds."""
    return _fixed(centers[:, :, None] + radii[:, :, None, None] * _ROUND)


def _fixed(values: Float64) -> NDArray[np.int32]:
    return np.rint(values * (1 << _SHIFT)).astype(np.int32)


def _draw_boxes(canvas: UInt8, poses: Drawable) -> None:
    """Thin frames of four bars: faster than OpenCV's thick rectangle, and cut at the border."""
    widest = max(1.0, math.hypot(*canvas.shape[:2]) / 1100)
    corners = np.rint(np.clip(poses.boxes.xyxy, -_FAR, _FAR)).astype(int).tolist()
    for n, (x0, y0, x1, y1) in enumerate(corners):
        color = _UNTRACKED if poses.ids is None else color_of(int(poses.ids[n]))
        thick = round(min(widest, max(1.0, max(x1 - x0, y1 - y0) / 150))) - 1
        for low, high in (
            ((x0, y0), (x1, y0 + thick)),
            ((x0, y1 - thick), (x1, y1)),
            ((x0, y0), (x0 + thick, y1)),
            ((x1 - thick, y0), (x1, y1)),
        ):
            cv2.rectangle(canvas, low, high, color, -1)


def _draw_texts(canvas: UInt8, poses: Drawable, style: DrawStyle) -> None:
    """Names of keypoints, then ids, which lie above all."""
    if style.labels:
        _draw_labels(canvas, poses, style.min_score)
    if style.ids and poses.ids is not None:
        for n, identity in enumerate(poses.ids.tolist()):
            _draw_tag(canvas, str(identity), poses.boxes.xyxy[n], color=color_of(identity))


def _draw_labels(canvas: UInt8, poses: Drawable, min_score: float) -> None:
    """The name of each drawn keypoint, right of it, in its color on a dark edge."""
    colors, names = _shapes(poses.skeleton).point_colors, poses.skeleton.keypoints
    shown = (np.abs(poses.points).max(2) < _FAR) & (poses.scores >= min_score)
    scales = np.clip(_extents(poses, shown) / 900, 0.35, 1.0)
    for n, k in np.argwhere(shown).tolist():
        scale = float(scales[n])
        x, y = np.rint(poses.points[n, k] + (4 + 10 * scale, 10 * scale)).astype(int).tolist()
        # the edge is the text itself, moved: a bolder one is wider in OpenCV 5
        for dx, dy, color in (*((*step, _EDGE) for step in _AROUND), (0, 0, colors[k])):
            _put_text(canvas, names[k], (x + dx, y + dy), color=color, scale=scale, bold=1)


def _draw_tag(canvas: UInt8, text: str, box: Float32, *, color: Color) -> None:
    """The id on its color, above the box's corner, or within the image where it would leave."""
    height, width = canvas.shape[:2]
    largest = max(0.35, min(math.hypot(width, height) / 3000, 1.6))
    scale = min(max(float(max(box[2] - box[0], box[3] - box[1])) * _TAG, 0.35), largest)
    bold = max(1, round(scale * 1.6))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, bold)
    pad = max(2, round(h * 0.45))
    x = round(min(max(float(box[0]), 0), max(0, width - w - 2 * pad)))
    y = round(min(max(float(box[1]), h + 2 * pad), max(h + 2 * pad, height)))
    cv2.rectangle(canvas, (x, y - h - 2 * pad), (x + w + 2 * pad, y), color, -1)
    _put_text(canvas, text, (x + pad, y - pad), color=_EDGE, scale=scale, bold=bold)


def _put_text(
    canvas: UInt8, text: str, place: tuple[int, int], *, color: Color, scale: float, bold: int
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, place, font, scale, color, bold, cv2.LINE_AA)
