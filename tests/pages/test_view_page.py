"""`posekit view`'s page in a browser: frames, switches, keys, tables, hostile names, long clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posekit.types import Skeleton
from posekit.view import write_page
from tests.pages.browser import Browser, Page, check_page, is_drawn
from tests.pages.results import FPS, box, results_of
from tests.support.clips import make_clip, number_of

pytestmark = pytest.mark.tools

COUNT = 50
STAGE = ".stage canvas"
AT_REST = "wanted === null && !player.playing"
# Person 2 is absent for a while, person 3 continues where person 1 ended.
FRAMES = [
    {(1 if n < 30 else 3): box(5 + n / 2), **({} if 20 <= n < 26 else {2: box(110)})}
    for n in range(COUNT)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose frames spell their numbers, and the page of its results."""
    made = tmp_path_factory.mktemp("view")
    make_clip(made / "clip.mp4", COUNT)
    write_page(made / "clip.html", [results_of(FRAMES, source=str(made / "clip.mp4"))])
    return made


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with browser.open((folder / "clip.html").as_uri()) as opened:
        opened.until("player.video && player.video.readyState > 1 && player.measured")
        yield opened


def seek(page: Page, frame: int) -> None:
    page.run(f"seek({frame})")
    page.until(f"{AT_REST} && frame === {frame}")
    page.settle()


def hide_layers(page: Page, *names: str) -> None:
    for name in names or ("bones", "points", "ids", "boxes", "confidence"):
        page.run(f"setLayer('{name}', false)")
    page.settle()


def test_it_keeps_to_itself_and_fits_every_window(page: Page, folder: Path) -> None:
    check_page(page, folder.as_uri())
    assert page.run("document.querySelector('meta[name=viewport]') !== null")
    for part in (STAGE, "#timeline", "#charts canvas"):
        assert is_drawn(page.screenshot(part)), part


def test_the_frame_on_show_is_the_one_that_the_results_mean(page: Page) -> None:
    hide_layers(page)
    for frame in (0, 1, 17, 18, 49, 30, 2):
        seek(page, frame)
        assert number_of(page.screenshot(STAGE)) == frame


def test_uneven_times_and_a_late_first_frame_are_followed(browser: Browser, tmp_path: Path) -> None:
    times_ms = [200 + n for n in (0, 30, 130, 150, 400, 410, 900, 1000)]
    make_clip(tmp_path / "clip.mp4", len(times_ms), times_ms=times_ms)
    results = results_of([{}] * len(times_ms), source=str(tmp_path / "clip.mp4"))
    results.times_s[:] = (np.array(times_ms) - times_ms[0]) / 1000
    write_page(tmp_path / "clip.html", [results])
    with browser.open((tmp_path / "clip.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1 && player.measured")
        for frame in (5, 0, 4, 6, 3, 7, 1):
            seek(page, frame)
            assert number_of(page.screenshot(STAGE)) == frame


def test_results_of_a_part_begin_and_end_there(browser: Browser, folder: Path) -> None:
    """As of `infer --start --end --every 3`; between them other frames have no results."""
    part = results_of([{1: box(60)}] * 6, source=str(folder / "clip.mp4"))
    numbers = np.array([10, 13, 16, 19, 34, 37])
    part.frames[:], part.times_s[:] = numbers, numbers / FPS
    write_page(folder / "part.html", [part])
    with browser.open((folder / "part.html").as_uri()) as page:
        page.until("player.video && player.measured")
        page.until(AT_REST)
        page.run("player.video.currentTime = 1.01")
        page.until("$('clock').value.includes('no results here')")
        page.settle()
        drawn = page.screenshot(STAGE)
        hide_layers(page)
        assert (page.screenshot(STAGE) == drawn).all()
        seek(page, 0)
        assert number_of(page.screenshot(STAGE)) == 10
        page.click("#play")
        page.until("$('clock').value.includes('no results here')")
        page.until("!player.playing")
        page.until(f"{AT_REST} && frame === 5")
        page.settle()
        assert number_of(page.screenshot(STAGE)) == 37


def test_playing_shows_each_frame_with_its_own_number(page: Page) -> None:
    hide_layers(page)
    page.click("#play")
    page.until("frame > 5")
    page.click("#play")
    page.until("!player.playing")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert 5 < page.run("frame") == number_of(page.screenshot(STAGE))


@pytest.mark.parametrize("layer", ["bones", "points", "ids", "boxes", "confidence", "raw", "media"])
def test_every_switch_changes_what_is_drawn(page: Page, layer: str) -> None:
    seek(page, 10)
    before = page.screenshot(STAGE)
    page.click(f"[data-layer={layer}]")
    page.settle()
    assert (page.screenshot(STAGE) != before).any()
    page.click(f"[data-layer={layer}]")
    page.settle()
    assert (page.screenshot(STAGE) == before).all()


def test_persons_and_weak_points_are_switched_off(page: Page) -> None:
    seek(page, 10)
    hide_layers(page, "ids")
    both = page.screenshot(STAGE)
    page.click("[data-person='0 1']")
    page.settle()
    changed = np.flatnonzero((page.screenshot(STAGE) != both).any((0, 2)))
    assert changed.min() > both.shape[1] / 2  # person 2 stands on the right
    page.run("$('least').value = 1; $('least').dispatchEvent(new Event('input'))")
    page.click("[data-person='0 1']")
    page.settle()
    weak = page.screenshot(STAGE)
    page.click("#none")
    page.settle()
    assert (page.screenshot(STAGE) == weak).all()


def test_keys_play_step_and_switch(page: Page) -> None:
    def pressed(key: str, frame: int, *, shift: bool = False) -> None:
        page.press(key, shift=shift)
        page.until(f"{AT_REST} && frame === {frame}")

    pressed("ArrowRight", 1)
    pressed("ArrowRight", 2)
    pressed("ArrowLeft", 1)
    pressed("ArrowRight", 1 + FPS, shift=True)
    pressed("ArrowLeft", 1, shift=True)
    pressed("End", COUNT - 1)
    pressed("Home", 0)
    page.press(" ")
    page.until("player.playing && frame > 2")
    page.press(" ")
    page.until("!player.playing")
    page.press("b")
    assert page.run("view.layers.bones") is False


def test_everything_is_reached_by_tab_with_its_focus_visible(page: Page) -> None:
    ids = set()
    for _ in range(60):
        page.press("Tab")
        if page.run("document.activeElement !== document.body"):
            assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            ids.add(page.run("document.activeElement.id || document.activeElement.dataset.layer"))
    assert {"scrub", "play", "back", "forward", "rate", "bones", "raw", "least", "window"} <= ids


def test_every_control_and_graphic_has_a_name(page: Page) -> None:
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "checkbox", "slider", "combobox", "image", "link", "figure", "table"}
    found = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in wanted - {"figure", "table"} and not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            assert name, node
            found[role] = found.get(role, 0) + 1
    assert found["button"] > 5
    assert found["checkbox"] > 8
    assert found["slider"] == 2


def test_gaps_and_changes_of_id_are_listed_and_lead_there(page: Page) -> None:
    texts = page.run("[...document.querySelectorAll('#events button')].map((b) => b.textContent)")
    assert len(texts) == 2
    assert "person 2 is absent for 0.24 s" in texts[0]
    assert "person 1 probably goes on as 3" in texts[1]
    page.run("$('events').open = true")
    page.click("#events li:nth-child(2) button")
    page.until(f"{AT_REST} && frame === 30")


def test_the_table_sorts_and_leads_to_a_person(page: Page) -> None:
    def column(n: int) -> list[str]:
        cells = f"[...document.querySelectorAll('#table tbody tr td:nth-child({n})')]"
        return list(page.run(f"{cells}.map((each) => each.textContent)"))

    assert column(1) == ["1", "2", "3"]
    assert column(4) == ["30", "44", "20"]
    assert column(5) == ["0", "1", "0"]
    page.click("#table th:nth-child(4) button")
    assert column(1) == ["2", "1", "3"]
    assert page.run("document.querySelector('#table [aria-sort]').ariaSort") == "descending"
    page.click("#table th:nth-child(4) button")
    assert column(1) == ["3", "1", "2"]
    page.click("#table tbody tr:first-child button")
    page.until(f"{AT_REST} && frame === 30")


def saved(page: Page, kind: str) -> list[dict[str, str]]:
    page.run("save = (name, parts) => { window.saved = [name, parts.join('')]; }, 1")
    page.click(f"[data-csv={kind}]")
    name, text = page.run("window.saved")
    assert name == f"clip_{kind}.csv"
    return list(csv.DictReader(io.StringIO(text)))


def test_saved_keypoints_are_those_of_the_results(page: Page) -> None:
    results = results_of(FRAMES)
    rows = saved(page, "keypoints")
    assert list(rows[0]) == "frame time_s id keypoint x y score raw_x raw_y".split()  # noqa: SIM905
    assert len(rows) == results.persons.scores.size
    for axis, name in enumerate("xy"):
        found = np.array([float(row[name]) for row in rows])
        np.testing.assert_allclose(found, results.persons.points[..., axis].ravel(), atol=0.03)
    scores = np.array([float(row["score"]) for row in rows])
    np.testing.assert_allclose(scores, results.persons.scores.ravel(), atol=0.003)
    assert [int(row["id"]) for row in rows[::17]] == results.persons.ids.tolist()
    assert [row["id"] for row in rows[:1]] == ["1"]


def test_angles_are_those_of_the_points(page: Page) -> None:
    page.run("view.least = 0")
    rows, results = saved(page, "angles"), results_of(FRAMES)
    names = list(results.origin.skeleton.keypoints)
    hip, knee, ankle = (names.index(f"left_{part}") for part in ("hip", "knee", "ankle"))
    a, b, c = (results.persons.points[:, k] for k in (hip, knee, ankle))
    to_hip, to_ankle = a - b, c - b
    lengths = np.linalg.norm(to_hip, axis=1) * np.linalg.norm(to_ankle, axis=1)
    degrees = np.degrees(np.arccos(np.clip((to_hip * to_ankle).sum(1) / lengths, -1, 1)))
    found = np.array([float(row["left_knee_deg"]) for row in rows])
    shortest = np.minimum(np.linalg.norm(to_hip, axis=1), np.linalg.norm(to_ankle, axis=1))
    bound = np.degrees(2 * 0.03 / shortest) + 0.1  # each point is off by at most 1/64 px an axis
    assert (np.abs(found - degrees) <= bound).all()


def test_charts_follow_the_frame_and_angles_are_chosen(page: Page) -> None:
    seek(page, 10)
    before = page.screenshot("#charts canvas")
    seek(page, 40)
    assert (page.screenshot("#charts canvas") != before).any()
    count = "document.querySelectorAll('#charts figure').length"
    shown = page.run(count)
    page.click("#angle-list label:nth-child(8) input")
    assert page.run(count) == shown + 1
    page.run("$('angle-a').value = 0; $('angle-b').value = 5; $('angle-c').value = 9")
    page.click("#angle-add")
    assert page.run(count) == shown + 2
    page.run("$('window').value = '3'; $('window').dispatchEvent(new Event('change'))")
    page.settle()
    assert is_drawn(page.screenshot("#charts canvas"))


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>"
    skeleton = Skeleton(hostile, (hostile, "b", "c"), ((0, 1), (1, 2)), (0, 1, 2), (0.1,) * 3)
    clip = tmp_path / "<img src=x onerror=alert(1)>#?%41.mp4"
    make_clip(clip, 5)
    write_page(
        tmp_path / "p.html", [results_of([{1: box(9)}] * 5, source=str(clip), skeleton=skeleton)]
    )
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1")
        check_page(page, tmp_path.as_uri())
        assert page.run("window.hacked === undefined && document.images.length === 0")
        assert page.run("$('title').textContent") == clip.name
