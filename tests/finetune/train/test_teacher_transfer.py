"""A teacher of another size, padding and skeleton says to the student what it says itself."""

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
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.tta import TtaRuntime
from posekit.types import Boxes, Frame, ModelSpec
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.data.persons import Persons, cut_patches, offset_of
from posekit_finetune.train import teacher_transfer
from posekit_finetune.train.teacher import PseudoLabels, predict_pseudo_labels
from tests.assets import shipped
from tests.finetune.media import SPEC, blobs
from tests.finetune.train.test_networks import lightning

TEACHER = ModelSpec("hrnet-w32", (96, 128), (24, 32), MPII_16)  # SPEC: 64 x 64 px, COCO, padding 1
OPTIONS = FindOptions(boxes="full")
SHARED = [name for name in COCO_17.keypoints if name in MPII_16.keypoints]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty, of different shapes, with a white square around (30, 40)."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(60):
        image = blobs(seed, (90 + seed, 100))
        cv2.rectangle(image, (27, 37), (33, 43), (255, 255, 255), -1)
        cv2.imwrite(str(folder / f"{seed:02}.png"), image)
    return folder


@pytest.fixture(scope="module")
def both(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Persons, Persons]:
    work = tmp_path_factory.mktemp("work")
    ours = find_persons([pictures], SPEC, OPTIONS, work=work)
    theirs = teacher_transfer.recrop(ours, [pictures], TEACHER, options=OPTIONS, work=work)
    return ours, theirs


def test_the_same_persons_are_cut_anew_from_their_pictures(
    both: tuple[Persons, Persons], pictures: Path
) -> None:
    """As `cut_patches` has them, to the pixel: no second interpolation."""
    ours, theirs = both
    assert theirs.sources == ours.sources
    assert (theirs.boxes == ours.boxes).all()
    assert (theirs.groups == ours.groups).all()
    for row in (0, 7):
        image = cv2.imread(str(pictures / ours.sources[row]))[:, :, ::-1]
        warp = Warp.from_boxes(Boxes(ours.boxes[row : row + 1]), TEACHER)
        wanted = cut_patches(np.ascontiguousarray(image), warp, TEACHER)[0]
        np.testing.assert_array_equal(theirs.patches[row], wanted)


def test_pictures_that_went_away_are_named(
    both: tuple[Persons, Persons], pictures: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:-1]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"59\.png"):
        teacher_transfer.recrop(both[0], [few], TEACHER, options=OPTIONS, work=tmp_path)


def test_points_and_scores_arrive_in_the_students_crop(
    both: tuple[Persons, Persons], tmp_path: Path
) -> None:
    """Within a tenth of a cell of the student's; a peak may lie half a cell off its grid, twice."""
    ours, theirs = both
    frame = np.random.default_rng(1).uniform(30, 60, (len(ours), 16, 2)).astype(np.float32)
    to_theirs = Warp.from_boxes(Boxes(ours.boxes), TEACHER)
    to_ours = Warp.from_boxes(Boxes(ours.boxes), SPEC)
    maps = codecs.encode(to_theirs.to_crop(frame), TEACHER).astype(np.float16)
    told = PseudoLabels(maps, *codecs.decode(maps.astype(np.float32), TEACHER))
    seen = teacher_transfer.remap(told, theirs, ours, path=tmp_path / "maps.npy")
    assert seen.maps.shape == (60, 17, 16, 16)
    assert seen.known is not None
    assert [n for n, known in zip(COCO_17.keypoints, seen.known, strict=True) if known] == SHARED
    there = [MPII_16.keypoints.index(name) for name in SHARED]
    wanted = to_ours.to_crop(frame)[:, there]
    away = np.linalg.norm(seen.points[:, seen.known] - wanted, axis=2)
    assert away.max() < 0.1 * SPEC.map_scale[0]
    sizes = [np.sqrt(np.linalg.det(warp.matrix[:, :, :2])) for warp in (to_ours, to_theirs)]
    sigma = TEACHER.sigma * TEACHER.map_scale[0] * (sizes[0] / sizes[1]) / SPEC.map_scale[0]
    least = np.exp(-0.25 / sigma**2) - 0.01
    assert (seen.scores[:, seen.known] > least[:, None]).all()
    assert np.isnan(seen.points[:, ~seen.known]).all()
    assert not seen.scores[:, ~seen.known].any()
    assert not np.asarray(seen.maps)[:, ~seen.known].any()
    assert seen.peak(np.arange(60)) == pytest.approx(float(seen.scores[:, seen.known].mean()))


def test_keypoints_are_matched_by_name_however_they_are_spelled() -> None:
    spelled = dataclasses.replace(
        AIC_14, keypoints=tuple(name.replace("_", " ").title() for name in AIC_14.keypoints)
    )
    theirs, ours = teacher_transfer.by_name(spelled, COCO_17)
    names = [COCO_17.keypoints[k] for k in ours]
    assert [AIC_14.keypoints[k] for k in theirs] == names
    assert "left_wrist" in names
    assert "nose" not in names
    other = dataclasses.replace(AIC_14, keypoints=tuple(f"thumb_{k}" for k in range(14)))
    with pytest.raises(InputError, match="shares 0 keypoints"):
        teacher_transfer.by_name(other, COCO_17)


def photographed(spec: ModelSpec) -> tuple[Persons, list[NDArray[np.uint8]]]:
    """The largest persons of the two photographs, cut for a network; and the photographs."""
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


def test_thunder_says_to_lightning_what_it_says_of_the_photograph(tmp_path: Path) -> None:
    """Its own multi-view answer in the picture, within a quarter of Lightning's cell each joint.

    Thunder's cells are 3/4 of Lightning's on the same person; where a map has two peaks of nearly
    the same height the other one may win, so the median person's joints are held to it.
    """
    thunder = Bundle.open(find("movenet-thunder"))
    ours, images = photographed(lightning().pose_spec)
    theirs, _ = photographed(thunder.pose_spec)
    told = predict_pseudo_labels(theirs, thunder, views=2, threads=1)
    seen = teacher_transfer.remap(told, theirs, ours, path=tmp_path / "maps.npy")
    assert seen.known is not None
    assert seen.known.all()
    runtime = TtaRuntime(thunder, views=2, device="cpu", threads=1)
    warp = Warp.from_boxes(Boxes(ours.boxes), ours.spec)
    for n, image in enumerate(images):
        there = Warp.from_boxes(Boxes(ours.boxes[n : n + 1]), theirs.spec)
        points, _ = runtime.infer(runtime.crop(Frame(image).image, there))
        mine = Warp(warp.matrix[n : n + 1]).to_crop(there.to_frame(points))[0]
        away = np.linalg.norm(seen.points[n] - mine, axis=1)
        assert np.median(away) < 0.25 * ours.spec.map_scale[0]
        assert (away < ours.spec.map_scale[0]).mean() > 0.8
