"""`posekit adapt` as a whole, with the shipped Lightning and generated images."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import posekit
from posekit import Bundle
from posekit.bundle import find
from posekit.diagnostics.verify import verify
from posekit.errors import DataError, InputError, ParityError, RecipeError, SourceError
from posekit.skeletons import COCO_17
from posekit_engines.bundles.refresh import refresh_bundle
from tests.finetune.media import figure, photograph


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(60):
        cv2.imwrite(str(folder / f"{number:02}.png"), figure(number))
    return folder


SHORT = {"boxes": "full", "threads": 1, "settings": ["watch_every=2", "batch=4"]}


def test_a_refused_run_writes_a_report_and_no_model(images: Path, tmp_path: Path) -> None:
    """The source is confident of no joint of a figure of blobs: harm cannot be measured."""
    out = tmp_path / "mine.posekit"
    settings = [*SHORT["settings"], "steps=2", "ensemble_views=2"]
    adapted = posekit.adapt(
        "movenet-lightning", images, out, **{**SHORT, "settings": settings}, overwrite=True
    )
    report = json.loads(out.with_suffix(".json").read_text())
    assert (adapted.status, adapted.exit_code) == ("refused", 5)
    assert not out.exists()
    assert report["labels_used"] == "none"
    assert not report["verdict"]["passed"]
    assert report["verdict"]["harmful"]
    assert report["facts"]["model_sha256"] == Bundle.open(find("movenet-lightning")).sha256
    assert report["headline"] == adapted.headline
    assert not out.with_name("mine.posekit.work").exists()
    page = out.with_suffix(".html").read_text()
    assert "http" not in page.split("<body>")[1].replace("http://www.w3.org", "")


def test_a_run_that_learned_nothing_writes_nothing_and_does_not_pass(tmp_path: Path) -> None:
    """One step at a rate of a millionth: every prediction is the source's."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(60):
        cv2.imwrite(str(folder / f"{number:02}.jpg"), photograph(number))
    settings = [*SHORT["settings"], "steps=1", "rate=1e-6", "ensemble_views=2"]
    options = {**SHORT, "settings": settings, "work": tmp_path / "work"}
    out = tmp_path / "new" / "mine.posekit"
    adapted = posekit.adapt("movenet-lightning", folder, out, **options)
    assert (adapted.status, adapted.exit_code) == ("learned too little", 5)
    assert not adapted.passed
    held = adapted.summary["held_out_persons"]
    assert adapted.headline.startswith(
        f"learned too little: 1 of 1 steps on {60 - held} persons ({held} more held out"
    )
    assert "no file was written" in adapted.reason
    assert adapted.outputs == ()
    assert not out.parent.exists()
    forced = posekit.adapt("movenet-lightning", folder, out, **options, force=True)
    assert (forced.status, forced.exit_code) == ("forced", 0)
    assert "nothing was learned" in Bundle.open(out).provenance["refused"]


LOADED = """
import sys
import posekit
settings = ["steps=1", "watch_every=1", "batch=2", "ensemble_views=1"]
path, out = sys.argv[1:]
posekit.adapt("movenet-lightning", path, out, boxes="full", threads=1, settings=settings)
sys.stdout.write(" ".join(name for name in sys.modules if name.startswith("posekit")))
"""


def test_a_run_without_labels_loads_neither_the_evaluation_nor_the_reader_of_labels(
    images: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", LOADED, str(images), str(tmp_path / "mine.posekit")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "posekit_finetune.assess.gate" in loaded
    assert not [name for name in loaded if name.startswith("posekit.evaluate")]
    assert "posekit_finetune.data.annotations" not in loaded


OPENMP = """
import os
import sys
import posekit
posekit.AdaptOptions()
assert "torch" not in sys.modules  # it reads the variable when it is loaded
sys.stdout.write(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("given", "used"), [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_decides_otherwise(given: str, used: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", OPENMP]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == used


def test_a_forced_model_is_marked_and_runs_at_once(images: Path, tmp_path: Path) -> None:
    """One step: enough to change every layer that learns, too little for significance."""
    out = tmp_path / "mine.posekit"
    settings = [*SHORT["settings"], "steps=1", "rate=1e-4", "warm_up=1", "ensemble_views=2"]
    adapted = posekit.adapt(
        "movenet-lightning", images, out, **{**SHORT, "settings": settings}, force=True
    )
    bundle = Bundle.open(out)
    assert adapted.status in ("adapted", "forced")
    assert ("refused" in bundle.provenance) == (adapted.status == "forced")
    assert bundle.provenance["parents"] == [Bundle.open(find("movenet-lightning")).sha256]
    assert max(verify(bundle).values()) <= 0.5
    moved = [
        np.abs(bundle.weights[name].astype(float) - value).max()
        for name, value in Bundle.open(find("movenet-lightning")).weights.items()
    ]
    assert max(moved) > 0
    estimator = posekit.load(out, "cpu", 1)
    whole = np.array([[0, 0, 160, 192]], np.float32)
    assert estimator(figure(0), whole).points.shape == (1, 17, 2)


def test_a_larger_model_teaches_a_smaller_one(images: Path, tmp_path: Path) -> None:
    """Thunder's crops of 256 px and cells of 64 become Lightning's, and the report names it."""
    out = tmp_path / "mine.posekit"
    settings = [*SHORT["settings"], "steps=1", "watch_every=1", "ensemble_views=1"]
    posekit.adapt(
        "movenet-lightning",
        images,
        out,
        **{**SHORT, "settings": settings},
        teacher="movenet-thunder",
        work=tmp_path / "work",
        force=True,
    )
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["facts"]["teacher"] == "movenet-thunder"
    assert 0 < report["facts"]["agreement_with_teacher"] < 1
    assert report["history"][0]["values"]["teacher"] > 0
    thunders = np.load(next((tmp_path / "work").glob("maps-*remapped.npy")))
    assert thunders.shape == (60, 17, 48, 48)


@pytest.mark.slow
def test_labels_and_a_second_network_are_used(images: Path, tmp_path: Path) -> None:
    """The report has both losses, both networks, their ensemble, and the labels used."""
    other = tmp_path / "other.posekit"
    bundle = Bundle.open(find("movenet-lightning"))
    name = "head.heatmap.out.weight"
    weights = {**bundle.weights, name: (bundle.weights[name] * np.float16(0.95))}
    refresh_bundle(dataclasses.replace(bundle, weights=weights, name="other")).save(other)
    labels, folder = labeled_images(tmp_path, 6)
    out = tmp_path / "mine.posekit"
    settings = ["watch_every=2", "batch=4", "labelled_batch=4", "steps=2", "ensemble_views=1"]
    adapted = posekit.adapt(
        "movenet-lightning",
        images,
        out,
        **{**SHORT, "settings": settings},
        recipe="dual",
        labeled=labels,
        labeled_images=folder,
        labeled_first=5,
        second=other,
    )
    report = adapted.summary
    assert report["labels_used"] == "5 persons, 17 keypoints, to learn from"
    assert "movenet-lightning and other" in report["facts"]["networks"]
    assert set(report["history"][0]["losses"]) == {"supervised", "consistency"}
    assert report["history"][0]["values"]["apart"] > 0
    assert set(report["facts"]["members"]) == {"net 1", "net 2", "ensemble"}


def labeled_images(folder: Path, count: int) -> tuple[Path, Path]:
    """A COCO file of `count` images with one person each, and the folder."""
    images, rows = [], []
    for number in range(count):
        cv2.imwrite(str(folder / f"labeled-{number}.png"), figure(1000 + number))
        images.append({"id": number, "file_name": f"labeled-{number}.png"})
        joints = np.full((17, 3), 2.0)
        joints[:, 0] = 20 + 7 * np.arange(17)
        joints[:, 1] = 30 + 8 * np.arange(17)
        rows.append(
            {"image_id": number, "keypoints": joints.ravel().tolist(), "bbox": [5, 5, 150, 180]}
        )
    path = folder / "labels.json"
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path, folder


def test_bad_input_is_refused_before_training(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.posekit"):
        posekit.adapt("movenet-lightning", images, tmp_path / "mine.onnx")
    taken = tmp_path / "taken.posekit"
    taken.write_text("mine")
    with pytest.raises(SourceError, match="--overwrite"):
        posekit.adapt("movenet-lightning", images, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(InputError, match="--check-images"):
        posekit.adapt(
            "movenet-lightning", images, tmp_path / "a.posekit", check=tmp_path / "x.json"
        )
    same = tmp_path / "same"
    same.mkdir()
    for number in range(60):
        cv2.imwrite(str(same / f"{number}.png"), figure(0))
    with pytest.raises(DataError):
        posekit.adapt("movenet-lightning", same, tmp_path / "new" / "b.posekit", boxes="full")
    assert not (tmp_path / "new").exists()
    with pytest.raises(SourceError, match="a file stands where its folder should be"):
        posekit.adapt("movenet-lightning", same, taken / "c.posekit", work=tmp_path / "work")
    assert not (tmp_path / "work").exists()  # refused before anything was read
    wrong: list[tuple[dict[str, object], str]] = [
        ({"second": "movenet-lightning"}, "trains one network"),
        ({"second": "movenet-thunder", "recipe": "dual"}, r"takes \(256, 256\)"),
        ({"teacher": "movenet-thunder", "recipe": "single"}, "the teacher is self"),
        ({"labeled": tmp_path / "x.json"}, "--labeled-images"),
        (
            {
                **dict.fromkeys(("labeled", "check"), tmp_path / "x.json"),
                **dict.fromkeys(("labeled_images", "check_images"), tmp_path),
            },
            "own training labels",
        ),
    ]
    for n, (options, message) in enumerate(wrong):
        out = tmp_path / f"wrong-{n}.posekit"
        with pytest.raises((InputError, RecipeError), match=message):
            posekit.adapt("movenet-lightning", images, out, boxes="full", threads=1, **options)
    assert not list(tmp_path.glob("*.html"))
    assert not list(tmp_path.glob("*.work"))


def test_all_paths_of_a_shells_pattern_are_used(images: Path, tmp_path: Path) -> None:
    """`--unlabeled frames/0*.png` reaches the command as one option and nine arguments."""
    command = [sys.executable, "-m", "posekit", "adapt", "-m", "movenet-lightning"]
    command += ["--unlabeled", *map(str, sorted(images.glob("0*.png")))]
    command += ["--boxes", "full", "-o", str(tmp_path / "a.posekit")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == DataError.exit_code
    assert "10 distinct persons are left, wanted at least 50" in done.stderr


def test_graphs_that_deviate_from_their_weights_are_not_written() -> None:
    bundle = Bundle.open(find("movenet-lightning"))
    other = dict(bundle.weights)
    name = "head.heatmap.out.weight"
    other[name] = (other[name] * np.float16(0.9)).astype(np.float16)
    stale = dataclasses.replace(
        bundle, weights=other, graphs={**bundle.graphs, "flip": bundle.graphs["plain"]}
    )
    assert "flip_points" in refresh_bundle(dataclasses.replace(bundle, weights=other)).reference
    with pytest.raises(ParityError):
        refresh_bundle(stale)


@pytest.mark.slow
def test_ctrl_c_keeps_the_state_and_resume_ends_where_an_unbroken_run_does(
    images: Path, tmp_path: Path
) -> None:
    """Exit 130, then --resume; both runs end with the same weights, bit for bit."""
    command = [sys.executable, "-m", "posekit", "adapt", "-m", "movenet-lightning", "--force"]
    command += ["--unlabeled", str(images), "--boxes", "full", "--threads", "1"]
    for setting in ("steps=12", "batch=4", "watch_every=12", "ensemble_views=2", "rate=1e-4"):
        command += ["--set", setting]
    first = [*command, "-o", str(tmp_path / "a.posekit")]
    with subprocess.Popen(first, stderr=subprocess.PIPE, text=True) as broken:
        assert broken.stderr is not None
        for line in broken.stderr:
            if "training, 12 steps" in line:
                break
        time.sleep(2)
        broken.send_signal(signal.SIGINT)
        broken.stderr.read()
    assert broken.returncode == 130
    subprocess.run([*command, "-o", str(tmp_path / "a.posekit"), "--resume"], check=True)
    subprocess.run([*command, "-o", str(tmp_path / "b.posekit")], check=True)
    a, b = (Bundle.open(tmp_path / f"{name}.posekit") for name in "ab")
    assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)
    source = Bundle.open(find("movenet-lightning")).weights
    assert not all(np.array_equal(a.weights[name], source[name]) for name in a.weights)
