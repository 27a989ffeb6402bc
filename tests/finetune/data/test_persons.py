"""Persons: the crop is the center of its patch, selections copy nothing, groups stay whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posekit.errors import DataError, InputError
from posekit.geometry import Warp
from posekit.skeletons import COCO_17
from posekit.types import Boxes, ModelSpec
from posekit_finetune.data.persons import (
    Patches,
    Persons,
    cut_patches,
    offset_of,
    patch_size,
    split,
)
from tests.support.assets import shipped

PLAIN = ModelSpec("any", (48, 64), (12, 16), COCO_17)
UDP = dataclasses.replace(PLAIN, crop_shrink=1.0, crop_center=0.5)
HALF_PIXEL = dataclasses.replace(PLAIN, input_size=(96, 96), crop_center=0.5, padding=1.0)
SPECS = pytest.mark.parametrize("spec", [PLAIN, UDP, HALF_PIXEL], ids=["msra", "udp", "half"])


def persons_of(groups: list[int], spec: ModelSpec = PLAIN) -> Persons:
    """Persons whose patches are filled with their index."""
    count = len(groups)
    width, height = patch_size(spec)
    store = np.zeros((count, height, width, 3), np.uint8)
    store += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Persons(
        patches=Patches(store),
        offset=offset_of(spec),
        boxes=np.zeros((count, 4), np.float32),
        sources=tuple(f"{n}.png" for n in range(count)),
        groups=np.array(groups, np.int64),
        times_s=np.full(count, np.nan),
        tracks=np.full(count, -1, np.int64),
        spec=spec,
        fingerprint="",
    )


@SPECS
def test_the_center_of_a_patch_is_the_crop_of_inference(spec: ModelSpec) -> None:
    image = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))
    boxes = Boxes(np.array([[100, 40, 220, 300], [-30, -20, 90, 200]], np.float32))
    warp = Warp.from_boxes(boxes, spec)
    width, height = spec.input_size
    x, y = (int(value) for value in offset_of(spec))
    middle = cut_patches(image, warp, spec)[:, y : y + height, x : x + width].astype(int)
    crops = [cv2.warpAffine(image, matrix, (width, height)) for matrix in warp.matrix]
    far = np.abs(middle - np.stack(crops))
    # OpenCV rounds where it samples to 1/32 px: the same place, relative to another corner, may
    # round the other way, which is rare and, in a photo, a few gray levels.
    assert (far > 0).mean() < 0.01
    assert far.max() <= 8


@SPECS
def test_margins_show_what_is_around_the_crop(spec: ModelSpec) -> None:
    columns, rows = np.meshgrid(np.arange(200), np.arange(200))
    image = np.stack([columns, rows, np.zeros_like(rows)], 2).astype(np.uint8)
    warp = Warp.from_boxes(Boxes(np.array([[80, 75, 125, 130]], np.float32)), spec)
    (patch,) = cut_patches(image, warp, spec)
    width, height = patch_size(spec)
    corners = np.array([[[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]])
    for (x, y), (frame_x, frame_y) in zip(
        corners[0], warp.to_frame(corners - np.array(offset_of(spec)))[0], strict=True
    ):
        assert patch[y, x, :2] == pytest.approx([frame_x, frame_y], abs=0.6)  # rounding, 1/32 px


def test_a_patch_is_one_and_a_half_times_the_crop_with_a_whole_offset() -> None:
    assert patch_size(HALF_PIXEL) == (144, 144)
    assert offset_of(HALF_PIXEL) == (24.0, 24.0)
    assert offset_of(dataclasses.replace(PLAIN, input_size=(50, 70))) == (12.0, 18.0)


def test_select_copies_no_pixels_and_keeps_columns_aligned() -> None:
    persons = persons_of(list(range(10)))
    some = persons.select(np.array([7, 2])).select([1, 0, 0])
    assert isinstance(some.patches, Patches)
    assert isinstance(persons.patches, Patches)
    assert some.patches.store is persons.patches.store
    assert some.sources == ("2.png", "7.png", "7.png")
    assert some.crops([0, 2])[:, 0, 0, 0].tolist() == [2, 7]
    assert len(persons.select(np.arange(10) > 6)) == 3
    assert len(persons.select([])) == 0


@pytest.mark.parametrize("index", [slice(1, 3), [1, 2], np.array([False, True, True, False])])
def test_crops_accept_every_kind_of_index_and_are_copies(index: object) -> None:
    persons = persons_of([0, 1, 2, 3])
    crops = persons.crops(index)  # type: ignore[arg-type]
    assert crops.shape == (2, 64, 48, 3)
    assert crops[:, 5, 5, 0].tolist() == [1, 2]
    assert crops.flags.c_contiguous
    crops[:] = 99
    assert persons.patches[1].max() == 1


def test_patches_of_a_file_are_read_when_indexed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(bytes(range(4)) * 3)
    store = np.memmap(path, np.uint8, "r", shape=(4, 1, 1, 3))
    patches = Patches(store).select([3, 1])
    assert patches.shape == (2, 1, 1, 3)
    assert not isinstance(patches[0], np.memmap) or patches[0].base is None
    assert patches[:1].tolist() == [store[3].tolist()]


def test_inconsistent_fields_are_refused() -> None:
    persons = persons_of([0, 1])
    with pytest.raises(InputError, match="2 patches"):
        dataclasses.replace(persons, sources=("a",))
    with pytest.raises(InputError, match="wanted"):
        dataclasses.replace(persons, spec=HALF_PIXEL)


@given(
    groups=st.lists(st.integers(0, 30), min_size=20, max_size=400),
    share=st.floats(0.01, 0.3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_complete_disjoint_and_keeps_groups_whole(
    groups: list[int], share: float, seed: int
) -> None:
    persons = persons_of(groups, dataclasses.replace(PLAIN, input_size=(4, 4)))
    smallest = np.unique(groups, return_counts=True)[1].min()
    if smallest > 0.3 * len(groups):
        with pytest.raises(DataError, match="none can be held out"):
            split(persons, held_out=share, seed=seed)
        return
    learn, held = split(persons, held_out=share, seed=seed)
    assert sorted([*learn, *held]) == list(range(len(groups)))
    assert not set(persons.groups[learn]) & set(persons.groups[held])
    assert 0 < len(held) <= 0.3 * len(groups)
    again = split(persons, held_out=share, seed=seed)
    assert (again[0] == learn).all()
    assert (again[1] == held).all()


@pytest.mark.parametrize(("count", "held"), [(50, 15), (500, 100), (2000, 200)])
def test_a_hundred_are_held_out_where_that_is_at_most_30_percent(count: int, held: int) -> None:
    assert (
        len(split(persons_of(list(range(count)), dataclasses.replace(PLAIN, input_size=(4, 4))))[1])
        == held
    )


def test_another_seed_holds_out_others() -> None:
    persons = persons_of(list(range(60)))
    assert split(persons, seed=0)[1].tolist() != split(persons, seed=1)[1].tolist()


@pytest.mark.parametrize("share", [0, 0.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="held_out"):
        split(persons_of([0, 1, 2]), held_out=share)
