"""What is drawn, where, in which color; and what is not."""

import dataclasses

import numpy as np
import pytest

from posekit.drawing.draw import LEFT, MIDDLE, RIGHT, DrawStyle, color_of, draw
from posekit.errors import InputError
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Poses, Skeleton

COUNT = len(COCO_17)
HEIGHT, WIDTH = 480, 640
BARE = DrawStyle(boxes=False, ids=False)
# A person standing upright, seen from the front: its left side is at the image's right.
STANDING = np.array(
    [
        *([320, 60], [330, 52], [310, 52], [344, 58], [296, 58], [370, 120], [270, 120]),
        *([400, 190], [240, 190], [420, 260], [220, 260], [350, 260], [290, 260]),
        *([355, 350], [285, 350], [360, 440], [280, 440]),
    ],
    np.float32,
)


def blank(value: int = 90) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def person(points=STANDING, score: float = 0.9, **changes) -> Poses:
    values = {
        "points": np.asarray(points)[None],
        "scores": np.full((1, COUNT), score),
        "boxes": Boxes([[200, 40, 440, 460]]),
        "skeleton": COCO_17,
    }
    return Poses(**{**values, **changes})


def at(image: np.ndarray, name_or_point) -> tuple[int, ...]:
    if isinstance(name_or_point, str):
        name_or_point = STANDING[COCO_17.keypoints.index(name_or_point)]
    x, y = np.rint(name_or_point).astype(int)
    return tuple(int(value) for value in image[y, x])


def middle_of(a: str, b: str) -> np.ndarray:
    return sum(STANDING[COCO_17.keypoints.index(name)] for name in (a, b)) / 2


def changed(image: np.ndarray, value: int = 90) -> np.ndarray:
    return (image != value).any(2)


def test_points_and_bones_have_the_color_of_their_side():
    image = draw(blank(), person(), style=BARE)
    assert at(image, "left_wrist") == at(image, "left_knee") == LEFT
    assert at(image, "right_wrist") == at(image, "right_knee") == RIGHT
    assert at(image, "nose") == MIDDLE
    assert at(image, middle_of("left_hip", "left_knee")) == LEFT
    assert at(image, middle_of("right_elbow", "right_wrist")) == RIGHT
    assert at(image, middle_of("left_shoulder", "right_shoulder")) == MIDDLE


def test_nothing_is_drawn_far_from_the_skeleton():
    drawn = changed(draw(blank(), person(), style=BARE))
    y, x = np.nonzero(drawn)
    reach = 12  # px: a dot's radius and rim for a person of 390 px is under 8
    assert x.min() >= 220 - reach
    assert x.max() <= 420 + reach
    assert y.min() >= 52 - reach
    assert y.max() <= 440 + reach
    assert drawn.mean() < 0.1


def test_a_bone_needs_both_of_its_ends():
    scores = np.full((1, COUNT), 0.9)
    scores[0, COCO_17.keypoints.index("left_knee")] = 0.19
    image = draw(blank(), person(scores=scores), style=BARE)
    assert at(image, "left_knee") == (90, 90, 90)
    assert at(image, middle_of("left_hip", "left_knee")) == (90, 90, 90)
    assert at(image, middle_of("left_knee", "left_ankle")) == (90, 90, 90)
    assert at(image, "left_ankle") == LEFT
    assert not changed(image)[:40].any()  # nor does one lead to where a missing point would be


def test_low_scores_leave_the_image_alone():
    assert not changed(draw(blank(), person(score=0.19), style=BARE)).any()
    assert changed(draw(blank(), person(score=0.19), style=DrawStyle(min_score=0.1))).any()


def test_points_that_are_no_numbers_or_far_away_are_left_out():
    points = STANDING.copy()
    points[9] = np.nan
    points[10] = np.inf, 3
    points[15] = 1e30, -1e30
    image = draw(blank(), person(points), style=BARE)
    assert at(image, "left_wrist") == at(image, "right_wrist") == (90, 90, 90)
    assert at(image, "left_knee") == LEFT


@pytest.mark.parametrize("shift", [(-5_000, 0), (600, 300), (0, -450), (25_000, 25_000)])
def test_a_person_partly_or_wholly_outside_is_cut(shift):
    moved = STANDING + np.float32(shift)
    box = np.array([200, 40, 440, 460]) + np.tile(shift, 2)
    poses = person(moved, boxes=Boxes([box]), ids=[123])
    image = draw(blank(), poses)
    assert image.shape == (HEIGHT, WIDTH, 3)
    inside = ((moved > 0) & (moved < (WIDTH, HEIGHT))).all(1)
    for x, y in moved[inside].astype(int):
        assert tuple(image[y, x]) != (90, 90, 90)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (17, 9), (2160, 3840)])
def test_any_frame_size_works(size):
    image = np.zeros((*size, 3), np.uint8)
    scale = np.array([size[1] / WIDTH, size[0] / HEIGHT])
    box = Boxes([[*(np.array([200, 40]) * scale), *(np.array([440, 460]) * scale)]])
    assert draw(image, person(STANDING * scale, boxes=box, ids=[1])).any()


def test_lines_grow_with_the_person():
    def width(scale: float) -> int:
        points = STANDING * scale
        image = np.zeros((960, 1280, 3), np.uint8)
        image = draw(image, person(points, boxes=Boxes([[0, 0, 9, 9]])), style=BARE)
        row = int((points[11, 1] + points[13, 1]) / 2)
        return int((image[row, int(points[11, 0] * 0.97) :] == LEFT).all(1).sum())

    assert width(2.0) >= width(0.9) + 2


def small_person(height_px: float):
    """STANDING, so high, in the middle of a full-HD image."""
    points = (STANDING - STANDING.mean(0)) * height_px / np.ptp(STANDING[:, 1]) + (960, 540)
    box = [*(points.min(0) - 5), *(points.max(0) + 5)]
    return person(points, boxes=Boxes([box])), np.array(box).astype(int)


@pytest.mark.parametrize("height_px", [40, 80, 100])
def test_a_small_person_stays_visible(height_px):
    """Bones of 1 px, or a hundredth of the height, with soft edges of half a pixel on either side.

    STANDING's bones are 5.5 heights long together, and its box is half as wide as high.
    """
    poses, (x0, y0, x1, y1) = small_person(height_px)
    drawn = changed(draw(np.full((1080, 1920, 3), 90, np.uint8), poses, style=BARE))[y0:y1, x0:x1]
    assert 0.05 < drawn.mean() < 5.5 * height_px * (0.011 * height_px + 1.2) / (height_px**2 / 2)


def test_the_rim_fades_with_the_size():
    """No person changes its looks at once when it grows by a pixel."""
    shares = []
    for height_px in np.arange(90, 220, 2.0):
        poses, (x0, y0, x1, y1) = small_person(height_px)
        image = draw(np.full((1080, 1920, 3), 90, np.uint8), poses, style=BARE)[y0:y1, x0:x1]
        shares.append((image.astype(int).sum(2) < 200).mean())  # darker than what it lies on
    assert max(shares) > 0.03
    assert np.abs(np.diff(shares)).max() < max(shares) / 5


def test_a_line_width_is_what_was_requested():
    skeleton = dataclasses.replace(COCO_17, bones=((11, 12),))
    points = STANDING.copy()
    points[[11, 12]] = [[400, 300], [200, 300]]
    for line_width in (1, 4, 9):
        style = DrawStyle(line_width=line_width, boxes=False, ids=False)
        image = draw(blank(), person(points, skeleton=skeleton), style=style)
        column = (image[280:320, 300].astype(int) == MIDDLE).all(1).sum()
        assert abs(column - line_width) <= 1, line_width


@pytest.mark.parametrize("line_width", [0, -1, float("nan"), 1e9, "2"])
def test_a_line_width_out_of_range_is_refused(line_width):
    with pytest.raises(InputError, match="line_width"):
        DrawStyle(line_width=line_width)


def test_labels_are_written_beside_their_points():
    plain, labeled = (
        draw(blank(), person(), style=DrawStyle(boxes=False, ids=False, labels=labels))
        for labels in (False, True)
    )
    y, x = np.nonzero((plain != labeled).any(2))
    assert len(x) > 500
    knee = STANDING[COCO_17.keypoints.index("left_knee")]
    near = (np.abs(y - knee[1]) < 12) & (x > knee[0]) & (x < knee[0] + 80)
    assert near.sum() > 20


def test_lines_are_smooth():
    """Anti-aliased: between a bone and its dark rim lie mixed colors, not a staircase."""
    image = draw(blank(255), person(), style=BARE)
    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert len(colors) > 100


def test_a_skeleton_moves_by_parts_of_a_pixel():
    first = draw(blank(), person(), style=BARE)
    second = draw(blank(), person(STANDING + np.float32(0.25)), style=BARE)
    assert (first != second).any()


def test_box_and_tag_have_the_color_of_the_track():
    image = draw(blank(), person(ids=[5]))
    assert at(image, (440, 400)) == at(image, (200, 400)) == color_of(5)
    assert at(image, (320, 40)) == at(image, (320, 460)) == color_of(5)
    assert at(image, (202, 38)) == color_of(5)  # the tag sits on the corner
    bare = draw(blank(), person(ids=[5]), style=BARE)
    assert at(bare, (440, 400)) == at(bare, (202, 38)) == (90, 90, 90)


def test_a_tag_above_the_image_comes_into_it():
    poses = person(score=0.0, boxes=Boxes([[-30, -30, 440, 460]]), ids=[8])
    image = draw(blank(), poses)
    corner = (image[:30, :30] == color_of(8)).all(2)
    assert corner.sum() > 50


def test_untracked_persons_get_a_gray_box_and_no_tag():
    image = draw(blank(), person(score=0.0))
    color = at(image, (440, 400))
    assert len(set(color)) == 1
    assert color != (90, 90, 90)
    assert at(image, (202, 36)) == (90, 90, 90)


def test_neighboring_ids_differ_in_color_and_keep_it():
    colors = np.array([color_of(n) for n in range(-1, 40)], float)
    assert np.abs(np.diff(colors, axis=0)).max(1).min() > 80
    assert color_of(12) == color_of(12)
    assert colors.min() >= 0
    assert colors.max() <= 255


def test_the_input_is_untouched_unless_it_is_the_output():
    image = blank()
    drawn = draw(image, person())
    assert not changed(image).any()
    buffer = np.empty_like(image)
    assert draw(image, person(), out=buffer) is buffer
    assert np.array_equal(buffer, drawn)
    assert not changed(image).any()
    assert draw(image, person(), out=image) is image
    assert np.array_equal(image, drawn)


def test_views_and_read_only_images_can_be_drawn_on():
    image = blank()
    flipped = image[:, ::-1]
    flipped.flags.writeable = False
    assert np.array_equal(draw(flipped, person()), draw(blank(), person()))


def test_no_persons_are_a_plain_copy():
    empty = person().select([])
    image = blank()
    drawn = draw(image, empty)
    assert drawn is not image
    assert np.array_equal(drawn, image)


@pytest.mark.parametrize(
    ("image", "out"),
    [
        (np.zeros((9, 9), np.uint8), None),
        (np.zeros((9, 9, 3), np.float32), None),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 18, 3), np.uint8)[:, ::2]),
    ],
)
def test_wrong_images_are_input_errors(image, out):
    with pytest.raises(InputError, match="wanted"):
        draw(image, person(), out=out)


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("r_hip", "l_hip", "neck"), (RIGHT, LEFT, MIDDLE)),
        (("hip_right", "hip_left", "top"), (RIGHT, LEFT, MIDDLE)),
        (("RightHip", "LeftHip", "Head"), (RIGHT, LEFT, MIDDLE)),
        (("a", "b", "c"), (LEFT, RIGHT, MIDDLE)),
    ],
)
def test_sides_come_from_names_and_else_from_the_mirror(names, sides):
    skeleton = Skeleton("three", names, (), (1, 0, 2), (0.1, 0.1, 0.1))
    points = np.array([[[100, 100], [200, 100], [300, 100]]])
    poses = Poses(points, np.ones((1, 3)), Boxes([[0, 0, 400, 400]]), skeleton)
    image = draw(blank(), poses, style=BARE)
    assert tuple(at(image, point) for point in points[0]) == sides


def test_small_parts_get_thin_lines():
    """The line between the eyes is thinner than the one between the hips (by their sigmas)."""
    skeleton = dataclasses.replace(COCO_17, bones=((1, 2), (11, 12)))
    points = STANDING.copy()
    points[[1, 2, 11, 12]] = [[400, 100], [200, 100], [400, 300], [200, 300]]
    image = draw(blank(), person(points, skeleton=skeleton), style=BARE)
    eyes, hips = ((image[y - 15 : y + 16, 300] == MIDDLE).all(1).sum() for y in (100, 300))
    assert 0 < eyes < hips
