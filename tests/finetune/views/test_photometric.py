"""RandAugment's operations: bytes in, bytes out, and the ranges that their docstrings name."""

from collections.abc import Callable

import numpy as np
import pytest

from posekit.types import UInt8
from posekit_finetune.views import photometric
from tests.finetune.material import blobs

Operation = Callable[[np.random.Generator, UInt8, float], UInt8]
PAPER = 20 / 30


def ramp() -> UInt8:
    """Every value from 0 to 255, grey."""
    return np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(4, 0)


def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("share", [0.0, PAPER, 1.0])
@pytest.mark.parametrize("operation", photometric.OPERATIONS, ids=lambda o: o.__name__)
def test_operations_give_bytes_and_leave_their_input(operation: Operation, share: float) -> None:
    crop = blobs(1)
    before = crop.copy()
    made = operation(random(), crop, share)
    assert made.dtype == np.uint8
    assert made.shape == crop.shape
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize(
    "name", ["posterize", "solarize", "solarize_add", "color", "contrast", "brightness"]
)
def test_nothing_happens_at_magnitude_0(name: str) -> None:
    crop = blobs(2)
    np.testing.assert_array_equal(getattr(photometric, name)(random(), crop, 0.0), crop)


def test_eleven_operations_of_the_paper() -> None:
    assert len({operation.__name__ for operation in photometric.OPERATIONS}) == 11


def test_posterize_keeps_four_bits_at_20() -> None:
    assert len(np.unique(photometric.posterize(random(), ramp(), PAPER))) == 16


def test_solarize_turns_at_85_at_20() -> None:
    made = photometric.solarize(random(), ramp(), PAPER)[0, :, 0].astype(int)
    values = np.arange(256)
    turned = made != values
    assert values[turned].min() in (85, 86)  # 256 / 3 = 85.3
    np.testing.assert_array_equal(made[turned], 255 - values[turned])


def test_solarize_add_lifts_the_dark_half_by_73_at_20() -> None:
    made = photometric.solarize_add(random(), ramp(), PAPER)[0, :, 0].astype(int)
    np.testing.assert_array_equal(made[:128], np.arange(128) + 73)
    np.testing.assert_array_equal(made[128:], np.arange(128, 256))


@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_factors_are_one_plus_or_minus_six_tenths_at_20(name: str) -> None:
    """About what each of them mixes with, a pixel moves by 0.6 of its distance, either way."""
    crop = np.full((9, 9, 3), 100, np.uint8)
    crop[4, 4] = (110, 120, 130)
    seen = {int(getattr(photometric, name)(np.random.default_rng(n), crop, PAPER)[4, 4, 2])
            for n in range(20)}  # fmt: skip
    grey = round(0.299 * 110 + 0.587 * 120 + 0.114 * 130)
    around = {"brightness": 0.0, "contrast": 100.0, "color": grey, "sharpness": (8 * 100 + 130) / 9}
    middle = around[name]
    wanted = {middle + (130 - middle) * factor for factor in (0.4, 1.6)}
    assert len(seen) == 2
    for value in wanted:
        assert min(abs(value - each) for each in seen) <= 1


def test_autocontrast_spans_the_range_and_equalize_levels_it() -> None:
    crop = (blobs(3) // 4 + 60).astype(np.uint8)
    made = photometric.autocontrast(random(), crop, 1)
    assert made.min() == 0
    assert made.max() == 255
    level = photometric.equalize(random(), crop, 1)
    assert abs(float(np.median(level)) - 127.5) < 12  # a flat histogram's median


def test_invert_twice_is_nothing() -> None:
    crop = blobs(4)
    twice = photometric.invert(random(), photometric.invert(random(), crop, 1), 1)
    np.testing.assert_array_equal(twice, crop)


def test_cutout_is_a_grey_square_of_53_px_of_192_at_20() -> None:
    crop = np.zeros((192, 192, 3), np.uint8)
    sides = []
    for n in range(30):
        made = photometric.cutout(np.random.default_rng(n), crop, PAPER)[:, :, 0] == 128
        sides.append((made.any(0).sum(), made.any(1).sum()))
    assert abs(int(np.max(sides)) - 53) <= 1  # smaller only where the edge cuts it


def test_augment_depends_on_its_generator_alone() -> None:
    crop = blobs(5)
    first, again = (photometric.augment(random(), crop, 2, magnitude=20) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    drawn = {
        photometric.augment(np.random.default_rng(n), crop, 2, magnitude=20).tobytes()
        for n in range(9)
    }
    assert len(drawn) > 5
