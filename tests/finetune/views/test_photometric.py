"""RandAugment's operations: uint8 in and out, and the ranges of their docstrings."""

from collections.abc import Callable

import numpy as np
import pytest

from posekit.types import UInt8
from posekit_finetune.views import photometric
from tests.finetune.media import blobs

Operation = Callable[[np.random.Generator, UInt8, float], UInt8]
PAPER = 20 / 30


def ramp() -> UInt8:
    """Every value from 0 to 255, gray."""
    return np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(4, 0)


def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("share", [0.0, PAPER, 1.0])
@pytest.mark.parametrize("operation", photometric.OPERATIONS, ids=lambda o: o.__name__)
def test_operations_return_uint8_and_do_not_modify_their_input(
    operation: Operation, share: float
) -> None:
    crop = blobs(1)
    before = crop.copy()
    output = operation(random(), crop, share)
    assert output.dtype == np.uint8
    assert output.shape == crop.shape
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize(
    "name", ["posterize", "solarize", "solarize_add", "color", "contrast", "brightness"]
)
def test_magnitude_0_changes_nothing(name: str) -> None:
    crop = blobs(2)
    np.testing.assert_array_equal(getattr(photometric, name)(random(), crop, 0.0), crop)


def test_eleven_operations_of_the_paper() -> None:
    assert len({operation.__name__ for operation in photometric.OPERATIONS}) == 11


def test_posterize_keeps_four_bits_at_20() -> None:
    assert len(np.unique(photometric.posterize(random(), ramp(), PAPER))) == 16


def test_solarize_inverts_above_85_at_20() -> None:
    output = photometric.solarize(random(), ramp(), PAPER)[0, :, 0].astype(int)
    values = np.arange(256)
    inverted = output != values
    assert values[inverted].min() in (85, 86)  # 256 / 3 = 85.3
    np.testing.assert_array_equal(output[inverted], 255 - values[inverted])


def test_solarize_add_raises_the_dark_half_by_73_at_20() -> None:
    output = photometric.solarize_add(random(), ramp(), PAPER)[0, :, 0].astype(int)
    np.testing.assert_array_equal(output[:128], np.arange(128) + 73)
    np.testing.assert_array_equal(output[128:], np.arange(128, 256))


@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_factors_are_one_plus_or_minus_six_tenths_at_20(name: str) -> None:
    """A pixel moves by 0.6 of its distance from what it is blended with, in either direction."""
    crop = np.full((9, 9, 3), 100, np.uint8)
    crop[4, 4] = (110, 120, 130)
    values = {int(getattr(photometric, name)(np.random.default_rng(n), crop, PAPER)[4, 4, 2])
            for n in range(20)}  # fmt: skip
    gray = round(0.299 * 110 + 0.587 * 120 + 0.114 * 130)
    blended_with = {
        "brightness": 0.0,
        "contrast": 100.0,
        "color": gray,
        "sharpness": (8 * 100 + 130) / 9,
    }
    center = blended_with[name]
    expected = {center + (130 - center) * factor for factor in (0.4, 1.6)}
    assert len(values) == 2
    for value in expected:
        assert min(abs(value - each) for each in values) <= 1


def test_autocontrast_spans_the_range_and_equalize_flattens_it() -> None:
    crop = (blobs(3) // 4 + 60).astype(np.uint8)
    output = photometric.autocontrast(random(), crop, 1)
    assert output.min() == 0
    assert output.max() == 255
    level = photometric.equalize(random(), crop, 1)
    assert abs(float(np.median(level)) - 127.5) < 12  # a flat histogram's median


def test_invert_twice_is_the_identity() -> None:
    crop = blobs(4)
    twice = photometric.invert(random(), photometric.invert(random(), crop, 1), 1)
    np.testing.assert_array_equal(twice, crop)


def test_cutout_is_a_gray_square_of_53_px_of_192_at_20() -> None:
    crop = np.zeros((192, 192, 3), np.uint8)
    sides = []
    for n in range(30):
        output = photometric.cutout(np.random.default_rng(n), crop, PAPER)[:, :, 0] == 128
        sides.append((output.any(0).sum(), output.any(1).sum()))
    assert abs(int(np.max(sides)) - 53) <= 1  # smaller only where an edge cuts it off


def test_augment_depends_on_its_generator_alone() -> None:
    crop = blobs(5)
    first, again = (photometric.augment(random(), crop, 2, magnitude=20) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    drawn = {
        photometric.augment(np.random.default_rng(n), crop, 2, magnitude=20).tobytes()
        for n in range(9)
    }
    assert len(drawn) > 5
