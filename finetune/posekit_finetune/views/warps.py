"""Easy and hard views of a person: a warp of the crop and photometric changes.

A view stores its warp, so maps are resampled from one view to another exactly (`warp_maps`): in
pixels, with the spec's own mapping from cells to the crop and a mask of where they are defined.
(The paper's code uses one normalized matrix for image and maps, which differ by one to two pixels,
and its rotation is a shear on crops that are not square.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from posekit.geometry import Float64, compose
from posekit.types import Float32, ModelSpec, UInt8
from posekit_finetune.views import photometric

Random = np.random.Generator


@dataclass(frozen=True)
class Strength:
    """Ranges of a view's random changes; pairs are (sigma, limit) of clipped normals.

    turn_deg: rotation; (30, 60) is the paper's A30 and A60.  turn_share: share of rotated views.
    scale: around 1.  move_px: sigma of a shift, crop px.  flip: share of mirrored views.
    any_turn: share of views rotated by a uniformly drawn angle instead.
    operations, magnitude: RandAugment; 0 operations for none.  cutout: number of joints (JC-n).
    """

    turn_deg: tuple[float, float] = (0.0, 0.0)
    turn_share: float = 1.0
    scale: tuple[float, float] = (0.0, 0.0)
    move_px: float = 0.0
    flip: float = 0.0
    any_turn: float = 0.0
    operations: int = 0
    magnitude: float = 20.0
    cutout: int = 0


@dataclass(frozen=True, eq=False)
class Views:
    """Views of B persons.

    crops: uint8 (B, H, W, 3) RGB.  matrix: float64 (B, 2, 3), canonical crop px to view px.
    """

    crops: UInt8
    matrix: Float64

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """(B,): which views are mirror images."""
        return _mirrors(self.matrix)


def _mirrors(matrix: Float64) -> NDArray[np.bool_]:
    """Which matrices (B, 2, 3) mirror, (B,)."""
    mirrored: NDArray[np.bool_] = np.linalg.det(matrix[:, :, :2]) < 0
    return mirrored


def identity(count: int) -> Float64:
    """(count, 2, 3) identity matrices."""
    return np.repeat(np.eye(2, 3)[None], count, 0)


def draw_warps(randoms: Sequence[Random], strength: Strength, spec: ModelSpec) -> Float64:
    """(B, 2, 3) from crop px to view px: random rotation, scale, flip about the center, and shift.

    One generator per person, so a part of a batch draws the same as the whole batch. In pixels, so
    a rotation remains one on crops of any aspect ratio.
    """
    width, height = spec.input_size
    center = np.array([width - 1, height - 1]) / 2
    normal = np.array([random.normal(size=4) for random in randoms]).reshape(-1, 4)
    uniform = np.array([random.random(4) for random in randoms]).reshape(-1, 4)
    sigma, limit = strength.turn_deg
    turn = np.clip(normal[:, 0] * sigma, -limit, limit)
    turn = np.where(uniform[:, 0] < strength.turn_share, turn, 0.0)
    any_turn = 360 * uniform[:, 1] - 180
    turn = np.deg2rad(np.where(uniform[:, 2] < strength.any_turn, any_turn, turn))
    sigma, limit = strength.scale
    scale = np.clip(1 + normal[:, 1] * sigma, 1 - limit, 1 + limit)
    mirror = np.where(uniform[:, 3] < strength.flip, -1.0, 1.0)
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    linear = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    linear[:, 0] *= mirror[:, None]
    shift = center + normal[:, 2:] * strength.move_px - linear @ center
    return np.concatenate([linear, shift[:, :, None]], 2)


def cut_view(
    patches: UInt8, offset: tuple[float, float], matrix: Float64, *, spec: ModelSpec
) -> Views:
    """Views of patches uint8 (B, PH, PW, 3); patch px = canonical crop px + offset.

    matrix: (B, 2, 3) canonical crop px to view px. Black beyond the patch.
    """
    width, height = spec.input_size
    crops = np.empty((len(patches), height, width, 3), np.uint8)
    to_crop = np.eye(2, 3)
    to_crop[:, 2] = -np.array(offset)
    for patch, to_view, crop in zip(patches, compose(matrix, to_crop[None]), crops, strict=True):
        cv2.warpAffine(patch, to_view, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
    return Views(crops, matrix)


def draw_view(
    randoms: Sequence[Random],
    patches: UInt8,
    offset: tuple[float, float],
    *,
    strength: Strength,
    spec: ModelSpec,
) -> Views:
    """One randomly warped view of each person, before `augment`; arguments as in `cut_view`."""
    return cut_view(patches, offset, draw_warps(randoms, strength, spec), spec=spec)


@dataclass(frozen=True)
class PairOptions:
    """How `draw_pair` draws the teacher's view and those of the students.

    count: of hard views.  hard_from_easy: warp the easy view a second time, as the paper's code
    does, else the crop.  crop_teaches: the easy view is the canonical crop itself.
    swap: the hard view teaches and the easy one is learned.
    """

    easy: Strength
    hard: Strength
    count: int = 1
    hard_from_easy: bool = False
    crop_teaches: bool = False
    swap: bool = False


def draw_pair(
    randoms: Sequence[Random],
    patches: UInt8,
    offset: tuple[float, float],
    *,
    options: PairOptions,
    spec: ModelSpec,
) -> tuple[Views, list[Views]]:
    """The teacher's view of each person, and the views of the students, before `augment`.

    The easy warps are drawn in any case, so the hard ones do not depend on `crop_teaches`.
    """
    easy = draw_warps(randoms, options.easy, spec)
    if options.crop_teaches:
        easy = identity(len(randoms))
    hard = [draw_warps(randoms, options.hard, spec) for _ in range(options.count)]
    if options.hard_from_easy:
        hard = [compose(matrix, easy) for matrix in hard]
    if options.swap:
        easy, hard = hard[0], [easy]
    return (
        cut_view(patches, offset, easy, spec=spec),
        [cut_view(patches, offset, matrix, spec=spec) for matrix in hard],
    )


def augment(
    randoms: Sequence[Random],
    views: Views,
    joints: Float32,
    *,
    strength: Strength,
    spec: ModelSpec,
    repeat_joints: bool = False,
) -> Views:
    """RandAugment's photometric operations, then Joint Cutout; the warps do not change.

    joints: float32 (B, K, 2), px of these views, as predicted by the teacher.
    repeat_joints: draw the joints with replacement, as in the paper's code.
    """
    crops = views.crops.copy()
    for random, crop, points in zip(randoms, crops, joints, strict=True):
        if strength.operations:
            crop[:] = photometric.augment(
                random, crop, strength.operations, magnitude=strength.magnitude
            )
        if strength.cutout:
            _cut_out(random, crop, points, count=strength.cutout, spec=spec, repeat=repeat_joints)
    return Views(crops, views.matrix)


def _cut_out(
    random: Random, crop: UInt8, points: Float32, *, count: int, spec: ModelSpec, repeat: bool
) -> None:
    """JC-n: rectangles of the mean color around joints, 20 to 38 px on a crop 192 px wide.

    Source: Xie et al., ICCV 2021, supplementary C; sizes and spread from its code, which exchanges
    width and height there and so never covers the feet.
    """
    chosen = random.choice(len(points), min(count, len(points)) if not repeat else count, repeat)
    unit = spec.input_size[0] / 192
    mean = np.array(spec.mean).round().astype(np.uint8)
    fill = mean if spec.color == "rgb" else mean[::-1]
    for joint in points[chosen]:
        x, y = joint + random.normal(0, 10 * unit, 2)
        half = random.integers(10, 20, 2) * unit
        left, top = max(0, round(x - half[0])), max(0, round(y - half[1]))
        right, bottom = max(0, round(x + half[0])), max(0, round(y + half[1]))
        crop[top:bottom, left:right] = fill


def relative_warp(source: Float64, target: Float64) -> Float64:
    """(B, 2, 3) from source view px to target view px, of two warps from canonical crop px."""
    linear = np.linalg.inv(source[:, :, :2])
    inverse = np.concatenate([linear, -linear @ source[:, :, 2:]], 2)
    return compose(target, inverse)


def warp_maps(maps: Tensor, matrix: Float64, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Heatmaps (B, K, h, w) resampled in another view's cells, and where defined, (B, 1, h, w).

    matrix: (B, 2, 3), source view px to target view px; where it mirrors, left and right channels
    are exchanged. Beyond the source's edge cells the maps and `defined` are 0.
    """
    width, height = spec.heatmap_size
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    target = spec.cells_to_crop(np.stack([columns, rows], 1))
    linear = np.linalg.inv(matrix[:, :, :2])
    source = (target - matrix[:, None, :, 2]) @ linear.transpose(0, 2, 1)
    cells = spec.crop_to_cells(source).reshape(-1, height, width, 2)
    return sample_maps(swap_sides(maps, matrix, spec), cells)


def sample_maps(maps: Tensor, cells: Float64) -> tuple[Tensor, Tensor]:
    """Maps (B, K, h, w) sampled at cells (B, h', w', 2), x then y: (B, K, h', w').

    Also (B, 1, h', w'), 1 where the cell lies within the map; beyond it the maps are 0. Bicubic:
    bilinear sampling shifts a peak of sigma 2 by up to 0.03 cells where a view is scaled, this by
    0.01, in the same time. The channels of a cell are contiguous, so a sample is a weighted sum of
    16 rows.
    """
    batch, joints, height, width = maps.shape
    inside = ((cells > -1e-3) & (cells < np.array([width, height]) - 1 + 1e-3)).all(3)
    defined = torch.from_numpy(inside.astype(np.float32)).to(maps.device)
    points = torch.from_numpy(cells.astype(np.float32)).to(maps.device)
    columns, x_weights = _cubic_taps(points[..., 0], width)
    rows, y_weights = _cubic_taps(points[..., 1], height)
    person = torch.arange(batch, device=maps.device).view(-1, 1, 1, 1, 1) * (height * width)
    index = person + rows[..., None] * width + columns[..., None, :]
    weight = y_weights[..., None] * x_weights[..., None, :] * defined[..., None, None]
    table = maps.float().permute(0, 2, 3, 1).reshape(-1, joints)
    sampled = F.embedding_bag(
        index.view(-1, 16), table, per_sample_weights=weight.view(-1, 16), mode="sum"
    )
    sampled = sampled.view(*cells.shape[:3], joints).permute(0, 3, 1, 2)
    return sampled.contiguous(), defined[:, None]


def _cubic_taps(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The four neighbors (..., 4) of each coordinate, within 0 to count - 1, and their weights.

    Source: Keys, Cubic convolution interpolation, 1981, with a = -1/2: exact to degree 2.
    """
    first = points.floor()
    t = (points - first)[..., None]
    neighbors = first.long()[..., None] + torch.arange(-1, 3, device=points.device)
    weights = [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    return neighbors.clamp(0, count - 1), torch.cat(weights, -1)


def swap_sides(values: Tensor, matrix: Float64, spec: ModelSpec) -> Tensor:
    """Values (B, K, ...) with left and right exchanged where the matrix (B, 2, 3) mirrors."""
    mirrored = _mirrors(matrix)
    if not mirrored.any():
        return values
    condition = torch.from_numpy(mirrored).to(values.device)
    swapped = values[:, list(spec.skeleton.mirror)]
    return torch.where(condition.view(-1, *[1] * (values.dim() - 1)), swapped, values)


def warp_points(points: Float32, matrix: Float64, spec: ModelSpec) -> Float32:
    """Points (B, K, 2) from one view's px to another's; left and right exchanged by a mirror."""
    swapped = points[:, list(spec.skeleton.mirror)]
    points = np.where(_mirrors(matrix)[:, None, None], swapped, points)
    moved: Float64 = np.einsum("bij,bkj->bki", matrix[:, :, :2], points) + matrix[:, None, :, 2]
    return moved.astype(np.float32)


def normalize(crops: UInt8, spec: ModelSpec, device: torch.device | None = None) -> Tensor:
    """Crops uint8 (B, H, W, 3) RGB as the network's input, float32 (B, 3, H, W), channels last."""
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(device).float()
    pixels = pixels if spec.color == "rgb" else pixels.flip(-1)
    mean, std = (torch.tensor(values, device=pixels.device) for values in (spec.mean, spec.std))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)
