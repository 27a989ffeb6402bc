"""decode_flip.cu itself, on the CPU, against codecs: sizes, ties, edges, schedules, layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from posekit.geometry import Warp
from posekit.types import Decode, Float32, ModelSpec, Skeleton
from posekit_engines import ops, twin
from posekit_engines.cuda import Device
from tests.engines.cuda_emulation.emulated import emulated_device

FIVE = Skeleton("five", tuple("abcde"), (), (0, 2, 1, 4, 3), (0.1,) * 5)
SIZES = [(1, 1), (5, 7), (31, 31), (32, 32), (33, 33), (47, 13), (16, 20)]  # w, h
REAL = [(48, 64), (48, 48), (72, 96)]
SHIFTS = (0.0, 0.75, 1.0, -0.25, 2.5, -1.0)
DECODES: tuple[Decode, ...] = ("argmax", "quarter", "dark", "udp")
# Cells. DARK's and UDP's sums of 121 products round by 1e-6 of the logarithm, whose curvature at a
# peak of these maps is above 0.01: 1e-4. Without a Newton step nothing is left to chance.
BOUND = {"argmax": 0.0, "quarter": 0.0, "dark": 1e-3, "udp": 1e-3}


def spec_of(size: tuple[int, int], decode: Decode, shift: float = 0.75) -> ModelSpec:
    width, height = size
    return ModelSpec(
        "movenet", (4 * width, 4 * height), size, FIVE, decode=decode, flip_shift=shift
    )


def hard_maps(size: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """One person a difficulty, (9, 5, h, w)."""
    width, height = size
    random = np.random.default_rng(seed)
    noise = random.standard_normal((9, 5, height, width))
    peaks, edges, broken, infinite = noise[1], noise[2], noise[3], noise[4]
    y, x = np.mgrid[:height, :width]
    for k in range(5):
        at = random.uniform(0, 1, 2) * (height, width)
        peaks[k] = 0.01 * peaks[k] + np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8)
        corner = [(0, 0), (0, -1), (-1, 0), (-1, -1), (height // 2, 0)][k]
        edges[k][corner] = 200  # above UDP_CEILING
        broken[k].flat[random.integers(0, height * width, 1 + k)] = np.nan
        infinite[k].flat[random.integers(0, height * width, 2)] = np.inf, -np.inf
    noise[5] = np.round(noise[5])  # ties
    noise[6] = -np.abs(noise[6]) - 1
    noise[7], noise[7, :, -1, -1] = -0.0, 0.0  # equal: the first one counts
    noise[8] = 0.5
    return noise


def run(
    device: Device,
    maps: NDArray[np.floating],
    spec: ModelSpec,
    *,
    mirrored: NDArray[np.floating] | None = None,
    to_frame: Warp | None = None,
) -> Float32:
    """What the kernel answers, (N, K, 3), for maps (N, K, h, w)."""
    both = maps if mirrored is None else np.concatenate([maps, mirrored])
    buffer = device.uploaded(both)
    flip = mirrored is not None
    matrix = None if to_frame is None else device.uploaded(to_frame.matrix.astype(np.float32))
    out = device.buffer((len(maps), maps.shape[1], 3), np.float32)
    ops.decode_flip(
        device,
        ops.Maps.of(buffer, len(maps), flip=flip),
        ops.DecodeTables.of(device, spec),
        out=out,
        to_frame=matrix,
    )
    answer: Float32 = out.download()
    return answer


def truth(
    maps: NDArray[np.floating],
    spec: ModelSpec,
    mirrored: NDArray[np.floating] | None = None,
) -> Float32:
    """The twin's answer; that inf - inf is no number is what one of the persons is for."""
    with np.errstate(invalid="ignore"):
        return twin.decode_flip(maps, spec, mirrored=mirrored)


def check(answer: Float32, wanted: Float32, spec: ModelSpec) -> None:
    """Scores bit for bit, points within the bound."""
    np.testing.assert_array_equal(answer[..., 2], wanted[..., 2])
    cells = np.abs(answer[..., :2] - wanted[..., :2]) / spec.map_scale
    assert cells.max(initial=0) <= BOUND[spec.decode], np.argwhere(cells > BOUND[spec.decode])


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("size", SIZES + REAL, ids=str)
def test_decode_flip_equals_the_codecs(size: tuple[int, int], decode: Decode) -> None:
    device = emulated_device()
    for number, shift in enumerate(SHIFTS if size in SIZES else SHIFTS[:3]):
        spec = spec_of(size, decode, shift)
        kind = np.float16 if number % 2 else np.float32
        maps, mirrored = (hard_maps(size, seed).astype(kind) for seed in (number, 50 + number))
        mirrored[1] = maps[1, FIVE.mirror, :, ::-1]  # peaks that meet
        answer = run(device, maps, spec, mirrored=mirrored)
        check(answer, truth(maps, spec, mirrored), spec)
        assert np.isfinite(answer[[0, 1, 2, 3, 5, 6, 7, 8]]).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("decode", DECODES)
def test_decode_flip_alone_equals_the_codecs(decode: Decode, kind: type[np.floating]) -> None:
    device = emulated_device()
    for size in ((33, 17), (48, 64)):
        spec = spec_of(size, decode)
        maps = hard_maps(size, 3).astype(kind)
        check(run(device, maps, spec), truth(maps, spec), spec)


@pytest.mark.parametrize("seed", [1, 7, 12345])
def test_decode_flip_is_the_same_in_any_order_of_threads(seed: int) -> None:
    for decode in ("quarter", "dark", "udp"):
        spec = spec_of((16, 20), decode)
        maps, mirrored = (hard_maps((16, 20), each).astype(np.float16) for each in (1, 2))
        one = run(emulated_device(), maps, spec, mirrored=mirrored)
        other = run(emulated_device(seed), maps, spec, mirrored=mirrored)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("blur", [1, 3, 17])
@pytest.mark.parametrize("decode", ["dark", "udp"])
def test_decode_flip_blurs_over_any_side(blur: int, decode: Decode) -> None:
    spec = replace(spec_of((24, 24), decode), blur=blur)
    maps, mirrored = (hard_maps((24, 24), each).astype(np.float32) for each in (5, 6))
    mirrored[1] = maps[1, FIVE.mirror, :, ::-1]
    answer = run(emulated_device(), maps, spec, mirrored=mirrored)
    wanted = truth(maps, spec, mirrored)
    check(answer[[1, 2, 3, 7, 8]], wanted[[1, 2, 3, 7, 8]], spec)


def test_decode_flip_goes_on_to_the_frame() -> None:
    spec = spec_of((48, 64), "dark")
    random = np.random.default_rng(0)
    maps, mirrored = (hard_maps((48, 64), each).astype(np.float16) for each in (7, 8))
    matrix = random.uniform(-3, 3, (9, 2, 3))
    matrix[:, :, 2] = random.uniform(-4000, 4000, (9, 2))
    crop = run(emulated_device(), maps, spec, mirrored=mirrored)
    answer = run(emulated_device(), maps, spec, mirrored=mirrored, to_frame=Warp(matrix))
    wanted = Warp(matrix).to_crop(crop[..., :2])
    # Four float32 roundings (the matrix, two sums, the truth's own) of numbers below 6000.
    assert np.abs(answer[..., :2] - wanted).max() < 4 * 6000 * 2**-24
    np.testing.assert_array_equal(answer[..., 2], crop[..., 2])


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize(("pad", "skipped"), [(1, 1), (8, 8), (8, 1)])
def test_decode_flip_follows_strides_and_any_address(
    pad: int, skipped: int, kind: type[np.floating]
) -> None:
    """Rows, maps and persons with gaps, from an address that is a cell's, not a vector's."""
    size, device = (16, 20), emulated_device()
    maps, mirrored = (hard_maps(size, each).astype(kind) for each in (9, 10))
    wide = np.full((2, 9, 6, 20 + pad, 16 + pad), 99, kind)  # 99: above all, if it were read
    wide[0, :, :5, :20, :16], wide[1, :, :5, :20, :16] = maps, mirrored
    flat = np.concatenate([np.full(skipped, 99, kind), wide.reshape(-1)])
    buffer = device.uploaded(flat)
    item = wide.dtype.itemsize
    strides = tuple(stride // item for stride in wide.strides[1:4])
    start = buffer.address + skipped * item
    layout = ops.Maps(start, start + wide.strides[0], maps.shape, wide.dtype, strides)
    out = device.buffer((9, 5, 3), np.float32)
    for decode in DECODES:
        spec = spec_of(size, decode)
        ops.decode_flip(device, layout, ops.DecodeTables.of(device, spec), out=out)
        check(out.download(), truth(maps, spec, mirrored), spec)


def test_decode_flip_is_one_launch_that_returns_twelve_bytes_a_keypoint() -> None:
    device = emulated_device()
    spec = spec_of((48, 64), "dark")
    maps = np.zeros((9, 5, 64, 48), np.float16)
    answer = run(device, maps, spec, mirrored=maps)
    (launched,) = device.driver.launches  # type: ignore[attr-defined]
    assert launched[0] == "decode_flip_f16"
    assert launched[1].grid == (5, 9, 1)
    assert answer.nbytes == 12 * 9 * 5
