"""Arguments that the launches refuse, and the sizes of the kernels' structs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posekit import codecs
from posekit.errors import InputError
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.cuda.device import Device
from posekit_engines.ops.crop_normalize import CROP_NORMALIZE, Crops, frame_table
from posekit_engines.ops.decode_flip import DECODE_FLIP, DecodeTables, blur_kernel, decode_flip
from posekit_engines.ops.launch import Maps
from tests.engines.cuda_emulation.emulated import EmulatedDriver, emulated_device

SPEC = ModelSpec("movenet", (24, 32), (6, 8), COCO_17)


@pytest.fixture
def device() -> Device:
    return emulated_device()


@pytest.mark.parametrize("blur", [1, 3, 11, 17])
def test_blur_kernel_is_that_of_the_codecs(blur: int) -> None:
    line = blur_kernel(blur)
    matrix = codecs.blur_matrix(0, blur)
    np.testing.assert_allclose(np.outer(line, line).reshape(-1, 1), matrix, rtol=1e-6)


@pytest.mark.tools
def test_structs_have_the_size_of_the_sources(device: Device) -> None:
    driver = device.driver
    assert isinstance(driver, EmulatedDriver)
    assert driver.argument_bytes("decode_flip_f16") == DECODE_FLIP.itemsize
    assert driver.argument_bytes("crop_normalize_nv12_f32") == CROP_NORMALIZE.itemsize


@pytest.mark.tools
def test_no_persons_is_no_launch(device: Device) -> None:
    maps = device.buffer((2, 17, 8, 6), np.float16)
    none = Maps(maps.address, 0, (0, 17, 8, 6), maps.dtype)
    out = device.buffer((0, 17, 3), np.float32)
    decode_flip(device, none, DecodeTables.of(device, SPEC), out=out)
    assert device.driver.launches == []  # type: ignore[attr-defined]


@pytest.mark.tools
@pytest.mark.parametrize("shape", [(2, 17, 8, 7), (2, 16, 8, 6)])
def test_maps_of_another_size_are_refused(device: Device, shape: tuple[int, ...]) -> None:
    maps = Maps.of(device.buffer(shape, np.float16), 2, flip=False)
    out, tables = device.buffer((2, 17, 3), np.float32), DecodeTables.of(device, SPEC)
    with pytest.raises(InputError, match=r"\(N, 17, 8, 6\), got float16 \(2, 1"):
        decode_flip(device, maps, tables, out=out)


@pytest.mark.tools
def test_maps_need_two_for_each_person_with_flip(device: Device) -> None:
    with pytest.raises(InputError, match="N >= 4"):
        Maps.of(device.buffer((3, 17, 8, 6), np.float16), 2, flip=True)
    with pytest.raises(InputError, match="wanted 4 or more"):
        Crops.of(device.buffer((3, 3, 32, 24), np.float16), 2, flip=True)


@pytest.mark.tools
def test_an_output_too_small_is_refused(device: Device) -> None:
    maps = Maps.of(device.buffer((2, 17, 8, 6), np.float16), 2, flip=False)
    tables = DecodeTables.of(device, SPEC)
    with pytest.raises(InputError, match=r"out: wanted float32 \(2, 17, 3\)"):
        decode_flip(device, maps, tables, out=device.buffer((1, 17, 3), np.float32))


@pytest.mark.tools
def test_a_blur_beyond_shared_memory_is_refused(device: Device) -> None:
    tables = DecodeTables.of(device, replace(SPEC, blur=105))
    maps = Maps.of(device.buffer((1, 17, 8, 6), np.float16), 1, flip=False)
    with pytest.raises(InputError, match="105 cells needs"):
        decode_flip(device, maps, tables, out=device.buffer((1, 17, 3), np.float32))


def test_frames_are_checked() -> None:
    with pytest.raises(InputError, match="pitch of 100 bytes"):
        frame_table([(1, 40, 30, 100)], "rgb")
    with pytest.raises(InputError, match="even width and height, got 41 x 30"):
        frame_table([(1, 41, 30, 100)], "nv12")
