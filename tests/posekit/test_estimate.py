"""The one path of an image, with the embedded models on the clip that ships."""

import json
from pathlib import Path

import numpy as np
import pytest

import posekit
from posekit import EstimateOptions, Estimator
from posekit.detect import MAX_BOXES, BoxFile
from posekit.errors import BundleError, InputError
from posekit.types import Boxes, Frame, Poses, UInt8
from posekit.video import ReadOptions, read
from tests.support.assets import shipped

CLIP = "examples/sports2d_demo.mp4"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with read(shipped(CLIP), options=ReadOptions(end_s=1.0)) as reader:
        return list(reader)


@pytest.fixture(scope="module")
def lightning() -> Estimator:
    return posekit.load("movenet-lightning", "cpu", 2, flip=False)


def test_given_boxes_keep_their_number_and_order(lightning: Estimator, frames: list[Frame]) -> None:
    image = frames[0].image
    height, width = image.shape[:2]
    boxes = np.float32([[0, 0, width / 2, height], [width / 2, 0, width, height], [-9, -9, -5, -5]])
    poses = lightning(image, boxes)
    np.testing.assert_array_equal(poses.boxes.xyxy, boxes)
    alone = lightning(image, boxes[1:2])
    np.testing.assert_allclose(poses.points[1], alone.points[0], atol=0.5)
    assert lightning(image, np.zeros((0, 4))).points.shape == (0, 17, 2)


def test_points_follow_a_shifted_image(lightning: Estimator, frames: list[Frame]) -> None:
    image = frames[0].image
    found = lightning(image)
    assert len(found) >= 1
    box = found.boxes.xyxy[:1]
    moved = np.pad(image, ((20, 0), (30, 0), (0, 0)))  # black, as crops are beyond the frame
    before = lightning(image, box)
    after = lightning(moved, box + np.float32([30, 20, 30, 20]))
    confident = before.scores[0] > 0.3
    # A whole number of pixels: the crop is the same but for the warp's rounding.
    np.testing.assert_allclose(
        after.points[0][confident], before.points[0][confident] + [30, 20], atol=0.2
    )


def test_an_empty_image_has_no_person(lightning: Estimator) -> None:
    assert len(lightning(np.full((240, 320, 3), 90, np.uint8))) == 0


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(lightning: Estimator, image: UInt8) -> None:
    with pytest.raises(InputError):
        lightning(image)


def test_boxes_that_are_none_are_refused(lightning: Estimator, frames: list[Frame]) -> None:
    for box in ([[0, 0, np.nan, 5]], [[9, 0, 0, 5]], [[1, 2, 3]]):
        with pytest.raises(InputError):
            lightning(frames[0].image, np.array(box))


def test_a_stream_gives_every_frame_once_with_ids_and_raw_points(lightning: Estimator) -> None:
    results = list(lightning.stream(shipped(CLIP), ReadOptions(end_s=1.0)))
    assert [frame.index for frame, _ in results] == list(range(len(results)))
    assert len(results) >= 20
    for _, poses in results:
        assert poses.ids is not None
        assert len(set(poses.ids.tolist())) == len(poses)
        assert poses.raw_points is not None
    with_people = [poses for _, poses in results if len(poses)]
    assert len(with_people) >= 0.8 * len(results)


def test_batches_of_frames_do_not_change_untracked_points(frames: list[Frame]) -> None:
    def halves(frame: Frame) -> Boxes:
        height, width = frame.image.shape[:2]
        return Boxes([[0, 0, width / 2, height], [width / 2, 0, width, height]][: frame.index % 3])

    outputs: list[list[Poses]] = []
    for size in (1, 3):
        options = EstimateOptions(frames_per_batch=size, track=False, min_score=-1)
        estimator = posekit.load("movenet-lightning", threads=2, boxes=halves, options=options)
        outputs.append([poses for _, poses in estimator.follow(frames[:7])])
    for one, three in zip(*outputs, strict=True):
        assert len(one) == len(three)
        confident = one.scores > 0.2
        np.testing.assert_allclose(one.points[confident], three.points[confident], atol=0.05)


def test_the_best_persons_are_kept(lightning: Estimator, frames: list[Frame]) -> None:
    options = EstimateOptions(max_persons=1, min_score=-1.0)
    height = frames[0].image.shape[0]
    person = lightning(frames[0].image).boxes.xyxy[0]
    estimator = Estimator(
        lightning.runtime, lambda _: Boxes([[0, height - 20, 20, height], person]), options
    )
    poses = estimator(frames[0])
    assert len(poses) == 1
    np.testing.assert_array_equal(poses.boxes.xyxy[0], person)


def test_the_same_run_gives_the_same_points(lightning: Estimator, frames: list[Frame]) -> None:
    one, two = ([p.points for _, p in lightning.follow(frames[:12])] for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_models_and_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        posekit.load("no-such-model")
    with pytest.raises(BundleError, match="person detector"):
        posekit.load("nanodet-person")


def boxes_of(folder: Path, boxes: list[list[list[float]]]) -> Path:
    path = folder / "boxes.jsonl"
    rows = [{"frame": n, "boxes": each} for n, each in enumerate(boxes)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_frame_that_a_box_file_leaves_empty_has_no_person(
    lightning: Estimator, frames: list[Frame], tmp_path: Path, size: int
) -> None:
    """Whatever its place in a batch, also while tracks of the frames before it live on."""
    person = lightning(frames[0].image).boxes.xyxy[0].tolist()
    given = [[person] if n % 4 else [] for n in range(12)]
    options = EstimateOptions(detect_every=1, frames_per_batch=size)
    find = BoxFile(boxes_of(tmp_path, given))
    estimator = Estimator(lightning.runtime, find, options)
    found = [poses for _, poses in estimator.follow(frames[:12])]
    assert [len(poses) for poses in found] == [len(boxes) for boxes in given]
    assert {int(key) for poses in found for key in poses.ids} == {1}  # type: ignore[union-attr]
    for poses, boxes in zip(found, given, strict=True):
        np.testing.assert_allclose(poses.boxes.xyxy, np.float32(boxes).reshape(-1, 4))


def test_boxes_without_width_are_no_persons_and_noted(
    lightning: Estimator, frames: list[Frame], tmp_path: Path
) -> None:
    x0, y0, _, y1 = lightning(frames[0].image).boxes.xyxy[0].tolist()
    find = BoxFile(boxes_of(tmp_path, [[[x0, y0, x0, y1]]] * 12))
    estimator = Estimator(lightning.runtime, find, EstimateOptions(detect_every=1))
    assert sum(len(poses) for _, poses in estimator.follow(frames[:12])) == 0
    assert find.notes == [
        f"{find.path}: 12 boxes narrower or lower than 1 px are left out; coordinates are pixels"
    ]


def test_boxes_of_a_frame_are_limited(lightning: Estimator, frames: list[Frame]) -> None:
    many = np.tile(np.float32([[0, 0, 9, 9]]), (MAX_BOXES + 1, 1))
    with pytest.raises(InputError, match=r"1,001 boxes, more than 1,000 .* --max-boxes"):
        lightning(frames[0].image, many)
    more = Estimator(lightning.runtime, lightning.find, EstimateOptions(max_boxes=MAX_BOXES + 1))
    assert len(more(frames[0].image, many)) == MAX_BOXES + 1


@pytest.mark.parametrize("given", [True, False])
def test_where_the_frame_size_changes_no_track_goes_on(
    given: bool, lightning: Estimator, frames: list[Frame], tmp_path: Path
) -> None:
    """The same place in pixels means another place in the image: with given boxes too."""
    padded = [np.pad(frame.image, ((0, 40), (0, 60), (0, 0))) for frame in frames[:6]]
    images = [frame.image for frame in frames[:6]] + padded
    stream = [Frame(image, n, n / 25) for n, image in enumerate(images)]
    found = lightning(images[0])
    find = lightning.find
    if given:
        rows = [{"frame": n, "boxes": found.boxes.xyxy.tolist()} for n in range(len(stream))]
        (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
        find = BoxFile(tmp_path / "b.jsonl")
    estimator = Estimator(lightning.runtime, find, EstimateOptions(detect_every=1))
    poses = [each for _, each in estimator.follow(stream)]
    ids = [set() if each.ids is None else set(each.ids.tolist()) for each in poses]
    before, after = set.union(*ids[:6]), set.union(*ids[6:])
    assert before
    assert after
    assert not before & after
    first = next(each for each in poses[6:] if len(each))
    np.testing.assert_array_equal(first.points, first.raw_points)  # smoothed from nothing before


@pytest.mark.parametrize("kind", ["video", "live"])
def test_persons_are_found_after_every_pause(
    lightning: Estimator, frames: list[Frame], kind: str
) -> None:
    """Frames two seconds apart: no track goes on, so each needs a detection of its own."""
    apart = [Frame(frame.image, n, 2.0 * n) for n, frame in enumerate(frames[:6])]
    counts = [len(poses) for _, poses in lightning.follow(apart, kind)]
    assert min(counts) >= 1, counts
