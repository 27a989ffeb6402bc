"""Each family's conventions are its publisher's: the published arithmetic is written out here.

Left as posekit does it: where no cell is positive the publishers give (0, 0) or (-1, -1).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posekit import codecs
from posekit.checkpoints import configs
from posekit.checkpoints.resolve import Family, Source, SpecHints, resolve
from posekit.geometry import Warp
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Boxes, ModelSpec, Skeleton

Array = NDArray[np.float64]
# Family and file name: channels, sigma, decode, side of the blur, shift of the mirrored maps.
TABLE: dict[tuple[Family, str], tuple[str, float, str, int, float]] = {
    ("simple-baseline", "pose_resnet_50_256x192.pth.tar"): ("bgr", 2, "quarter", 11, 1),
    ("simple-baseline", "pose_resnet_50_384x288.pth.tar"): ("bgr", 3, "quarter", 11, 1),
    ("hrnet", "pose_hrnet_w32_256x192.pth"): ("rgb", 2, "quarter", 11, 1),
    ("hrnet", "pose_hrnet_w48_384x288.pth"): ("rgb", 3, "quarter", 11, 1),
    ("semi", "Res50_COCO_PoseDual.pth.tar"): ("bgr", 2, "quarter", 11, 1),
    ("mmpose", "res50_coco_256x192-ec54d7f3.pth"): ("rgb", 2, "quarter", 11, 1),
    ("mmpose", "res50_coco_256x192_dark-43379d20.pth"): ("rgb", 2, "dark", 11, 1),
    ("mmpose", "res50_coco_384x288_dark-33d3e5e5.pth"): ("rgb", 3, "dark", 17, 1),
    ("mmpose", "hrnet_w32_coco_256x192_udp-aba0be42.pth"): ("rgb", 2, "udp", 11, 0),
    ("mmpose", "hrnet_w32_coco_384x288_udp-e97c1a0f.pth"): ("rgb", 3, "udp", 17, 0),
    ("mmpose 1.x", "td-hm_res50_8xb64-210e_coco-256x192.pth"): ("rgb", 2, "quarter-axis", 11, 1),
    ("mmpose 1.x", "td-hm_hrnet-w48_dark-8xb32-210e_coco-384x288.pth"): ("rgb", 3, "dark", 17, 1),
    ("vitpose", "vitpose-b.pth"): ("rgb", 2, "udp", 11, 0),
    ("hugging face", "vitpose-base-simple"): ("rgb", 2, "udp", 11, 0),
}
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BOXES = np.array([[40, 30, 70, 200], [10.5, 12.25, 300, 90], [-20, 5, 33, 44]])  # x, y, w, h


def spec_of(family: Family, name: str) -> ModelSpec:
    hints: dict[Source, SpecHints] = {"file name": configs.from_name(Path(name))}
    return resolve("any", family, 17, hints=hints)[0]


@pytest.mark.parametrize(("family", "name"), TABLE)
def test_what_a_state_dict_cannot_tell(family: Family, name: str) -> None:
    spec = spec_of(family, name)
    found = (spec.color, spec.sigma, spec.decode, spec.blur, spec.flip_shift)
    assert found == TABLE[family, name]
    assert (spec.mean, spec.std) == IMAGENET  # BGR networks have them in this order too
    assert spec.padding == 1.25
    assert spec.input_size == ((288, 384) if "384x288" in name else (192, 256))
    assert spec.heatmap_size == (spec.input_size[0] // 4, spec.input_size[1] // 4)


def center_and_scale(box: Array, spec: ModelSpec) -> tuple[Array, Array]:
    """A box x, y, w, h grown to the crop's aspect and by 1.25; the scale is in px."""
    x, y, w, h = box
    aspect = spec.input_size[0] / spec.input_size[1]
    w, h = (w, w / aspect) if w > aspect * h else (h * aspect, h)
    return np.array([x + box[2] * 0.5, y + box[3] * 0.5]), np.array([w, h]) * 1.25


def msra_matrix(center: Array, scale: Array, size: tuple[int, int]) -> Array:
    """get_affine_transform: three points, the center to (W/2, H/2)."""
    middle = np.array(size) * 0.5
    source = [center, center + np.array([0, scale[0] * -0.5])]
    target = [middle, middle + np.array([0, size[0] * -0.5])]
    for ends in (source, target):
        d = ends[0] - ends[1]
        ends.append(ends[1] + np.array([-d[1], d[0]]))
    matrix: Array = cv2.getAffineTransform(np.float32(source), np.float32(target))
    return matrix


def udp_matrix(center: Array, scale: Array, size: tuple[int, int]) -> Array:
    """get_warp_matrix without a turn: the box's width to W - 1."""
    x, y = (np.array(size) - 1.0) / scale
    left, top = center - 0.5 * scale
    return np.array([[x, 0, -left * x], [0, y, -top * y]])


def frame_points(cells: Array, center: Array, scale: Array, *, spec: ModelSpec) -> Array:
    """transform_preds: cells of the heatmap to the image; UDP divides by one cell less."""
    size = np.array(spec.heatmap_size, float)
    if spec.decode == "udp":
        return cells * scale / (size - 1) + center - scale * 0.5
    return (cells - size / 2) / size * scale + center


@pytest.mark.parametrize(("family", "name"), TABLE)
def test_crops_are_cut_as_published(family: Family, name: str) -> None:
    spec = spec_of(family, name)
    xyxy = np.concatenate([BOXES[:, :2], BOXES[:, :2] + BOXES[:, 2:]], 1)
    warp = Warp.from_boxes(Boxes(xyxy), spec)
    published = udp_matrix if spec.decode == "udp" else msra_matrix
    for box, matrix in zip(BOXES, warp.matrix, strict=True):
        wanted = published(*center_and_scale(box, spec), spec.input_size)
        corners = np.array([[0, 0, 1], [400, 0, 1], [0, 300, 1]])
        np.testing.assert_allclose(corners @ matrix.T, corners @ wanted.T, atol=2e-3)


def published_cells(maps: Array, *, apart: bool) -> tuple[Array, Array]:
    """get_max_preds and the quarter towards the higher neighbor; the score is the peak.

    apart: as refine_keypoints of mmpose 1.x; else as get_final_preds.
    """
    count, joints, height, width = maps.shape
    cells = np.zeros((count, joints, 2))
    for n, k in np.ndindex(count, joints):
        y, x = divmod(int(maps[n, k].argmax()), width)
        cells[n, k] = x, y
        m, far_x, far_y = maps[n, k], 1 < x < width - 1, 1 < y < height - 1
        if far_x and (0 < y < height if apart else far_y):
            cells[n, k, 0] += np.sign(m[y, x + 1] - m[y, x - 1]) * 0.25
        if far_y and (0 < x < width if apart else far_x):
            cells[n, k, 1] += np.sign(m[y + 1, x] - m[y - 1, x]) * 0.25
    return cells, maps.max((2, 3))


def flipped_back(maps: Any, pairs: list[list[int]], *, shift: bool) -> Any:
    """flip_back, and SHIFT_HEATMAP: one column to the right, column 0 kept."""
    back = maps[:, :, :, ::-1].copy()
    for left, right in pairs:
        back[:, [left, right]] = back[:, [right, left]]
    if shift:
        back[:, :, :, 1:] = back[:, :, :, :-1].copy()
    return back


COCO_PAIRS = [[n, n + 1] for n in range(1, 17, 2)]


@pytest.mark.parametrize(("family", "name"), TABLE)
def test_points_come_back_to_the_frame_as_published(family: Family, name: str) -> None:
    """Flip test, peak, quarter and the way back; DARK's own step is test_codecs' matter."""
    spec = spec_of(family, name)
    apart = family == "mmpose 1.x"
    plain = replace(spec, decode="quarter-axis" if apart else "quarter")
    rng = np.random.default_rng(0)
    width, height = spec.heatmap_size
    maps, mirrored = rng.random((2, len(BOXES), 17, height, width), np.float32)
    maps[0, :, height // 2, :3] += 1  # peaks at the borders and in a corner too
    maps[1, :, :3, width // 2] += 1
    maps[2, :, -2:, -2:] += 1
    xyxy = np.concatenate([BOXES[:, :2], BOXES[:, :2] + BOXES[:, 2:]], 1)
    points, scores = codecs.decode(maps, plain, mirrored)
    found = Warp.from_boxes(Boxes(xyxy), spec).to_frame(points)
    merged = (maps + flipped_back(mirrored, COCO_PAIRS, shift=spec.decode != "udp")) * 0.5
    cells, wanted_scores = published_cells(merged, apart=apart)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
    for n, box in enumerate(BOXES):
        wanted = frame_points(cells[n], *center_and_scale(box, spec), spec=spec)
        np.testing.assert_allclose(found[n], wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("skeleton", "pairs"),
    [
        (COCO_17, COCO_PAIRS),
        (MPII_16, [[0, 5], [1, 4], [2, 3], [10, 15], [11, 14], [12, 13]]),
        (AIC_14, [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]),
    ],
    ids=["coco", "mpii", "aic"],
)
def test_flip_pairs(skeleton: Skeleton, pairs: list[list[int]]) -> None:
    assert [[k, m] for k, m in enumerate(skeleton.mirror) if k < m] == pairs


def test_mpii_files_are_square_unless_they_say_otherwise() -> None:
    spec, items = resolve("any", "hrnet", 16, hints={})
    assert (spec.input_size, spec.skeleton) == ((256, 256), MPII_16)
    assert all(each.assumed for each in items)
