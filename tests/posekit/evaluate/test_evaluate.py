"""posekit eval: the official protocol, readers, intervals and the page."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import posekit
from posekit import Boxes, ModelSpec
from posekit.errors import InputError
from posekit.evaluate import (
    Annotations,
    Predictions,
    auc,
    compared,
    errors,
    mean_interval,
    nme,
    paired_bootstrap,
    pck,
    predict,
    read_annotations,
    score,
)
from posekit.evaluate.keypoint_names import layout_of, shared_keypoints
from posekit.evaluate.metrics import head_lengths, hit_rate, torso_lengths
from posekit.evaluate.outcome import Run, report, save
from posekit.evaluate.predict import oks_nms, rescore
from posekit.evaluate.score import coco_results
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from tests.support.assets import ROOT, shared
from tests.support.labels import own_prediction

SPEC = ModelSpec("movenet-lightning", (192, 192), (48, 48), COCO_17)
CRUMBS = {
    # name: file, images, layout, persons, labeled, keypoints shared with COCO
    "coco": ("coco/test_coco.json", "coco", "coco", 14, 12, 17),
    "mpii": ("mpii/test_mpii.json", "mpii", "mpii", 5, 5, 12),
    "aic": ("aic/test_aic.json", "aic", "aic", 9, 9, 12),
    "crowdpose": ("crowdpose/test_crowdpose.json", "crowdpose", "crowdpose", 5, 4, 12),
    "ochuman": ("ochuman/test_ochuman.json", "ochuman", "coco", 5, 5, 17),
    "jhmdb": ("jhmdb/test_jhmdb_sub1.json", "jhmdb", "jhmdb", 3, 3, 12),
    "posetrack": (
        "posetrack18/annotations/test_posetrack18_val.json",
        "posetrack18",
        "posetrack",
        14,
        14,
        15,
    ),
    "humanart": ("humanart/test_humanart.json", "humanart", "coco", 4, 4, 17),
    "exlpose": ("exlpose/test_exlpose.json", "exlpose", "crowdpose", 6, 6, 12),
}


@functools.cache
def labels() -> Annotations:
    folder = shared("coco_kpts")
    return read_annotations(folder / "person_keypoints.json", folder / "images")


def perturbed(annotations: Annotations, seed: int, *, noise: float) -> Predictions:
    """The labels, perturbed by `noise` of each person's size, with duplicates and random scores."""
    rng = np.random.default_rng(seed)
    persons = np.flatnonzero(annotations.labeled)
    persons = np.sort(np.concatenate([persons, rng.choice(persons, len(persons) // 4)]))
    count = len(annotations.skeleton)
    shake = (
        rng.normal(0, noise, (len(persons), count, 2)) * annotations.sizes[persons][:, None, None]
    )
    return Predictions(
        annotations.skeleton,
        annotations.image_of[persons],
        np.full(len(persons), -1),
        (annotations.keypoints[persons] + shake).astype(np.float32),
        rng.uniform(0, 1, (len(persons), count)).astype(np.float32),
        annotations.boxes.select(persons),
    )


def official(results: list[dict[str, object]]) -> NDArray[np.float64]:
    """What pycocotools itself says of results, from the data set's own file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(shared("coco_kpts/person_keypoints.json")))
        judge = COCOeval(truth, truth.loadRes(results), "keypoints")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.array(judge.stats, np.float64)


@pytest.mark.assets
@pytest.mark.parametrize(("seed", "noise"), [(0, 0.0), (1, 0.03), (2, 0.08), (3, 0.2)])
def test_average_precision_is_pycocotools_own(seed: int, noise: float) -> None:
    annotations = labels()
    found = perturbed(annotations, seed, noise=noise)
    ranks = rescore(found)
    kept = oks_nms(found, ranks, SPEC)
    results = coco_results(found.select(kept), ranks[kept], annotations, columns=np.arange(17))
    figures = score(found, annotations, SPEC).matched.figures()
    np.testing.assert_allclose(list(figures.values()), official(results), atol=1e-6)
    if noise == 0:
        assert figures["AR50"] > 0.95  # neighbors whose unlabeled keypoints coincide are taken


@pytest.mark.assets
def test_weights_count_images_as_often_as_copies_would() -> None:
    """A bootstrap round with an image twice is the data set with that image twice."""
    annotations = labels()
    matched = score(perturbed(annotations, 4, noise=0.1), annotations, SPEC).matched
    count = matched.persons.shape[1]
    weights = np.random.default_rng(5).integers(0, 3, count)
    rows = np.concatenate(
        [np.repeat(n, weights[image]) for n, image in enumerate(matched.image_of)]
    )
    copied = type(matched)(
        np.zeros(len(rows), np.int64),
        matched.hits[:, :, rows],
        matched.ignored[:, :, rows],
        (matched.persons @ weights)[:, None],
    )
    got, wanted = matched.figures(weights), copied.figures()
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), atol=1e-12)


@pytest.mark.assets
def test_duplicates_go_and_neighbors_stay() -> None:
    annotations = labels()
    person = np.flatnonzero(annotations.labeled)[:1]
    rows = np.concatenate([person, person, person])
    points = annotations.keypoints[rows].copy()
    points[2] += 0.5 * annotations.sizes[person[0]]
    scores = np.array([[0.5], [0.9], [0.4]], np.float32).repeat(17, 1)
    found = Predictions(
        COCO_17, np.zeros(3, int), np.full(3, -1), points, scores, annotations.boxes.select(rows)
    )
    assert oks_nms(found, rescore(found), SPEC).tolist() == [1, 2]


def test_rescoring_averages_only_confident_keypoints() -> None:
    boxes = Boxes(np.array([[0, 0, 9, 9]] * 2, np.float32), np.array([0.5, 1.0], np.float32))
    scores = np.array([[0.8, 0.4, 0.1], [0.1, 0.2, 0.0]], np.float32)
    none = np.zeros(2, int)
    found = Predictions(COCO_17, none, none - 1, np.zeros((2, 3, 2), np.float32), scores, boxes)
    np.testing.assert_allclose(rescore(found), [0.5 * 0.6, 0.0], atol=1e-7)


@pytest.mark.assets
@pytest.mark.parametrize("name", CRUMBS)
def test_layouts_are_read_and_mapped_by_name(name: str) -> None:
    file, images, layout, persons, labeled, common = CRUMBS[name]
    folder = shared("mmpose_testdata")
    read = read_annotations(folder / file, folder / images)
    data, model = shared_keypoints(read.skeleton, COCO_17)
    assert (read.name, len(read), int(read.labeled.sum())) == (layout, persons, labeled)
    assert len(data) == common
    assert [read.skeleton.keypoints[k] for k in data] == [COCO_17.keypoints[k] for k in model]
    assert (read.areas > 0).all()
    # Labeled keypoints lie in or near their boxes: x and y are not swapped, boxes are corners.
    low, high = read.boxes.xyxy[:, None, :2], read.boxes.xyxy[:, None, 2:]
    margin = 0.35 * (high - low)
    near = ((read.keypoints >= low - margin) & (read.keypoints <= high + margin)).all(2)
    assert near[read.visibility > 0].mean() > 0.97


@pytest.mark.assets
def test_matlab_files_count_from_one() -> None:
    folder = shared("mmpose_testdata/mpii")
    raw = json.loads((folder / "test_mpii.json").read_text())
    read = read_annotations(folder / "test_mpii.json", folder)
    first = [path.name for path in read.images].index(raw[0]["image"])
    row = np.flatnonzero(read.image_of == first)[0]
    np.testing.assert_allclose(read.keypoints[row], np.array(raw[0]["joints"]) - 1, atol=1e-3)


@pytest.mark.assets
def test_head_size_comes_from_the_head_box() -> None:
    """PoseTrack: 0.6 of the diagonal of bbox_head, as MPII's own program has it."""
    folder = shared("mmpose_testdata/posetrack18")
    file = folder / "annotations/test_posetrack18_val.json"
    box = json.loads(file.read_text())["annotations"][0]["bbox_head"]
    read = read_annotations(file, folder)
    assert read.head_sizes[0] == pytest.approx(0.6 * np.hypot(box[2], box[3]), rel=1e-6)


def test_layouts_are_recognized_by_names() -> None:
    leeds = [*MPII_16.keypoints[:6], "neck", "head_top"]
    assert layout_of(COCO_17.keypoints).name == "coco"
    assert layout_of(["Right Shoulder", *AIC_14.keypoints[1:]]).name == "aic"
    assert layout_of(leeds).name == "coco"
    with pytest.raises(InputError, match="share no keypoint"):
        shared_keypoints(layout_of(["tail"]).skeleton(["tail"]), COCO_17)


def test_pck_auc_nme_by_hand() -> None:
    truth = np.zeros((2, 3, 2))
    points = np.array([[[1, 0], [3, 4], [9, 9]], [[0, 2], [np.inf, 0], [0, 0]]])
    visible = np.array([[1, 2, 0], [2, 2, 2]])
    lengths = [10.0, 20.0]
    scaled = errors(points, truth, visible, reference_lengths=lengths)
    np.testing.assert_allclose(scaled[0, :2], [0.1, 0.5])
    assert np.isnan(scaled[0, 2])
    assert scaled[1].tolist() == [0.1, np.inf, 0.0]
    shares = pck(
        points, truth, visible, reference_lengths=lengths, thresholds=[0.05, 0.1, 0.2, 0.6]
    )
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.6, 0.8])  # nearer than, not as near as
    assert auc(scaled, 0.5) == pytest.approx((0.8 + 0 + 0.8 + 0 + 1) / 5)
    assert nme(scaled) == pytest.approx((0.1 + 0.5 + 0.1 + 0) / 4)
    with pytest.raises(InputError):
        errors(points, truth, visible, reference_lengths=[1.0])


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_auc_is_the_area_under_the_curve(values: list[float]) -> None:
    scaled = np.array(values)[:, None]
    fine = np.linspace(0, 0.5, 20_001)
    area = np.trapezoid(hit_rate(scaled, fine), fine) / 0.5
    assert auc(scaled, 0.5) == pytest.approx(area, abs=1e-3)


def test_reference_lengths() -> None:
    truth = np.zeros((3, 17, 2), np.float32)
    visible = np.full((3, 17), 2)
    truth[:, 6], truth[:, 11] = (0, 0), (30, 40)  # right shoulder, left hip
    truth[:, 5], truth[:, 12] = (0, 0), (3, 4)
    visible[1, 6] = 0
    visible[2, [5, 6]] = 0
    lengths = torso_lengths(truth, visible, COCO_17)
    assert lengths[:2].tolist() == [50.0, 10.0]  # the longer one; at least 10 px
    assert np.isnan(lengths[2])
    assert np.isnan(head_lengths(truth, visible, COCO_17)).all()


def test_paired_bootstrap_finds_a_true_difference_and_no_false_one() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 2000)
    a = rng.uniform(0, 1, 2000)
    difference, low, high = paired_bootstrap(a, a + 0.05 + rng.normal(0, 0.1, 2000), groups)
    assert low < 0.05 < high
    assert low > 0
    assert difference == pytest.approx(0.05, abs=0.01)
    assert paired_bootstrap(a, a, groups) == (0.0, 0.0, 0.0)


def test_interval_covers_the_mean_as_often_as_it_claims() -> None:
    """Persons of an image are alike; drawn by image, 95 % of the intervals hold the mean."""
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        image = rng.normal(0, 1, 60)
        groups = np.repeat(np.arange(60), 4)
        values = image[groups] + rng.normal(0, 0.5, 240)
        _, low, high = mean_interval(values, groups, seed)
        held += low <= 0 <= high
    assert 0.89 <= held / 200 <= 0.985  # binomial: 0.95 within 4 standard deviations


def test_bootstrap_refuses_what_is_not_paired() -> None:
    with pytest.raises(InputError, match="NaN in the same"):
        paired_bootstrap([1.0, np.nan], [np.nan, 1.0], [0, 1])
    with pytest.raises(InputError, match="finite"):
        mean_interval([np.inf, 1.0], [0, 1], 0)


@pytest.mark.assets
def test_worse_predictions_score_worse_and_the_difference_shows_it() -> None:
    annotations = labels()
    near, far = (score(perturbed(annotations, 6, noise=n), annotations, SPEC) for n in (0.02, 0.1))
    difference = compared(near, far)
    for name in ("AP", "AR", "OKS", "PCK@0.1 torso", "AUC box"):
        assert difference[name][1] > 0, name
    assert compared(near, near)["AP"] == [0.0, 0.0, 0.0]


@pytest.mark.assets
def test_missed_persons_are_misses() -> None:
    annotations = labels()
    found = perturbed(annotations, 7, noise=0.0)
    half = found.select(found.image_of % 2 == 0)
    evaluation = score(half, annotations, SPEC)
    persons = annotations.select(annotations.labeled)
    share = (persons.visibility[persons.image_of % 2 == 0] > 0).sum() / (
        persons.visibility > 0
    ).sum()
    assert evaluation.figures()["metrics"]["PCK@0.1 box"][0] == pytest.approx(share, abs=1e-6)
    assert evaluation.found.sum() == (persons.image_of % 2 == 0).sum()


def test_given_boxes_go_through_the_estimator(tmp_path: Path) -> None:
    """End to end on a committed photo with the shipped model: labels are its own prediction."""
    estimator = posekit.load("movenet-lightning", "cpu", 1, flip=False, boxes="full")
    image = ROOT / "tests/data/coco_000000397133.jpg"
    labels = own_prediction(estimator, image, tmp_path)
    read = read_annotations(labels, image.parent)
    spec = estimator.runtime.spec
    evaluation = score(predict(estimator, read, skeleton=spec.skeleton), read, spec)
    figures = evaluation.figures()
    assert figures["metrics"]["PCK@0.05 box"] == [1.0, 1.0, 1.0]
    assert figures["metrics"]["AP"][0] == pytest.approx(1.0, abs=1e-6)
    run = Run(estimator.runtime, evaluation)
    result = report([run, run], boxes="gt", annotations=labels)
    save(result, run, json_file=tmp_path / "a.json", html_file=tmp_path / "a.html")
    assert json.loads((tmp_path / "a.json").read_text()) == result
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 6  # differences, PCK by each of three lengths, two headlines
    assert "data:image/jpeg;base64," in page
    assert not re.search(r"(src|href)=.(?!data:)|https?://|@import|url\(", page)
