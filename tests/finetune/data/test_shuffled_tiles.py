"""Images in shuffled tiles are distinguished from intact ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit.errors import DataError
from posekit.types import UInt8
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.data.shuffled_tiles import GRIDS, TileDetector, seam_ratios
from tests.finetune.media import SPEC, blobs
from tests.support.assets import shared, shipped


def shuffled(image: UInt8, count: int, seed: int = 0) -> UInt8:
    """Cut into `count` tiles per side and reassembled in another order."""
    height, width = image.shape[0] // count, image.shape[1] // count
    tiles = [
        image[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(count)
        for column in range(count)
    ]
    order = np.random.default_rng(seed).permutation(len(tiles)).reshape(count, count)
    rows = [np.concatenate([tiles[n] for n in line], 1) for line in order]
    return np.ascontiguousarray(np.concatenate(rows, 0))


def photograph(name: str) -> UInt8:
    return np.asarray(cv2.imread(str(shipped(f"tests/data/{name}.jpg")))[:, :, ::-1], np.uint8)


@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_a_photograph_has_no_seams_until_it_is_cut_into_tiles(count: int) -> None:
    for name in ("coco_000000234748", "coco_000000397133"):
        image = np.ascontiguousarray(photograph(name))
        assert seam_ratios(image).max() < 1.6
        assert seam_ratios(shuffled(image, count))[GRIDS.index(count)] > 2


def test_most_images_must_have_the_same_tiles() -> None:
    image = np.ascontiguousarray(photograph("coco_000000397133"))
    tiles = TileDetector()
    assert tiles.grid is None
    for seed in range(4):
        tiles.add(shuffled(image, 4, seed))
    assert tiles.grid == 4
    for _ in range(4):
        tiles.add(image)
    assert tiles.grid is None


def test_four_cameras_in_one_image_are_not_shuffled_tiles() -> None:
    views = [np.ascontiguousarray(blobs(seed, (200, 150))) for seed in range(4)]
    wall = np.concatenate([np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)], 0)
    tiles = TileDetector()
    tiles.add(wall)
    assert tiles.grid is None


def test_shuffled_images_are_refused_before_training(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(60):
        cv2.imwrite(str(folder / f"{seed:02}.png"), shuffled(blobs(seed, (192, 160)), 4, seed))
    with pytest.raises(DataError, match="4 x 4 tiles in a wrong order"):
        find_persons([folder], SPEC, FindOptions(boxes="full"), work=tmp_path)


@pytest.mark.assets
def test_sports_images_pass() -> None:
    tiles = TileDetector()
    for path in sorted(shared("lspet/adapt").glob("*.jpg"))[:40]:
        tiles.add(np.asarray(cv2.imread(str(path))[:, :, ::-1], np.uint8))
    assert tiles.grid is None
