"""`posekit view`'s page over videos, overlays, images and nothing; two results; long ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit.view import Results, write_page
from tests.pages.browser import Browser, Page, check_page, is_drawn
from tests.pages.results import box, results_of
from tests.support.clips import make_clip, number_of, numbered

pytestmark = pytest.mark.tools

COUNT = 50
STAGE = ".stage canvas"
AT_REST = "wanted === null && !player.playing"
FRAMES = [{1: box(5 + n / 2), 2: box(110)} for n in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose frames spell their numbers."""
    made = tmp_path_factory.mktemp("media")
    make_clip(made / "clip.mp4", COUNT)
    return made


def seek(page: Page, frame: int) -> None:
    page.run(f"seek({frame})")
    page.until(f"{AT_REST} && frame === {frame}")
    page.settle()


def hide_layers(page: Page) -> None:
    for name in ("bones", "points", "ids"):
        page.run(f"setLayer('{name}', false)")
    page.settle()


def opened_status(browser: Browser, path: Path) -> tuple[str, bool]:
    """The message of a page, and whether its stage shows anything."""
    with browser.open(path.as_uri()) as page:
        page.until("$('status').textContent || $('notes').textContent")
        page.until("!player.video || player.video.readyState > 1")
        page.settle()
        check_page(page, path.parent.as_uri())
        text = page.run("$('status').textContent + $('notes').textContent")
        return str(text), is_drawn(page.screenshot(STAGE))


def test_what_cannot_be_played_is_named_and_replaced(browser: Browser, tmp_path: Path) -> None:
    results = results_of(FRAMES, source=str(tmp_path / "cam.avi"))
    make_clip(tmp_path / "cam.avi", COUNT, codec="mpeg4")
    write_page(tmp_path / "run.html", [results])
    text, drawn = opened_status(browser, tmp_path / "run.html")
    assert "cannot play cam.avi. Skeletons are drawn on an empty ground." in text
    assert drawn
    make_clip(tmp_path / "over.mp4", COUNT)
    write_page(tmp_path / "over.html", [results])
    text, drawn = opened_status(browser, tmp_path / "over.html")
    assert "cannot play cam.avi. The overlay over.mp4 is shown" in text
    assert drawn
    (tmp_path / "cam.avi").unlink()
    write_page(tmp_path / "gone.html", [results])
    text, drawn = opened_status(browser, tmp_path / "gone.html")
    assert "cam.avi was not found" in text
    assert drawn


def test_without_video_time_goes_on_by_itself(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", [results_of(FRAMES, source="rtsp://camera")])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.press(" ")
        page.until("player.playing && frame > 2")
        page.until(f"!player.playing && frame === {COUNT - 1}")


def test_a_page_of_no_frame_is_a_page(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", [results_of([])])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        check_page(page, tmp_path.as_uri())
        assert page.run("$('notes').textContent").startswith("The results hold no frame.")


def test_the_page_of_one_image_has_no_timeline_and_no_error(
    browser: Browser, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), numbered(5))
    results = results_of([{1: box(5)}], source=str(tmp_path / "a.png"), files=["a.png"])
    write_page(tmp_path / "p.html", [replace(results, tracked=False)])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.until("[...player.images.values()].every((each) => each.naturalWidth > 0)")
        page.run("paint()")  # from what was kept of the first time
        page.settle()
        check_page(page, tmp_path.as_uri())
        assert page.run("$('timeline-part').hidden")
        hide_layers(page)
        assert number_of(page.screenshot(STAGE)) == 5


def test_images_are_shown_in_their_own_sizes(browser: Browser, tmp_path: Path) -> None:
    names = ["a#1.png", "b/c.png"]
    (tmp_path / "b").mkdir()
    for n, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), numbered(n + 5, (160, 96 + 64 * n)))
    results = results_of([{1: box(5)}, {1: box(5), 2: box(90)}], source=str(tmp_path), files=names)
    results.sizes[1] = 160, 160
    write_page(tmp_path / "p.html", [results])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.until("[...player.images.values()].every((each) => each.naturalWidth > 0)")
        check_page(page, tmp_path.as_uri())
        hide_layers(page)
        for n, name in enumerate(names):
            page.run(f"seek({n})")
            page.until(f"$('clock').value.includes('{name}')")
            page.settle()
            assert number_of(page.screenshot(STAGE)) == n + 5


def test_before_and_after_show_the_same_frame_side_by_side(browser: Browser, folder: Path) -> None:
    source = str(folder / "clip.mp4")
    after = results_of([{7: box(5)}, {7: box(6), 8: box(110)}] * 20, source=source)
    write_page(folder / "two.html", [results_of(FRAMES, source=source), after])
    with browser.open((folder / "two.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1 && player.measured")
        check_page(page, folder.as_uri())
        page.resize((1280, 900))
        hide_layers(page)
        seek(page, 21)
        for n in (1, 2):
            assert number_of(page.screenshot(f"#stages figure:nth-child({n}) canvas")) == 21
        assert page.run("colorOf(sides[1], 0) === colorOf(sides[0], 0)")
        assert page.run("document.querySelectorAll('#table tbody tr').length") == 4


def ten_minutes() -> Results:
    """18,000 frames of three persons."""
    count = 600 * 30
    results = results_of([{1: box(5), 2: box(50), 3: box(100)}] * 3)
    return _repeated(results, count // 3)


def _repeated(results: Results, times: int) -> Results:
    persons = replace(
        results.persons,
        **{
            name: np.concatenate([values] * times) for name, values in vars(results.persons).items()
        },
    )
    count = len(results.frames) * times
    return replace(
        results,
        frames=np.arange(count),
        times_s=np.arange(count) / 30,
        sizes=np.repeat(results.sizes[:1], count, 0),
        starts=np.arange(count + 1) * 3,
        persons=persons,
    )


def test_ten_minutes_are_there_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    """The best of a few times: other work on the machine takes no part in it."""
    write_page(tmp_path / "long.html", [ten_minutes()])
    ready_ms = [_load_ms(browser, tmp_path / "long.html")]
    while min(ready_ms) >= 3000 and len(ready_ms) < 4:
        ready_ms.append(_load_ms(browser, tmp_path / "long.html"))
    assert min(ready_ms) < 3000, ready_ms  # 600 on two idle cores


def _load_ms(browser: Browser, path: Path) -> float:
    """Until the first frame is painted; then frames are painted and found within their time."""
    with browser.open(path.as_uri()) as page:
        page.until("performance.getEntriesByName('posekit-drawn').length")
        costs_ms = page.run(
            "Array.from({length: 20}, (_, n) => {const t = performance.now(); "
            "shown_s = lead.times[900 * n]; paint(); return performance.now() - t})"
        )
        assert min(costs_ms) < 33, costs_ms  # 30 frames a second; 2 on an idle core
        page.run("seek(17999)")
        page.until(f"{AT_REST} && frame === 17999")
        assert not page.errors
        return float(page.run("performance.getEntriesByName('posekit-drawn')[0].startTime"))
