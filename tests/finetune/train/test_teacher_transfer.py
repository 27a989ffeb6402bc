"""A teacher of another size, padding and skeleton: its predictions survive the transfer."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posekit import codecs
from posekit.bundle import Bundle, find
from posekit.errors import DataError, InputError
from posekit.geometry import Warp
from posekit.inference.tta import TtaRuntime
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Boxes, Frame, ModelSpec
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.data.persons import Persons, cut_patches, offset_of
from posekit_finetune.train import teacher_transfer
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels
from tests.finetune.lightning import lightning
from tests.finetune.media import SPEC, blobs
from tests.support.assets import shipped

TEACHER = ModelSpec("hrnet-w32", (96, 128), (24, 32), MPII_16)  # SPEC: 64 x 64 px, COCO, padding 1
OPTIONS = FindOptions(boxes="full")
SHARED = [name for name in COCO_17.keypoints if name in MPII_16.keypoints]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of different shapes, with a white square around (30, 40)."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(60):
        image = blobs(seed, (90 + seed, 100))
        cv2.rectangle(image, (27, 37), (33, 43), (255, 255, 255), -1)
        cv2.imwrite(str(folder / f"{seed:02}.png"), image)
    return folder


@pytest.fixture(scope="module")
def two_crops(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Persons, Persons]:
    work = tmp_path_factory.mktemp("work")
    student = find_persons([images], SPEC, OPTIONS, work=work)
    teacher = teacher_transfer.recrop(student, [images], TEACHER, options=OPTIONS, work=work)
    return student, teacher


def test_the_same_persons_are_cropped_again_from_their_images(
    two_crops: tuple[Persons, Persons], images: Path
) -> None:
    """Equal to `cut_patches` in every pixel: no second interpolation."""
    student, teacher = two_crops
    assert teacher.sources == student.sources
    assert (teacher.boxes == student.boxes).all()
    assert (teacher.groups == student.groups).all()
    for row in (0, 7):
        image = cv2.imread(str(images / student.sources[row]))[:, :, ::-1]
        warp = Warp.from_boxes(Boxes(student.boxes[row : row + 1]), TEACHER)
        expected = cut_patches(np.ascontiguousarray(image), warp, TEACHER)[0]
        np.testing.assert_array_equal(teacher.patches[row], expected)


def test_the_error_names_an_image_that_is_missing_now(
    two_crops: tuple[Persons, Persons], images: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(images.iterdir())[:-1]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"59\.png"):
        teacher_transfer.recrop(two_crops[0], [few], TEACHER, options=OPTIONS, work=tmp_path)


def test_points_and_scores_are_in_the_students_crop(
    two_crops: tuple[Persons, Persons], tmp_path: Path
) -> None:
    """Within a tenth of the student's cells; a peak may lie half a cell off both grids."""
    student, teacher = two_crops
    frame = np.random.default_rng(1).uniform(30, 60, (len(student), 16, 2)).astype(np.float32)
    to_teacher = Warp.from_boxes(Boxes(student.boxes), TEACHER)
    to_student = Warp.from_boxes(Boxes(student.boxes), SPEC)
    maps = codecs.encode(to_teacher.to_crop(frame), TEACHER).astype(np.float16)
    labels = PseudoLabels(maps, *codecs.decode(maps.astype(np.float32), TEACHER))
    remapped = teacher_transfer.remap(labels, teacher, student, path=tmp_path / "maps.npy")
    assert remapped.maps.shape == (60, 17, 16, 16)
    assert remapped.known is not None
    assert [
        n for n, known in zip(COCO_17.keypoints, remapped.known, strict=True) if known
    ] == SHARED
    in_teacher = [MPII_16.keypoints.index(name) for name in SHARED]
    expected = to_student.to_crop(frame)[:, in_teacher]
    deviation = np.linalg.norm(remapped.points[:, remapped.known] - expected, axis=2)
    assert deviation.max() < 0.1 * SPEC.map_scale[0]
    sizes = [np.sqrt(np.linalg.det(warp.matrix[:, :, :2])) for warp in (to_student, to_teacher)]
    sigma = TEACHER.sigma * TEACHER.map_scale[0] * (sizes[0] / sizes[1]) / SPEC.map_scale[0]
    least = np.exp(-0.25 / sigma**2) - 0.01
    assert (remapped.scores[:, remapped.known] > least[:, None]).all()
    assert np.isnan(remapped.points[:, ~remapped.known]).all()
    assert not remapped.scores[:, ~remapped.known].any()
    assert not np.asarray(remapped.maps)[:, ~remapped.known].any()
    assert remapped.mean_peak(np.arange(60)) == pytest.approx(
        float(remapped.scores[:, remapped.known].mean())
    )


def test_keypoints_are_matched_by_normalized_names() -> None:
    renamed = dataclasses.replace(
        AIC_14, keypoints=tuple(name.replace("_", " ").title() for name in AIC_14.keypoints)
    )
    teacher, student = teacher_transfer.shared_keypoints(renamed, COCO_17)
    names = [COCO_17.keypoints[k] for k in student]
    assert [AIC_14.keypoints[k] for k in teacher] == names
    assert "left_wrist" in names
    assert "nose" not in names
    other = dataclasses.replace(AIC_14, keypoints=tuple(f"thumb_{k}" for k in range(14)))
    with pytest.raises(InputError, match="shares 0 keypoints"):
        teacher_transfer.shared_keypoints(other, COCO_17)


def photographed(spec: ModelSpec) -> tuple[Persons, list[NDArray[np.uint8]]]:
    """The largest persons of the two photographs, cropped for a network; and the photographs."""
    boxes = np.array([[273, 128, 414, 383], [384, 70, 497, 348]], np.float32)
    images = []
    for name in ("coco_000000234748", "coco_000000397133"):
        image = cv2.imread(str(shipped(f"tests/data/{name}.jpg")))[:, :, ::-1]
        images.append(np.ascontiguousarray(image))
    patches = [
        cut_patches(image, Warp.from_boxes(Boxes(box[None]), spec), spec)[0]
        for image, box in zip(images, boxes, strict=True)
    ]
    persons = Persons(
        patches=np.stack(patches),
        offset=offset_of(spec),
        boxes=boxes,
        sources=("a", "b"),
        groups=np.arange(2),
        times_s=np.full(2, np.nan),
        tracks=np.full(2, -1),
        spec=spec,
        fingerprint="photographs",
    )
    return persons, images


def test_thunders_pseudo_labels_for_lightning_are_its_predictions_in_the_photograph(
    tmp_path: Path,
) -> None:
    """Its own test-time augmentation in the image, within a quarter of Lightning's cell.

    Thunder's cells are 3/4 of Lightning's on the same person; where a map has two peaks of nearly
    equal height the other one may be chosen, so the median joint is held to it.
    """
    thunder = Bundle.open(find("movenet-thunder"))
    student, images = photographed(lightning().pose_spec)
    teacher, _ = photographed(thunder.pose_spec)
    labels = predict_pseudo_labels(teacher, thunder, views=2, threads=1)
    remapped = teacher_transfer.remap(labels, teacher, student, path=tmp_path / "maps.npy")
    assert remapped.known is not None
    assert remapped.known.all()
    runtime = TtaRuntime(thunder, views=2, device="cpu", threads=1)
    warp = Warp.from_boxes(Boxes(student.boxes), student.spec)
    for n, image in enumerate(images):
        in_teacher = Warp.from_boxes(Boxes(student.boxes[n : n + 1]), teacher.spec)
        points, _ = runtime.infer(runtime.crop(Frame(image).image, in_teacher))
        in_student = Warp(warp.matrix[n : n + 1]).to_crop(in_teacher.to_frame(points))[0]
        deviation = np.linalg.norm(remapped.points[n] - in_student, axis=1)
        assert np.median(deviation) < 0.25 * student.spec.map_scale[0]
        assert (deviation < student.spec.map_scale[0]).mean() > 0.8
