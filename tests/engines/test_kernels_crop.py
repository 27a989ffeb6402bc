"""crop_normalize.cu itself, on the CPU, against bilinear numpy and OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posekit.geometry import Warp
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Float32, ModelSpec, UInt8
from posekit_engines import ops, twin
from posekit_engines.cuda import Buffer, Device
from tests.assets import shipped
from tests.engines.cuda_emulation.emulated import emulated_device

# Grey levels. Places in float32: 3 roundings of numbers up to 4096, 7e-4 px, on a slope of 255 in
# x and in y; weights and sums add 1e-4.
EXACT = 0.4
SPEC = ModelSpec("movenet", (24, 32), (6, 8), COCO_17)


def picture(height: int, width: int, seed: int = 0) -> UInt8:
    """Noise: the steepest slopes that there are."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pitched(device: Device, rows: UInt8, gap: int) -> tuple[Buffer, int]:
    """Rows of bytes (H, W) uploaded with `gap` bytes of 255 behind each, and the pitch."""
    wide = np.pad(rows, ((0, 0), (0, gap)), constant_values=255)
    return device.uploaded(wide), wide.shape[1]


def run(
    device: Device,
    images: Sequence[UInt8],
    spec: ModelSpec,
    *,
    to_frame: Warp,
    kind: type[np.floating] = np.float32,
    flip: bool = True,
) -> Float32:
    """Crops, and mirrored ones behind them, of RGB images in turn, as grey levels."""
    rows, held = [], []
    for image in images:
        buffer, pitch = pitched(device, image.reshape(len(image), -1), 13)
        rows.append((buffer.address, image.shape[1], image.shape[0], pitch))
        held.append(buffer)
    frames = ops.Frames(
        device.uploaded(ops.frame_table(rows, "rgb")),
        device.uploaded(np.arange(len(to_frame), dtype=np.int32) % len(images)),
    )
    return launch(device, frames, spec, to_frame=to_frame, kind=kind, flip=flip)


def launch(
    device: Device,
    frames: ops.Frames,
    spec: ModelSpec,
    *,
    to_frame: Warp,
    kind: type[np.floating] = np.float32,
    flip: bool = True,
) -> Float32:
    count, (width, height) = len(to_frame), spec.input_size
    matrices = device.uploaded(to_frame.matrix.astype(np.float32))
    crops = device.buffer(((1 + flip) * count, 3, height, width), kind)
    target = ops.Crops.of(crops, count, flip=flip)
    ops.crop_normalize(device, frames, spec, crops=target, to_frame=matrices)
    return grey(crops.download(), spec)


def grey(crops: NDArray[np.floating], spec: ModelSpec) -> Float32:
    """Normalised crops (N, 3, h, w) as grey levels (N, h, w, 3) in the network's order."""
    back = crops.astype(np.float64).transpose(0, 2, 3, 1) * spec.std + spec.mean
    return back.astype(np.float32)


def boxes(*xyxy: tuple[float, float, float, float]) -> Boxes:
    return Boxes(np.array(xyxy, np.float32))


HARD = boxes(
    (10.3, 5.7, 40.1, 60.9),
    (-30, -20, 25, 30),  # beyond the corner
    (300, 300, 330, 380),  # beyond the frame
    (30, 20, 30.5, 20.5),  # less than a pixel
    (-200, -300, 400, 500),  # all of it, made small
)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 31), (4, 64), (7, 5), (24, 32)], ids=str)
def test_crop_normalize_equals_bilinear_numpy(size: tuple[int, int]) -> None:
    spec = replace(SPEC, input_size=size)
    images = [picture(61, 47), picture(40, 64, 1)]
    to_frame = Warp.from_boxes(HARD, spec).inverse()
    answer = run(emulated_device(), images, spec, to_frame=to_frame)
    wanted, mirrored = twin.crop_normalize(
        images, spec, to_frame=to_frame, frame_of=[0, 1, 0, 1, 0]
    )
    assert np.abs(answer[:5] - grey(wanted, spec)).max() < EXACT
    assert np.abs(answer[5:] - grey(mirrored, spec)).max() < EXACT


def test_crop_normalize_mirrors_exactly_and_keeps_black_beyond_the_frame() -> None:
    to_frame = Warp.from_boxes(HARD, SPEC).inverse()
    answer = run(emulated_device(), [picture(61, 47)], SPEC, to_frame=to_frame)
    np.testing.assert_array_equal(answer[5:], answer[:5, :, ::-1])
    assert np.abs(answer[2]).max() < 1e-4


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, color="bgr")], ids=["rgb", "bgr"])
def test_crop_normalize_in_half_precision_rounds_once(spec: ModelSpec) -> None:
    to_frame = Warp.from_boxes(HARD, spec).inverse()
    image = picture(61, 47)
    half = run(emulated_device(), [image], spec, to_frame=to_frame, kind=np.float16, flip=False)
    wanted, _ = twin.crop_normalize([image], spec, to_frame=to_frame, frame_of=[0] * 5)
    # Normalised values are below 4, where float16 rounds by 2^-10: times std 58.4 in grey levels.
    assert np.abs(half - grey(wanted, spec)).max() < EXACT + 58.4 * 2**-10


@pytest.mark.parametrize("scale", [0.37, 1.7, 3.1])
def test_crop_normalize_is_within_a_grey_level_of_opencv(scale: float) -> None:
    """What `Runtime.crop` makes with cv2 5; older ones round places to 1/32 px."""
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV before 5 rounds places to 1/32 px")
    spec = replace(SPEC, input_size=(64, 96))
    photo = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))[:, :, ::-1]
    for image in (np.ascontiguousarray(photo), picture(200, 300)):
        matrix = np.array([[[scale, 0, -scale * 23.3], [0, scale * 1.01, -scale * 17.7]]])
        answer = run(emulated_device(), [image], spec, to_frame=Warp(matrix).inverse(), flip=False)
        wanted = cv2.warpAffine(image, matrix[0], spec.input_size, flags=cv2.INTER_LINEAR)
        assert np.abs(answer[0] - wanted).max() < 1


@pytest.mark.parametrize(("color", "code"), [(ops.BT601, cv2.COLOR_YUV2RGB_NV12), (ops.BT709, 0)])
def test_crop_normalize_reads_nv12(color: ops.ColorMatrix, code: int) -> None:
    device, random = emulated_device(), np.random.default_rng(4)
    planes = random.integers(16, 236, (60 + 30, 44), np.uint8)  # OpenCV clips a Y below 16
    rgb = twin.rgb_of_nv12(planes[:60], planes[60:], color)
    if code:  # OpenCV knows BT.601 only; its fixed-point sums are a level off at most
        assert np.abs(rgb.astype(int) - cv2.cvtColor(planes, code)).max() <= 1
    buffer, pitch = pitched(device, planes, 20)
    table = ops.frame_table([(buffer.address, 44, 60, pitch)], "nv12")
    of = device.uploaded(np.zeros(5, np.int32))
    frames = ops.Frames(device.uploaded(table), of, "nv12", color)
    to_frame = Warp.from_boxes(HARD, SPEC).inverse()
    answer = launch(device, frames, SPEC, to_frame=to_frame)
    wanted, _ = twin.crop_normalize([rgb], SPEC, to_frame=to_frame, frame_of=[0] * 5)
    assert np.abs(answer[:5] - grey(wanted, SPEC)).max() < 2 * EXACT


def test_crop_normalize_of_broken_places_is_black() -> None:
    matrices = np.full((3, 2, 3), np.nan)
    matrices[1], matrices[2] = np.inf, 1e30
    answer = run(emulated_device(), [picture(20, 20)], SPEC, to_frame=Warp(matrices))
    assert np.abs(answer).max() < 1e-4


def test_crop_normalize_writes_where_it_is_told_from_any_address() -> None:
    """Outputs that are not aligned to four cells: no quad store, the same answer."""
    device, image = emulated_device(), picture(61, 47)
    to_frame = Warp.from_boxes(HARD, SPEC).inverse()
    wanted = run(device, [image], SPEC, to_frame=to_frame, kind=np.float16)
    cells = 3 * 32 * 24
    space = device.buffer((10 * cells + 3,), np.float16)
    buffer, pitch = pitched(device, image.reshape(61, -1), 0)
    frames = ops.Frames(
        device.uploaded(ops.frame_table([(buffer.address, 47, 61, pitch)], "rgb")),
        device.uploaded(np.zeros(5, np.int32)),
    )
    start = space.address + 2
    target = ops.Crops(start, start + 2 * (5 * cells + 1), 5, np.dtype(np.float16))
    matrices = device.uploaded(to_frame.matrix.astype(np.float32))
    ops.crop_normalize(device, frames, SPEC, crops=target, to_frame=matrices)
    flat = space.download()
    both = np.concatenate([flat[1 : 5 * cells + 1], flat[5 * cells + 2 : 10 * cells + 2]])
    np.testing.assert_array_equal(grey(both.reshape(10, 3, 32, 24), SPEC), wanted)
    assert np.isnan(flat[[0, 5 * cells + 1, 10 * cells + 2]]).all()
