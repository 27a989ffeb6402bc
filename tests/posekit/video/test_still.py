"""Images as callers have them: paths, arrays of either channel order, PIL images, lists, loops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import posekit
from posekit.errors import InputError, SourceError
from posekit.video import read, still_frame
from tests.support import needs
from tests.support.assets import shipped

PHOTOS = [f"tests/data/coco_000000{n}.jpg" for n in ("234748", "397133")]
CLIP = "examples/sports2d_demo.mp4"


@pytest.fixture(scope="module")
def estimator() -> posekit.Estimator:
    return posekit.load("movenet-lightning", threads=1, flip=False)


def same(first: posekit.Poses, second: posekit.Poses) -> None:
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.boxes.xyxy, second.boxes.xyxy)


def test_one_image_in_all_its_forms_gives_the_same(estimator: posekit.Estimator) -> None:
    path = shipped(PHOTOS[1])
    image = cv2.imread(str(path))
    poses = estimator(path)
    assert len(poses) >= 1
    for other in (str(path), image[..., ::-1].copy(), image[..., ::-1]):
        same(poses, estimator(other))
    same(poses, estimator(image, color="bgr"))
    same(poses, estimator(path, color="bgr"))  # a file states its own order
    assert np.abs(poses.scores - estimator(image).scores).max() > 1e-3, "the order matters"


def test_pil_images_are_taken_with_what_they_say_of_themselves() -> None:
    module = needs.package("PIL.Image")
    with module.open(shipped(PHOTOS[0])) as photo:
        wanted = np.asarray(photo.convert("RGB"))
        np.testing.assert_array_equal(still_frame(photo, "bgr").image, wanted)
        gray = np.asarray(photo.convert("L"))
        np.testing.assert_array_equal(still_frame(photo.convert("L")).image[..., 1], gray)
        translucent = photo.convert("RGBA")
        translucent.putalpha(9)
        np.testing.assert_array_equal(still_frame(translucent).image, wanted)
        for mode in ("I;16", "F", "I"):
            with pytest.raises(InputError, match=f"mode {mode}"):
                still_frame(module.new(mode, (8, 8)))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_pil_image_is_turned_by_its_exif_as_its_file_is(tmp_path: Path, orientation: int) -> None:
    module = needs.package("PIL.Image")
    path = tmp_path / "turned.png"
    exif = module.Exif()
    exif[0x0112] = orientation
    with module.open(shipped(PHOTOS[0])) as photo:
        size = photo.size if orientation < 5 else photo.size[::-1]
        photo.save(path, exif=exif)
    with module.open(path) as image:
        frame = still_frame(image)
    assert frame.size == size
    np.testing.assert_array_equal(frame.image, still_frame(path).image)


def test_a_pil_image_with_damaged_exif_is_taken_as_it_is() -> None:
    module = needs.package("PIL.Image")
    image = module.new("RGB", (8, 4))
    image.info["exif"] = b"Exif\x00\x00no tags"
    assert still_frame(image).size == (8, 4)


def test_a_list_gives_each_image_its_persons(estimator: posekit.Estimator) -> None:
    """More images than run together, of different sizes, as if one by one."""
    images: list[object] = [shipped(PHOTOS[n % 2]) for n in range(9)]
    images[4] = np.zeros((60, 90, 3), np.uint8)
    runs = len(estimator.times["network"])
    together = estimator(images)
    assert (
        len(estimator.times["network"]) == runs + 2
    )  # eight images at a time, whatever their size
    assert [len(each) for each in together[:2]] == [len(estimator(image)) for image in images[:2]]
    for n, poses in enumerate(together):
        np.testing.assert_allclose(poses.points, estimator(images[n]).points, atol=1e-2)
    assert estimator([]) == []


def test_a_list_takes_boxes_for_each_image(estimator: posekit.Estimator) -> None:
    image = cv2.imread(str(shipped(PHOTOS[1])))
    boxes = [np.array([[388.0, 70, 498, 346], [0, 0, 9, 9]]), np.zeros((0, 4))]
    first, second = estimator([image, image], boxes, color="bgr")
    assert (len(first), len(second)) == (2, 0)
    same(first, estimator(image, boxes[0], color="bgr"))
    with pytest.raises(InputError, match="2 images and 1 boxes"):
        estimator([image, image], boxes[:1])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("missing.jpg", SourceError, "missing.jpg"),
        ("video.mp4", SourceError, r"not one image; Estimator\.stream takes"),
        ("http://a.example/x.jpg", SourceError, r"http://a\.example/x\.jpg: not one image"),
        (".", SourceError, "not one image"),
        (np.zeros((9, 9)), InputError, "wanted a uint8 array"),
        (None, InputError, "wanted a uint8 array"),
    ],
)
def test_what_is_no_image_is_one_sentence(
    estimator: posekit.Estimator, image: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        estimator(image)
    with pytest.raises(error, match=message):
        estimator.track(image, 0.0)
    with pytest.raises(InputError, match="color: wanted rgb or bgr"):
        estimator(np.zeros((9, 9, 3), np.uint8), color="gray")


def test_a_loop_of_ones_own_is_a_live_stream(estimator: posekit.Estimator) -> None:
    """Ids, boxes and smoothing as `follow` gives them to live frames."""
    with read(shipped(CLIP)) as reader:
        frames = [frame for frame, _ in zip(reader, range(12), strict=False)]
    wanted = [poses for _, poses in estimator.follow(frames, kind="live")]
    assert any(len(poses) for poses in wanted)
    estimator.track(np.zeros((9, 9, 3), np.uint8), -100.0)
    for frame, poses in zip(frames, wanted, strict=True):
        got = estimator.track(frame.image[..., ::-1], frame.time_s, color="bgr")
        np.testing.assert_array_equal(got.points, poses.points)
        assert got.ids is not None
        np.testing.assert_array_equal(got.ids, poses.ids)


def test_another_video_in_the_loop_has_ids_of_its_own(estimator: posekit.Estimator) -> None:
    with read(shipped(CLIP)) as reader:
        image = next(reader).image
    first = estimator.track(image, 50.0)
    again = estimator.track(image, 50.1)
    other = estimator.track(image, 0.0)
    assert first.ids is not None
    assert other.ids is not None
    np.testing.assert_array_equal(first.ids, again.ids)
    assert not set(first.ids) & set(other.ids)


def test_a_loop_goes_on_after_a_bad_image(estimator: posekit.Estimator) -> None:
    with read(shipped(CLIP)) as reader:
        image = next(reader).image
    ids = estimator.track(image, 80.0).ids
    with pytest.raises(InputError):
        estimator.track(image[:, :, 0], 80.1)
    with pytest.raises(InputError, match="finite"):
        estimator.track(image, float("nan"))
    after = estimator.track(image, 80.2).ids
    assert ids is not None
    assert len(ids) >= 1
    np.testing.assert_array_equal(after, ids)


def test_a_loop_without_tracking_is_refused(tmp_path: Path) -> None:
    options = posekit.EstimateOptions(track=False, smooth=False)
    untracked = posekit.load("movenet-lightning", threads=1, flip=False, options=options)
    with pytest.raises(InputError, match="track=False"):
        untracked.track(np.zeros((9, 9, 3), np.uint8), 0.0)
