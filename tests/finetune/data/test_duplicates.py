"""Near-duplicates are known again under light, noise and compression; others are not taken for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from posekit_finetune.data.duplicates import DuplicateFilter, likeness, thumbnail
from tests.assets import shared, shipped
from tests.finetune.material import blobs


def photo() -> np.ndarray:
    image = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))
    return np.asarray(image[:, :, ::-1], np.uint8)


def known(image: np.ndarray, other: np.ndarray) -> bool:
    distinct = DuplicateFilter(1)
    distinct.put(0, thumbnail(image))
    return distinct.is_near(thumbnail(other))


@pytest.mark.parametrize("change", ["dimmer", "noise", "jpeg", "one px"])
def test_a_repeat_is_near(change: str) -> None:
    image = photo()
    match change:
        case "dimmer":
            other = (image * 0.6 + 20).astype(np.uint8)
        case "noise":
            noise = np.random.default_rng(0).normal(0, 15, image.shape)
            other = np.clip(image + noise, 0, 255).astype(np.uint8)
        case "jpeg":
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])
            other = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        case _:
            other = np.roll(image, 1, 1)
    assert known(image, other)


def test_a_mirrored_or_moved_picture_is_not_near() -> None:
    image = photo()
    assert not known(image, np.ascontiguousarray(image[:, ::-1]))
    assert not known(image, np.roll(image, image.shape[1] // 5, 1))


def test_random_pictures_are_distinct() -> None:
    looks = np.stack([thumbnail(blobs(seed)) for seed in range(100)])
    assert (looks @ looks.T - np.eye(100) < 0.6).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_has_no_look_and_resembles_nothing(level: int) -> None:
    image = np.full((50, 40, 3), level, np.uint8)
    image[::2] += np.uint8(1) if level < 255 else np.uint8(0)
    assert not thumbnail(image).any()
    assert likeness(thumbnail(image), thumbnail(photo())) == 0


def test_a_row_that_is_replaced_is_forgotten() -> None:
    distinct = DuplicateFilter(2)
    distinct.put(0, thumbnail(blobs(1)))
    distinct.put(0, thumbnail(blobs(2)))
    assert not distinct.is_near(thumbnail(blobs(1)))
    assert distinct.is_near(thumbnail(blobs(2)))


def test_photos_of_different_people_are_kept() -> None:
    paths = sorted(shared("lspet/adapt").iterdir())[:200]
    distinct, kept = DuplicateFilter(200), 0
    for path in paths:
        look = thumbnail(np.asarray(cv2.imread(str(path)), np.uint8))
        if not distinct.is_near(look):
            distinct.put(kept, look)
            kept += 1
    assert kept >= 198
