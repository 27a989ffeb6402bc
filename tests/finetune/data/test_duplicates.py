"""Near-duplicates are recognized under light, noise and compression; other images are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from posekit_finetune.data.duplicates import DuplicateFilter, correlation, thumbnail
from tests.finetune.media import blobs
from tests.support.assets import shared, shipped


def photo() -> np.ndarray:
    image = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))
    return np.asarray(image[:, :, ::-1], np.uint8)


def is_repeat(image: np.ndarray, other: np.ndarray) -> bool:
    duplicates = DuplicateFilter(1)
    duplicates.store(0, thumbnail(image))
    return duplicates.is_duplicate(thumbnail(other))


@pytest.mark.parametrize("change", ["dimmer", "noise", "jpeg", "one px"])
def test_a_changed_copy_is_a_duplicate(change: str) -> None:
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
    assert is_repeat(image, other)


def test_a_mirrored_or_shifted_image_is_not_a_duplicate() -> None:
    image = photo()
    assert not is_repeat(image, np.ascontiguousarray(image[:, ::-1]))
    assert not is_repeat(image, np.roll(image, image.shape[1] // 5, 1))


def test_random_images_are_distinct() -> None:
    thumbnails = np.stack([thumbnail(blobs(seed)) for seed in range(100)])
    assert (thumbnails @ thumbnails.T - np.eye(100) < 0.6).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_has_a_zero_thumbnail_and_no_correlation(level: int) -> None:
    image = np.full((50, 40, 3), level, np.uint8)
    image[::2] += np.uint8(1) if level < 255 else np.uint8(0)
    assert not thumbnail(image).any()
    assert correlation(thumbnail(image), thumbnail(photo())) == 0


def test_a_replaced_row_is_no_longer_compared() -> None:
    duplicates = DuplicateFilter(2)
    duplicates.store(0, thumbnail(blobs(1)))
    duplicates.store(0, thumbnail(blobs(2)))
    assert not duplicates.is_duplicate(thumbnail(blobs(1)))
    assert duplicates.is_duplicate(thumbnail(blobs(2)))


@pytest.mark.assets
def test_photos_of_different_people_are_kept() -> None:
    paths = sorted(shared("lspet/adapt").iterdir())[:200]
    duplicates, kept = DuplicateFilter(200), 0
    for path in paths:
        cells = thumbnail(np.asarray(cv2.imread(str(path)), np.uint8))
        if not duplicates.is_duplicate(cells):
            duplicates.store(kept, cells)
            kept += 1
    assert kept >= 198
