"""Reports and the live page in a browser: nothing leaves them or overflows, all is drawn."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from posekit import api
from posekit.cli import app
from posekit.output.mjpeg import MjpegServer
from posekit_finetune.assess.gate import judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.monitor import Monitor
from posekit_finetune.recipe import Recipe
from posekit_finetune.report import page as adapt_page
from posekit_finetune.train.teacher import PseudoLabels
from tests.pages.browser import Browser, check_page, is_drawn
from tests.support.assets import ROOT
from tests.support.clips import numbered
from tests.support.figures import drawn_model, figures, unsteady

pytestmark = pytest.mark.tools

PERSONS = 16


def check_report(browser: Browser, path: Path, *, charts: int, images: int) -> None:
    """Every chart and image of a report, folded ones too, is there and drawn."""
    with browser.open(path.as_uri()) as page:
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        check_page(page, path.as_uri())
        assert page.requests[0] == path.as_uri()
        page.resize((1280, 900))
        assert page.run("document.title")
        assert page.run("document.querySelectorAll('svg').length") >= charts
        assert page.run("document.images.length") >= images
        assert page.run("[...document.images].every((each) => each.alt)")
        for tag in ("svg", "img"):
            for n in range(page.run(f"document.querySelectorAll('{tag}').length")):
                page.run(f"document.querySelectorAll('{tag}')[{n}].id = '{tag}{n}'")
                assert is_drawn(page.screenshot(f"#{tag}{n}")), f"{tag} {n}"


def adaptation() -> adapt_page.Run:
    """A small run with drawn persons, as its report takes it."""
    persons, joints = figures(PERSONS)
    rows = np.arange(PERSONS)
    maps = np.zeros((PERSONS, 1, 1, 1), np.float16)
    teacher = PseudoLabels(maps, joints, np.ones((PERSONS, 9)))
    before = measure(unsteady(0.2), persons, rows, teacher=teacher)
    after = measure(drawn_model, persons, rows, teacher=teacher, source=before)
    monitor = Monitor(before)
    for step in (50, 100):
        monitor.watch(step, after, {"consistency": 1 / step})
    values = {
        "title": "a model with a long name to another one",
        "reason": "adapted: better",
        "headline": "adapted: 100 of 1,400 steps",
        "facts": {"labels used": "none", "data_fingerprint": "f00d" * 16, "seed": 7},
        "recipe": Recipe(rate=3e-4),
        "before": before,
        "persons": persons,
        "after": after,
        "verdict": judge(before, after, checks=[]),
        "history": monitor.history,
    }
    names = {field.name for field in dataclasses.fields(adapt_page.Run)}
    return adapt_page.Run(**{name: values[name] for name in names & set(values)})  # type: ignore[arg-type]


def test_the_report_of_an_adaptation(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(adapt_page.page(adaptation()), encoding="utf-8")
    check_report(browser, tmp_path / "a.html", charts=3, images=1)


def labels(folder: Path) -> Path:
    """COCO labels of one photo: the model's own prediction, moved a little."""
    image = ROOT / "tests/data/coco_000000397133.jpg"
    estimator = api.load("movenet-lightning", "cpu", 1, flip=False, boxes="full")
    from posekit.video import read

    with read(image) as frames:
        (frame,) = frames
    poses = estimator(frame)
    height, width = frame.image.shape[:2]
    points = np.concatenate([poses.points[0] + 3, np.full((17, 1), 2)], 1)
    box = [0, 0, width, height]
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": width * height / 4}
    person |= {"bbox": box, "keypoints": points.ravel().tolist(), "num_keypoints": 17}
    names = list(poses.skeleton.keypoints)
    data = {
        "images": [{"id": 1, "file_name": image.name, "width": width, "height": height}],
        "annotations": [person],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(data))
    return path


def test_the_page_of_an_evaluation(browser: Browser, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    arguments = ["eval", "movenet-lightning", "--compare", "movenet-thunder", "--no-flip"]
    arguments += ["--images", str(ROOT / "tests/data"), "--annotations", str(labels(tmp_path))]
    done = CliRunner().invoke(app, [*arguments, "--html", str(tmp_path / "eval.html")])
    assert done.exit_code == 0, done.output
    check_report(browser, tmp_path / "eval.html", charts=2, images=1)


def test_the_page_of_an_export(browser: Browser, tmp_path: Path) -> None:
    api.export("movenet-lightning", tmp_path / "small.onnx")
    check_report(browser, tmp_path / "small.onnx.parity.html", charts=0, images=1)


def test_the_live_page_shows_the_newest_image(browser: Browser) -> None:
    stop = threading.Event()

    def push(server: MjpegServer) -> None:
        count = 0
        while not stop.wait(0.05):
            count += 1
            server.push(numbered(count % 1000))

    with MjpegServer() as server:
        thread = threading.Thread(target=push, args=(server,))
        thread.start()
        try:
            with browser.open(server.url, until="interactive") as page:
                page.until("document.images[0].naturalWidth > 0")
                check_page(page, server.url)
                page.resize((1280, 900))
                first = page.screenshot("img")
                assert is_drawn(first)
                page.run("new Promise((done) => setTimeout(done, 1000))")
                assert (page.screenshot("img") != first).any()
        finally:
            stop.set()
            thread.join()
